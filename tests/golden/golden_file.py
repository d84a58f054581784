"""One golden file: its settings, its arrays as tensors, and a record of which were looked at."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import golden_weights
import numpy as np
import torch
from torch import Tensor

from clip.model import CLIP
from model.class_token_vit import ClassTokenViT
from model.vit_loading import load_mct


class GoldenFile:
    """`golden["name"]` is an array (text as it is, numbers as a tensor); `unread` names those
    nobody asked for.
    """

    def __init__(self, path: Path) -> None:
        with np.load(path, allow_pickle=False) as arrays:
            self._arrays = {name: arrays[name] for name in arrays.files}
        self.config: dict[str, Any] = json.loads(str(self._arrays.pop("config")))
        self.unread = set(self._arrays)

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def __getitem__(self, name: str) -> Any:
        self.unread.discard(name)
        array = self._arrays[name]
        if array.dtype.kind == "U":
            return array.tolist()
        return torch.from_numpy(array)

    def names(self, suffix: str) -> list[str]:
        """What stands before `suffix` in the names that end with it: the variants a file holds."""
        return [name.removesuffix(suffix) for name in self._arrays if name.endswith(suffix)]

    def clip(self) -> CLIP:
        """The CLIP this file was made with. AssertionError if our weights are not its weights."""
        state = _weights(
            "clip",
            json.dumps(self.config["clip"]),
            self.config["seed"],
            self.config["sha256"]["clip"],
        )
        return CLIP.from_state_dict(state).requires_grad_(False)

    def vit(self) -> ClassTokenViT:
        """Its class-token ViT, loaded as a user's checkpoint is."""
        sizes = self.config["mct"]
        state = _weights(
            "mct", json.dumps(sizes), self.config["seed"], self.config["sha256"]["mct"]
        )
        return load_mct(state, heads=sizes["heads"])

    def head(self) -> dict[str, Tensor]:
        """The other trained tensors under our names."""
        published, own = golden_weights.head_weights(self.config["head"], self.config["seed"])
        assert golden_weights.digest(published) == self.config["sha256"]["head"]
        return own


@lru_cache(maxsize=4)
def _weights(kind: str, sizes: str, seed: int, sha256: str) -> dict[str, Tensor]:
    """Random weights of a CLIP or a ViT, checked against the digest in the golden file."""
    state = getattr(golden_weights, f"{kind}_weights")(json.loads(sizes), seed)
    assert golden_weights.digest(state) == sha256
    return state


def close(actual: Tensor, expected: Tensor, relative: float = 1e-4, absolute: float = 0.0) -> None:
    """Same shape, and nowhere farther apart than `absolute` + `relative` times the largest expected
    value.
    """
    actual, expected = _comparable(actual, expected)
    limit = absolute + relative * expected.abs().max().item()
    farthest = (actual - expected).abs().max().item()
    assert farthest <= limit, f"differs by {farthest:.3g}, allowed {limit:.3g}"


def each_close(actual: Tensor, expected: Tensor, relative: float) -> None:
    """Same shape, and each entry within `relative` of its own expected value."""
    actual, expected = _comparable(actual, expected)
    farthest = ((actual - expected).abs() / expected.abs()).max().item()
    assert farthest <= relative, f"differs by {farthest:.3g} of a value, allowed {relative:.3g}"


def mostly_same(actual: Tensor, expected: Tensor, share: float = 0.999) -> None:
    """Same shape and equal on at least `share` of the entries: labels follow from rounded
    scores.
    """
    actual, expected = _comparable(actual, expected)
    equal = (actual == expected).double().mean().item()
    assert equal >= share, f"equal on {equal:.5f} of the entries, at least {share} needed"


def same(actual: Tensor, expected: Tensor) -> None:
    """Same shape and equal everywhere."""
    mostly_same(actual, expected, share=1.0)


def _comparable(actual: Tensor, expected: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float64; a nan or inf in the actual one, or another shape, fails."""
    assert actual.shape == expected.shape, (
        f"shape {tuple(actual.shape)}, expected {tuple(expected.shape)}"
    )
    assert torch.isfinite(actual).all(), "not finite"
    return actual.detach().double(), expected.double()
