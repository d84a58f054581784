"""Stage 2 on labels that are given: true masks, which show how much labels could bring, or label
maps that another method made.
"""

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from clip.resize import by_products
from datasets.data import Batch, TaggedImages, fitting_mask
from datasets.exporting.maps import maps_folder
from datasets.lists import Items
from datasets.pictures import open_image
from datasets.predictions import told_files
from datasets.specs import IGNORE
from model.cvf import CVF
from model.losses import seg_loss
from utils.common import distributed
from utils.common.errors import UserError
from utils.config import Config

MASKS = "masks"  # the data's own, in place of a folder


def with_labels(items: Items, labels: str) -> Items:
    """Return the same images with label maps as their masks: the masks that they have, where
    `labels` is "masks", else the PNGs of their names in the folder `labels`.

    Raises UserError where an image has none.
    """
    files = list(items.masks)
    whose = "the data"
    if labels != MASKS:
        flag = f"--rows labels:{labels}"
        found = told_files(maps_folder(Path(labels)), flag)
        whose = labels
        files = [str(found.get(unicodedata.normalize("NFC", name), "")) for name in items.names]

    missing = [name for name, file in zip(items.names, files) if not file]
    if missing:
        raise UserError(
            f"{whose} lacks label maps of {len(missing)} of {len(files)} training images, first "
            f"{missing[0]}.png; complete it or name fewer images with --train_split"
        )
    return Items(zip(items.names, items.images, files))


class LabelledBatch(Batch):
    """A batch of `LabelledCrops`."""

    labels: Tensor  # (B, c, c) uint8, 255 on padding


class LabelledCrops(TaggedImages):
    """The crops of `TaggedImages` with label maps cropped alike."""

    def __init__(self, maps: Sequence[str], items: Items, *arguments: Any):
        """maps: files of the items' label maps, in their order; the rest as of `TaggedImages`."""
        super().__init__(items, *arguments)
        self.maps = maps

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor | int | str]:
        """Return a view as `TaggedImages` does, and "labels" (c, c) uint8, 255 on padding. Raises
        UserError on a map of another size than its image, or with labels that no class has.
        """
        sample = super().__getitem__(key)
        index = int(sample["index"])  # of the image shown, which need not be the one asked for
        path = self.maps[index]
        image = self.files[index]
        mask = fitting_mask(path, image, open_image(image))
        classes = len(cast(Tensor, sample["tags"]))
        known = mask[mask != IGNORE]
        if known.size and known.max() > classes:
            raise UserError(
                f"label map {path} holds label {known.max()}, the classes are 0..{classes} and "
                f"{IGNORE}; make it with the classes of this data"
            )

        labels = self.view((key[0], index), *mask.shape).of_labels(mask, IGNORE)
        return {**sample, "labels": torch.from_numpy(labels)}


def label_losses(
    model: CVF, images: Tensor, batch: Batch, step: int, config: Config
) -> dict[str, Tensor]:
    """Compute the loss of segmentation on labels that are given; of true masks: what the network
    could reach if pseudo labels were perfect.
    """
    labels = cast(LabelledBatch, batch)["labels"].long()
    return {
        "seg": seg_loss(
            by_products(model.segment(images), labels.shape[-2:]), labels, distributed.total
        )
    }
