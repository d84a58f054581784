"""One row per tagged class of a batch, as images differ in their numbers of tags."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.common.precision import to_device


@dataclass(frozen=True)
class ClassRows:
    """Where the n tagged classes of a batch sit.

    tags (B, K) bool, on the CPU, where shapes that depend on them are found without waiting for a
    GPU; index (n, 2) long rows [image, class], ascending; counts: rows of each image.
    """

    tags: Tensor
    index: Tensor
    counts: list[int]

    @classmethod
    def from_tags(cls, tags: Tensor, device: torch.device | None = None) -> ClassRows:
        """List the rows of image-level labels (B, K), nonzero where tagged, on the device (None:
        that of the tags).

        Images without tags have none. Tags on the CPU spare a wait for the GPU.
        """
        if device is None:
            device = tags.device
        tags = (tags > 0).cpu()
        return cls(tags, to_device(tags.nonzero(), device), tags.sum(dim=1).tolist())

    def allowed(self, texts: int) -> Tensor:
        """Tell which of K class texts and further background words an image is compared with, (B,
        texts) bool, on the CPU: those of its tags, and all words.
        """
        words = self.tags.new_ones(len(self.tags), texts - self.tags.shape[1])
        return torch.cat([self.tags, words], dim=1)

    @property
    def images(self) -> Tensor:
        """Return (n,) long: the image of each row, ascending."""
        return self.index[:, 0].contiguous()

    def pick(self, maps: Tensor) -> Tensor:
        """Pick from values of every class (B, K, ...) those of the tagged ones (n, ...)."""
        return maps[self.index[:, 0], self.index[:, 1]]

    def by_image(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Split rows (n, ...) into those of each image, B views, empty where it has no class."""
        return rows.split(self.counts)

    def labels(self) -> list[Tensor]:
        """List the labels (1 + its classes,) long that each image may have: 0, then class + 1."""
        return [F.pad(classes + 1, (1, 0)) for classes in self.by_image(self.index[:, 1])]

    @property
    def last(self) -> Tensor:
        """Return (n,) long: for each row, the row of its image's largest class."""
        return torch.searchsorted(self.images, self.images, right=True) - 1
