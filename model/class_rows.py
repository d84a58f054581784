"""One row a tagged class of a batch: the images of a batch have different numbers of classes,
tensors do not.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from model.precision import to_device


@dataclass(frozen=True)
class ClassRows:
    """Where the n tagged classes of a batch sit; `pack` lines them up by image, S slots each.

    tags (B, K) bool, on the CPU, where shapes that depend on them are found without waiting for a
    GPU; index (n, 2) long rows [image, class], ascending; slot (n,) long: the how-manieth tagged
    class of its image a row is; slots: S, the largest count of any image, at least 1.
    """

    tags: Tensor
    index: Tensor
    slot: Tensor
    slots: int

    @classmethod
    def from_tags(cls, tags: Tensor, device: torch.device | None = None) -> ClassRows:
        """Image-level labels (B, K), nonzero where tagged -> their rows, on the device (None: that
        of the tags).

        Images without tags have none. Tags on the CPU spare a wait for the GPU.
        """
        device = tags.device if device is None else device
        tags = (tags > 0).cpu()
        index = tags.nonzero()
        slot = (tags.cumsum(dim=1) - 1)[index[:, 0], index[:, 1]]
        return cls(
            tags,
            to_device(index, device),
            to_device(slot, device),
            max(1, int(tags.sum(dim=1).max())),
        )

    def copies(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One copy of an image for each of its classes, or one if it has none: m copies, ascending
        by image, class.

        images (m,) long; classes (m,) long, K if it has none; tagged (n,) long, the copies that
        have a class; first (B,) long, the first copy of each image. All on the device of the rows.
        """
        untagged = ~self.tags.any(dim=1, keepdim=True)
        images, classes = torch.cat([self.tags, untagged], dim=1).nonzero(as_tuple=True)
        tagged = (classes < self.tags.shape[1]).nonzero().flatten()
        first = torch.searchsorted(images, torch.arange(len(self.tags)))
        device = self.index.device
        return (
            to_device(images, device),
            to_device(classes, device),
            to_device(tagged, device),
            to_device(first, device),
        )

    @property
    def images(self) -> Tensor:
        """(n,) long: the image of each row, ascending."""
        return self.index[:, 0].contiguous()

    def pick(self, maps: Tensor) -> Tensor:
        """Values of every class (B, K, ...) -> of the tagged ones (n, ...)."""
        return maps[self.index[:, 0], self.index[:, 1]]

    def pack(self, rows: Tensor) -> Tensor:
        """Rows (n, ...) -> (B, S, ...), zeros in the slots an image does not fill."""
        packed = rows.new_zeros(len(self.tags), self.slots, *rows.shape[1:])
        packed[self.index[:, 0], self.slot] = rows
        return packed

    def unpack(self, packed: Tensor) -> Tensor:
        """The inverse of `pack`: (B, S, ...) -> (n, ...)."""
        return packed[self.index[:, 0], self.slot]

    def labels(self) -> Tensor:
        """(B, 1+S) long: the label of each slot, background's 0 in front and wherever no class
        is.
        """
        foreground = self.pack(self.index[:, 1] + 1)
        return torch.cat([foreground.new_zeros(len(foreground), 1), foreground], dim=1)

    @property
    def last(self) -> Tensor:
        """(n,) long: for each row, the row of its image's largest class."""
        return torch.searchsorted(self.images, self.images, right=True) - 1
