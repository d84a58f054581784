"""What prediction of a list asks of whatever gives pictures their labels."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from datasets.layouts import Item
from utils.config import Config


@dataclass(frozen=True)
class Found:
    """What was found in a picture: labels (H, W) uint8 by result, the last being final, perhaps
    logits (K+1, h, w), and what more the journal shall know of it.

    Without labels the picture is left out, and the fact "error" says why.
    """

    labels: dict[str, np.ndarray]
    logits: np.ndarray | None = None
    facts: dict[str, Any] = field(default_factory=dict)


class Predictor(Protocol):
    """What gives pictures their labels: a trained checkpoint, or CLIP with the pictures' tags."""

    @property
    def config(self) -> Config:
        """Return settings, of which machine, terminal and bad pictures matter here."""

    @property
    def sha256(self) -> str:
        """Digest of the weights."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the names of labels 0..K, background first."""

    def choices(self) -> dict[str, Any]:
        """Return what changes the labels beside weights, pictures and tags, as plain values."""

    def set_off(self, item: Item, image: Tensor, tags: list[str] | None) -> Callable[[], Found]:
        """Begin to predict an image (3, H, W) uint8; the result waits for what was found.

        tags: the classes that may occur; None where they are not known. Raises UserError where the
        picture cannot be predicted.
        """
