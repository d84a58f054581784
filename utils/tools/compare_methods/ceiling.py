"""The ceiling: the same network trained on true masks, which shows how much labels could bring."""

from typing import Any, cast

import torch
from torch import Tensor

from clip.resize import by_products
from datasets.data import Batch, TaggedImages
from datasets.lists import Items
from datasets.pictures import load_mask
from datasets.specs import IGNORE
from model.cvf import CVF
from model.losses import seg_loss
from utils.common import distributed
from utils.config import Config


class MaskedBatch(Batch):
    """A batch of `MaskedCrops`."""

    labels: Tensor  # (B, c, c) uint8, 255 on padding


class MaskedCrops(TaggedImages):
    """The crops of `TaggedImages` with the masks cropped alike."""

    def __init__(self, items: Items, *arguments: Any):
        super().__init__(items, *arguments)
        self.masks = items.masks

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor | int | str]:
        """Return a view as `TaggedImages` does, and "labels" (c, c) uint8, 255 on padding."""
        sample = super().__getitem__(key)
        index = int(sample["index"])  # of the image shown, which need not be the one asked for
        mask = load_mask(self.masks[index])
        labels = self.view((key[0], index), *mask.shape).of_labels(mask, IGNORE)
        return {**sample, "labels": torch.from_numpy(labels)}


def mask_losses(
    model: CVF, images: Tensor, batch: Batch, step: int, config: Config
) -> dict[str, Tensor]:
    """Compute the loss of segmentation on true masks: what the network could reach if pseudo labels
    were perfect.
    """
    labels = cast(MaskedBatch, batch)["labels"].long()
    return {
        "seg": seg_loss(
            by_products(model.segment(images), labels.shape[-2:]), labels, distributed.total
        )
    }
