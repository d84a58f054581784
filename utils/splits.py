"""What a configuration names of a data set: its classes, the images, masks and tags of its splits,
and training crops.
"""

import re
from collections.abc import Callable, Sequence

import numpy as np

from datasets.classes import spec_of
from datasets.data import Split, TaggedImages
from datasets.layouts import items
from datasets.lists import Item, Items
from datasets.scoring import masks_found
from datasets.specs import DatasetSpec
from datasets.tag_sources import find_tags
from datasets.transforms import STATISTICS
from utils.config import Config


def dataset_spec(config: Config) -> DatasetSpec:
    """Return the classes of the data set, those of a custom one as its class list has them. Raises
    UserError where that cannot be read.
    """
    return spec_of(config.dataset, config.data_root, config.classes)


def split_items(config: Config, split: str) -> Items:
    """Return the images of a split: a name the data set knows, or the path of a list file.

    `train[:200]` are the first 200 images of train.
    """
    listed, most = _parsed(split)
    file = None
    if _is_list(listed):
        file = listed

    found = items(config.dataset, config.data_root, own_split(config, split), file)
    if most is None:
        return found
    return found[:most]


def split_masks(config: Config, split: str, images: Sequence[Item]) -> str:
    """Say how many images of a split have masks, and of none, where they were looked for. Raises
    UserError where masks of COCO were made by a rule of an earlier version.
    """
    return masks_found(config.dataset, config.data_root, own_split(config, split), images)


def image_tags(
    config: Config, spec: DatasetSpec, images: Sequence[Item], split: str = ""
) -> np.ndarray:
    """Return the (n, K) bool tags of images of a split (default: the training's): from the tags
    file, else from the data set's own annotations.
    """
    names = Items.of(images).names
    part = own_split(config, split or config.train_split)
    return find_tags(config.dataset, config.data_root, part, names, spec, config.tags)


def validation_tags(config: Config, spec: DatasetSpec, images: Sequence[Item]) -> np.ndarray:
    """Return the (n, K) bool tags of validation images, from the data set's own annotations.

    Raises UserError where there are none.
    """
    names = Items.of(images).names
    part = own_split(config, config.val_split)
    return find_tags(config.dataset, config.data_root, part, names, spec)


def own_split(config: Config, split: str) -> str:
    """Return the data set's own split in which a split lies: itself, or for a list file the one it
    is used for.
    """
    listed, _ = _parsed(split)
    if not _is_list(listed):
        return listed
    if split in (config.train_split, config.seeds_split):
        return "train"
    return "val"


def training_data(
    split: Split,
    config: Config,
    crop_size: int,
    crops: Callable[..., TaggedImages] = TaggedImages,
) -> TaggedImages:
    """Return augmented crops of tagged images."""
    mean, _ = STATISTICS[config.statistics]
    fill = mean
    if config.fill == "black":
        fill = (0.0, 0.0, 0.0)

    return crops(
        split.items,
        split.tags,
        crop_size,
        (config.scale_min, config.scale_max),
        config.seed,
        fill,
        config.train_long,
        config.on_bad_image == "skip",
    )


def _parsed(split: str) -> tuple[str, int | None]:
    """Return a split without its end `[:N]`, and N; None where it has no such end."""
    match = re.fullmatch(r"(.+)\[:([1-9]\d*)\]", split)
    if match is None:
        return split, None
    return match[1], int(match[2])


def _is_list(split: str) -> bool:
    """Return whether a split is named by the path of a list file."""
    return "/" in split or split.endswith(".txt")
