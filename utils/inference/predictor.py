"""What a trained checkpoint and a bare CLIP share as functions from pictures to labels, and what
prediction of a list asks of both.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datasets.annotations import class_of
from datasets.classes import names_in
from datasets.lists import Item
from datasets.pictures import as_shown, load_image
from datasets.specs import DatasetSpec
from model.cvf import CVF
from utils.config import Config

Picture = str | Path | Image.Image | np.ndarray | Tensor  # in the forms that `as_tensor` knows


@dataclass(frozen=True)
class Found:
    """What was found in a picture: labels (H, W) uint8 by result, the last being final, perhaps
    logits (K+1, h, w), and what more the journal shall know of it.

    Without labels the picture is left out, and the fact "error" says why.
    """

    labels: dict[str, np.ndarray]
    logits: np.ndarray | None = None
    facts: dict[str, Any] = field(default_factory=dict)


class OnModel:
    """A network, the classes it knows and its settings: what a checkpoint and a bare CLIP share."""

    def __init__(self, model: CVF, spec: DatasetSpec, config: Config, sha256: str) -> None:
        """model: on the device it shall run on. spec: names of its classes. config: settings.
        sha256: digest of its weights.
        """
        self.model = model.eval()
        self.spec = spec
        self.config = config
        self.sha256 = sha256
        _one_thread_after_fork()

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the names of labels 0..K, background first."""
        return self.spec.label_names

    @property
    def device(self) -> torch.device:
        """Return where it runs."""
        return self.model.text.device

    def keys(self, tags: str | Sequence[str]) -> list[int]:
        """Return the classes 0..K-1 of tags, ascending, whatever their case. Raises UserError with
        the nearest class on an unknown one, and where they are no list of names.
        """
        if isinstance(tags, str):
            tags = [tags]
        tags = names_in(tags, "tags of one picture")
        names = {class_of(tag, self.spec, "the picture") for tag in tags} - {""}
        return sorted(self.spec.classes.index(name) for name in names)


def as_tensor(picture: Picture) -> Tensor:
    """Return (3, H, W) uint8 RGB of a picture in any of its forms. Raises UserError and ValueError
    as `Segmenter`.
    """
    if isinstance(picture, Tensor):
        coloured = picture.ndim == 3 and picture.shape[0] == 3
        if picture.dtype != torch.uint8 or not coloured or not picture.numel():
            raise ValueError(
                f"tensor {tuple(picture.shape)} of {picture.dtype} is not (3, H, W) of torch.uint8"
            )
        return picture
    if isinstance(picture, np.ndarray):
        if (
            picture.dtype != np.uint8
            or picture.ndim not in (2, 3)
            or picture.shape[2:] not in ((), (3,))
            or not picture.size
        ):
            raise ValueError(
                f"array {picture.shape} of {picture.dtype} is not (H, W, 3) or (H, W) of uint8"
            )
        picture = Image.fromarray(picture)

    if isinstance(picture, Image.Image):
        array = as_shown(picture)
    elif isinstance(picture, (str, PathLike)):
        array = load_image(picture)
    else:
        raise ValueError(
            f"a {type(picture).__name__} is no picture; give a path, PIL image, array or tensor"
        )
    return torch.from_numpy(array).permute(2, 0, 1)


@contextmanager
def building() -> Iterator[None]:
    """Build networks within a program of any state: they are not made of tensors of inference mode,
    which Grad-CAM could not use outside, and PyTorch's random numbers go on as if nothing had been
    drawn, on the CPU and on GPUs that are in use.
    """
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.inference_mode(False), torch.random.fork_rng(devices=gpus):
        yield


@cache
def _one_thread_after_fork() -> None:
    """Have processes that are forked from this one compute on one thread: PyTorch's others do not
    come along, and would be waited for without end.
    """
    if hasattr(os, "register_at_fork"):  # elsewhere nothing is forked
        os.register_at_fork(after_in_child=partial(torch.set_num_threads, 1))


class Predictor(Protocol):
    """What gives pictures their labels: a trained checkpoint, or CLIP with the pictures' tags."""

    @property
    def config(self) -> Config:
        """Return settings, of which machine, terminal and bad pictures matter here."""

    @property
    def sha256(self) -> str:
        """Return the digest of the weights."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the names of labels 0..K, background first."""

    def choices(self) -> dict[str, Any]:
        """Return what changes the labels beside weights, pictures and tags, as plain values."""

    def set_off(self, item: Item, image: Tensor, tags: list[str] | None) -> Callable[[], Found]:
        """Begin to predict an image (3, H, W) uint8; the result, which any thread may call while
        the next one is begun, waits for what was found.

        tags: the classes that may occur; None where they are not known. Raises UserError where the
        picture cannot be predicted.
        """
