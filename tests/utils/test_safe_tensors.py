"""Weights in every form that is accepted, and files that are none: refused in one sentence, never
run.
"""

import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from archives import Payload, as_archive, as_pickle, save_torchscript
from helpers import clip_tensors, tiny_clip
from safetensors.torch import save_file
from torch import Tensor

from clip.loader import load_clip
from clip.model import CLIP, VisionTransformer
from utils.common.errors import UserError
from utils.common.safe_tensors import read_tensors
from utils.common.weights import PUBLIC

FORMS: dict[str, Callable[[dict[str, Tensor], Path], object]] = {
    "torchscript.pt": save_torchscript,
    "bare.pt": torch.save,
    "wrapped.pth": lambda tensors, path: torch.save({"state_dict": tensors, "epoch": 3}, path),
    "model.pth": lambda tensors, path: torch.save({"model": tensors}, path),
    "legacy.pt": lambda tensors, path: torch.save(
        tensors, path, _use_new_zipfile_serialization=False
    ),
    "plain.safetensors": save_file,
}


def rounded() -> dict[str, Tensor]:
    """A tiny CLIP's tensors with values that half precision holds exactly."""
    return {
        n: t.half().float() if t.is_floating_point() else t
        for n, t in clip_tensors(tiny_clip()).items()
    }


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_features(form: str, tmp_path: Path) -> None:
    tensors = rounded()
    FORMS[form](tensors, tmp_path / form)
    model, expected = load_clip(tmp_path / form), CLIP.from_state_dict(tensors)
    images = torch.randn(2, 3, 48, 80)
    tokens = model.token_ids[None, :8].repeat(2, 1)
    assert torch.equal(model.visual(images), expected.visual(images))
    assert torch.equal(model.encode_text(tokens), expected.encode_text(tokens))
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_a_torchscript_archive_of_the_official_size(tmp_path: Path) -> None:
    with torch.device("meta"):
        official = CLIP(VisionTransformer(768, 12, 512, 16, 14), 512, 512, 12)
    tensors = {
        n: torch.full(t.shape, i / 1024, dtype=torch.half)
        for i, (n, t) in enumerate(official.state_dict().items())
    }
    assert sum(t.numel() for t in tensors.values()) == 149_620_737  # CLIP ViT-B/16, as published
    save_torchscript(tensors, tmp_path / "own.pt")
    model = load_clip(tmp_path / "own.pt")
    assert model.state_dict().keys() == tensors.keys() and model.token_ids is None
    for name, tensor in model.state_dict().items():
        assert (
            tensor.shape == tensors[name].shape
            and tensor.flatten()[-1] == tensors[name].flatten()[-1]
        ), name
    assert len(model.visual.blocks) == 12 and model.visual.blocks[0].attn.heads == 12
    assert model.transformer.resblocks[0].attn.heads == 8


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_truncated_files_are_refused(form: str, share: float, tmp_path: Path) -> None:
    FORMS[form](rounded(), tmp_path / form)
    content = (tmp_path / form).read_bytes()
    (tmp_path / form).write_bytes(content[: int(len(content) * share)])
    with pytest.raises(
        UserError, match=f"{re.escape(form)} cannot be read .*truncated.*fetch it again"
    ) as caught:
        load_clip(tmp_path / form)
    assert "\n" not in str(caught.value)


TEXTS = [
    b"hello\n",
    b"<!DOCTYPE html><html></html>",
    b"",
    b"state",
    b"GIF89a",
    b"\x80\x02.",
    b"PK\x03\x04",
    b"(1, 2)",
]


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize("content", TEXTS)
def test_other_files_are_refused(content: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights.{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError, match="not a weights file"):
        read_tensors(path, "CLIP file")


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, {"model": {"a": "text"}}, torch.ones(2)])
def test_files_without_a_state_dict_are_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(UserError, match="holds no state dict"):
        read_tensors(tmp_path / "a.pt", "CLIP file")


def test_missing_files_are_named(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.pt", tmp_path):
        with pytest.raises(UserError, match=f"CLIP file {re.escape(str(path))} does not exist"):
            load_clip(path)


def without(name: str) -> dict[str, Tensor]:
    return {n: t for n, t in clip_tensors(tiny_clip()).items() if n != name}


@pytest.mark.parametrize(
    ("tensors", "named"),
    [
        (without("visual.ln_post.bias"), "visual.ln_post.bias"),
        (without("positional_embedding"), "positional_embedding"),
        (without("visual.conv1.weight"), "visual.conv1.weight"),
        (without("") | {"visual.extra": torch.ones(1)}, "visual.extra"),
        (without("") | {"ln_final.weight": torch.ones(3)}, "ln_final.weight"),
        (without("") | {"visual.conv1.weight": torch.ones(3)}, "visual.conv1.weight of 4"),
        (
            {"cls_token": torch.ones(1, 1, 384), "head.bias": torch.ones(1000)},
            "visual.conv1.weight",
        ),  # a DeiT file
        ({}, "visual.conv1.weight"),
    ],
)
def test_a_state_dict_that_is_not_a_clip_is_refused_by_tensor(
    tensors: dict[str, Tensor], named: str, tmp_path: Path
) -> None:
    torch.save(tensors, tmp_path / "a.pt")
    with pytest.raises(UserError, match=f"a.pt is not a CLIP ViT .*{named}") as caught:
        load_clip(tmp_path / "a.pt")
    assert "\n" not in str(caught.value)


def test_the_official_name_needs_the_official_bytes(tmp_path: Path) -> None:
    path = tmp_path / PUBLIC["clip"].name
    save_torchscript(rounded(), path)
    with pytest.raises(
        UserError, match=f"{path.name} has SHA-256 .* not that of the official file"
    ):
        load_clip(path)
    load_clip(path.rename(tmp_path / "own.pt"))


@pytest.mark.parametrize("save", [as_pickle, torch.save, as_archive])
@pytest.mark.parametrize("kind", ["open", "system"])
@pytest.mark.parametrize(
    "wrap", [lambda payload: payload, lambda payload: {"visual.proj": payload}]
)
def test_a_file_that_would_run_code_is_refused_and_does_not_run(
    kind: str, wrap: Callable, save: Callable, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    payload = (
        Payload(open, str(trace), "w")
        if kind == "open"
        else Payload(os.system, f"echo > '{trace}'")
    )
    pickle.loads(pickle.dumps(payload))
    assert trace.is_file()  # the payload works
    trace.unlink()
    save(wrap(payload), tmp_path / "weights.pt")
    with pytest.raises(UserError, match="cannot be read"):
        load_clip(tmp_path / "weights.pt")
    assert not trace.exists()
