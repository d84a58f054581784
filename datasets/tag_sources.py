"""Where the tags of images come from: a file of any form, or what a data set has, its tags files,
annotations or masks.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from datasets.annotations import tags_of_file
from datasets.coco_json import coco_annotations, coco_classes
from datasets.lists import Item, own_name
from datasets.pictures import load_mask
from datasets.specs import IGNORE, DatasetSpec
from datasets.tags import (
    Tags,
    is_tags_file,
    read_tags,
    tag_matrix,
    tags_content,
    tags_of,
    tags_of_all,
)
from datasets.voc_xml import read_xml
from utils.common.errors import UserError

COCO_SOURCE = "COCO instance annotations"
VOC_SOURCE = "VOC bounding-box annotations"
VOC_TAGS = {split: f"tags_{split}.json" for split in ("train_aug", "val")}  # as they are prepared
TAGS = "tags.json"  # of a custom data set, in its folder


def tags_of_images(
    path: str | Path, spec: DatasetSpec, images: Sequence[Item]
) -> dict[str, list[str]]:
    """Return the classes of those images that a file of tags knows, by name: a tags file, or any
    form that `tags_of_file` reads.

    Raises:
        UserError: the file cannot be used, or names none of the images.
    """
    if is_tags_file(path):
        tagged = tags_content(path, spec)["tags"]
        known = [item.name for item in images if item.name in tagged]
        found = tags_of(str(path), tagged, known, spec, "")
        rows = ([spec.classes[k] for k in row.nonzero()[0]] for row in found.matrix)
        return _some(path, dict(zip(known, rows)), images)

    files: dict[PurePosixPath, str] = {}
    for item in images:
        file = PurePosixPath(own_name(item))
        if file in files:  # of another folder
            file = PurePosixPath(item.name + item.image.suffix)
        files.setdefault(file, item.name)

    roots = {item.image.parents[item.name.count("/")] for item in images}
    tags = tags_of_file(Path(path), list(files), spec, roots, partial=True)
    named = {files[file]: [name for name in spec.classes if name in tags[file]] for file in tags}
    return _some(path, named, images)


def _some(
    path: str | Path, known: dict[str, list[str]], images: Sequence[Item]
) -> dict[str, list[str]]:
    if not known:
        raise UserError(
            f"--tags {path} names none of the {len(images)} images; the first is called "
            f"{images[0].name!r}"
        )
    return known


def find_tags(
    dataset: str,
    root: str | Path,
    split: str,
    names: Sequence[str],
    spec: DatasetSpec,
    file: str | Path = "",
) -> np.ndarray:
    """Find the (n, K) bool tags of the named images of a split: from a tags file if given, else as
    the data set itself has them.

    Raises:
        UserError: as the reader in question does.
    """
    if file and not is_tags_file(file):
        tags = tags_of_file(Path(file), [PurePosixPath(name) for name in names], spec, partial=True)
        listed = {str(name): sorted(classes) for name, classes in tags.items()}
        return tags_of_all(file, listed, names, spec)
    if file or dataset == "custom":
        return read_tags(file or Path(root) / TAGS, spec, names)
    if dataset == "coco":
        return tags_from_coco_json(root, split, names, spec).matrix

    prepared = _prepared(Path(root), names, spec)
    if prepared is not None:
        return prepared
    return tags_from_voc_xml(root, names, spec).matrix


def _prepared(root: Path, names: Sequence[str], spec: DatasetSpec) -> np.ndarray | None:
    """Return (n, K) bool tags of images of VOC from the tags file that `datasets.prepare voc` made
    from their XML files; None where no file has them all or an XML file was changed since.
    """
    for path in (root / file for file in VOC_TAGS.values()):
        if not path.is_file():
            continue
        content = tags_content(path, spec)
        tags = content["tags"]
        whole = content.get("source") == VOC_SOURCE and all(name in tags for name in names)
        if whole and _newest_xml(root, set(names)) <= path.stat().st_mtime_ns:
            return tags_of_all(path, tags, names, spec)
    return None


def _newest_xml(root: Path, names: set[str]) -> int:
    """Tell when the annotations of these images were last changed, ns; 0 where there are none."""
    folder = root / "Annotations"
    if not folder.is_dir():
        return 0
    with os.scandir(folder) as files:
        named = (file for file in files if file.name.removesuffix(".xml") in names)
        return max((file.stat().st_mtime_ns for file in named), default=0)


def tags_from_voc_xml(
    root: str | Path, names: Sequence[str], spec: DatasetSpec, difficult: bool = True
) -> Tags:
    """Return the tags from the objects of Annotations/{name}.xml, those marked difficult included
    unless told otherwise.

    Raises:
        UserError: a file is missing or malformed, or names an unknown class.
    """
    folder = Path(root) / "Annotations"
    rows = (
        (str(folder / f"{name}.xml"), read_xml(folder / f"{name}.xml").classes(difficult))
        for name in names
    )

    source = VOC_SOURCE
    if not difficult:
        source += " without difficult objects"

    return Tags(tuple(names), tag_matrix(spec, rows, len(names)), source)


def tags_from_coco_json(
    root: str | Path, split: str, names: Sequence[str], spec: DatasetSpec
) -> Tags:
    """Return the tags from annotations/instances_{split}2014.json (or 2017) or the tags file made
    from it, crowds included.

    Raises:
        UserError: the file is missing, malformed or stale, lacks a named image, or has categories
            that the spec lacks.
    """
    path = coco_annotations(root, split)
    found = coco_classes(root, split)
    missing = [name for name in names if name not in found]
    if missing:
        raise UserError(
            f"{path} lacks {len(missing)} of {len(names)} images, first {missing[0]}; use its "
            "split's list"
        )

    return tags_of(str(path), found, names, spec, COCO_SOURCE)


def tags_from_masks(
    items: Sequence[Item], spec: DatasetSpec, each: Callable[..., Iterable] = map
) -> Tags:
    """Return the tags from the labels that occur in the masks. The source says so, as masks are
    more than image-level labels.

    `each(function, items)` may do the reading in parallel.

    Raises:
        UserError: an item has no mask, or a mask holds a label that the spec lacks.
    """
    matrix = np.zeros((len(items), len(spec.classes)), bool)
    for row, item, labels in zip(matrix, items, each(mask_labels, items)):
        if labels and labels[-1] > len(spec.classes):
            raise UserError(
                f"mask {item.mask} holds label {labels[-1]}, but {spec.name} has classes "
                f"1..{len(spec.classes)}; convert the mask's labels"
            )
        row[np.array(labels, int) - 1] = True

    return Tags(tuple(item.name for item in items), matrix, "segmentation masks")


def mask_labels(item: Item) -> list[int]:
    """Return the sorted labels of an item's mask but background and ignored. Raises UserError if it
    has none or it is broken.
    """
    if item.mask is None:
        raise UserError(
            f"image {item.name} has no mask; add it or make tags from other annotations"
        )
    return labels_in(load_mask(item.mask))


def labels_in(labels: np.ndarray) -> list[int]:
    """Return the sorted labels that occur in (H, W) uint8, but background and ignored."""
    counts = np.bincount(labels.ravel(), minlength=IGNORE + 1)
    return [label for label in counts.nonzero()[0].tolist() if label not in (0, IGNORE)]


def differences(first: Tags, second: Tags, spec: DatasetSpec) -> list[str]:
    """Return a line per image whose classes differ in two `Tags` of the same images in the same
    order.
    """
    lines = []
    for name, a, b in zip(first.names, first.matrix, second.matrix):
        alone = [", ".join(spec.classes[k] for k in rows.nonzero()[0]) for rows in (a & ~b, b & ~a)]
        said = [
            f"{classes} only in {tags.source}"
            for classes, tags in zip(alone, (first, second))
            if classes
        ]
        if said:
            lines.append(f"{name}: {'; '.join(said)}")

    return lines
