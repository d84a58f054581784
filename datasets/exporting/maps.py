"""Label maps and the photos they are of: found, matched by name, and checked as they are read."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from datasets.lists import Item
from datasets.pictures import load_mask, open_image
from datasets.predictions import PREDICTION, PSEUDO_LABELS
from datasets.specs import IGNORE
from utils.common.errors import UserError

_INNER = (PREDICTION, PSEUDO_LABELS)  # where run folders and exports have their label maps


def maps_folder(folder: Path) -> Path:
    """Return the folder of label maps in a run folder or an export; any other folder itself."""
    return next((folder / name for name in _INNER if (folder / name).is_dir()), folder)


def label_maps(files: Mapping[str, Path], photos: Sequence[Item]) -> list[Item]:
    """Match label PNGs, by name as `told_files` finds them, with photos; in the order of names.

    A name is a path below the folder without suffix, or with the photo's: `a.png` and `a.jpg.png`
    are label maps of `a.jpg`.

    Raises:
        UserError: one has no photo, or two are of the same.
    """
    called = {item.name: item for item in photos}
    for item in photos:
        called.setdefault(item.name + item.image.suffix, item)

    found: dict[str, Item] = {}
    for name, file in files.items():
        if name not in called:
            raise UserError(
                f"{file} has no photo of its name; name the folder of the photos with --images"
            )
        photo = called[name]
        if photo.name in found:
            raise UserError(
                f"{found[photo.name].mask} and {file} are both label maps of {photo.image}; keep "
                "one"
            )
        found[photo.name] = Item(photo.name, photo.image, file)
    return [found[name] for name in sorted(found)]


def read_labels(item: Item, num_labels: int) -> np.ndarray:
    """Read and check the label map of a photo.

    Args:
        item: has a mask.
        num_labels: K + 1.

    Returns:
        (H, W) uint8: 0..K and 255.

    Raises:
        UserError: it is no label map, has another size than the photo as shown, or a label outside
            the classes.
    """
    if item.mask is None:
        raise ValueError(f"{item.name} has no label map")

    labels = load_mask(item.mask)
    shape = open_image(item.image).shape
    if labels.shape != shape:
        raise UserError(
            f"{item.mask} is {labels.shape[1]} x {labels.shape[0]} but its photo {item.image} is "
            f"{shape[1]} x {shape[0]}; make label maps at the size at which photos are shown"
        )

    outside = labels[(labels >= num_labels) & (labels != IGNORE)]
    if outside.size:
        raise UserError(
            f"{item.mask} holds label {outside[0]}, the classes are 0..{num_labels - 1}; name all "
            "classes with --classes, in the order of their labels"
        )

    return labels
