"""`python -m datasets.prepare coco`: MS COCO's instance annotations become masks and tags.

A mask holds 0 and the place of the category among the 80 plus 1. Of objects that overlap, the one
of smaller area is seen, of equal areas the first in the file; areas are those of the annotations,
and pixels are counted where one has none. Crowds count as their class, as in the masks that the
field scores with (coco2voc), or with `--crowds ignore` are 255 behind all objects.
"""

import json
import os
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from datasets.coco_json import (
    AnnotatedImage,
    Shape,
    classes_of,
    coco_annotations,
    coco_image_folders,
    coco_tags,
    coco_year,
    read_instances,
)
from datasets.coco_masks import MARKER, RULES, mask_folders, remade
from datasets.layouts import items
from datasets.pictures import mask_png
from datasets.polygons import polygon_pixels, run_pixels
from datasets.prepare.parallel import Each, add_workers, crew
from datasets.specs import COCO, IGNORE
from datasets.tag_sources import COCO_SOURCE, labels_in
from datasets.tags import tags_of, write_tags
from utils.common.claim import claimed_to_write
from utils.common.errors import UserError
from utils.common.files import read_json, sha256_of, write_whole

_MOST_PIXELS = 1 << 27


class Source(NamedTuple):
    """The instance JSON of a split and the SHA-256 of its bytes."""

    path: Path
    sha256: str


def add_command(kinds: Any) -> None:
    """Add the sub-command `coco` to an argparse sub-parsers object."""
    parser = kinds.add_parser(
        "coco", help="MS COCO: masks and tags from instances_*.json", description=__doc__
    )
    add = parser.add_argument

    add(
        "--root",
        default="MSCOCO",
        help="folder that holds coco2014/ (or coco2017/) and annotations/ (%(default)s)",
    )
    add("--splits", nargs="+", default=["train", "val"], metavar="SPLIT", help="default: train val")
    add(
        "--crowds",
        choices=tuple(RULES),
        default="class",
        help="crowds are their class, as in the field's masks, or 255 (default: %(default)s)",
    )
    add(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder to write to where --root takes nothing; it gets links to annotations and "
        "images, and is the root of training and testing (default: --root)",
    )
    add_workers(add)

    parser.set_defaults(run=run)


def run(args: Namespace) -> None:
    """Write annotations/tags_*.json and mask/*, split by split; what is there already is not made
    again.

    Raises UserError where annotations or images are missing or malformed, or masks were made from
    other annotations or by another rule.
    """
    root = Path(args.root)
    sources = {split: coco_annotations(root, split) for split in args.splits}
    for path in sources.values():
        if not path.is_file():
            raise UserError(
                f"{path} does not exist; put the instance annotations there, or name the --splits "
                "you have"
            )
    if args.out:
        root = linked(root, args.splits, args.out)
        sources = {split: coco_annotations(root, split) for split in args.splits}

    # before annotations are read, so that no process holds a copy of them
    with crew(args.workers) as each, claimed_to_write(root):
        for split, path in sources.items():
            print(
                f"{split}{coco_year(root, split)}: "
                f"{convert(root, split, Source(path, sha256_of(path)), each, args.crowds)}"
            )


def linked(root: Path, splits: Sequence[str], out: Path) -> Path:
    """Make links in `out` to the annotations and images of the splits; returns it. What bears such
    a name there already is kept. Raises UserError where that cannot be done.
    """
    for split in splits:
        images = coco_image_folders(root, split, coco_year(root, split))
        for place in (coco_annotations(root, split), *images):
            link = out / place.relative_to(root)
            if not place.exists() or os.path.lexists(link):
                continue

            try:
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(place.absolute())
            except (OSError, NotImplementedError) as error:
                raise UserError(
                    f"--out {out} takes no links to {root} ({error}); name another folder"
                ) from error
    return out


def convert(root: Path, split: str, source: Source, each: Each, crowds: str = "class") -> str:
    """Write tags and masks of one split; return what was done, in words. Raises UserError as `run`
    does.

    crowds: a key of `RULES`.
    """
    # large: read once, if something is to do
    annotated = cache(partial(read_instances, source.path, outlines=True, of_coco=True))
    done = []
    if not _is_from(coco_tags(root, split), source):
        done.append(_write_tags(coco_tags(root, split), source, annotated()))

    found = items("coco", root, split)
    folder = mask_folders(root, split, coco_year(root, split))[0]
    missing = {item.name for item in found if item.mask is None}
    elsewhere = next((item.mask.parent for item in found if item.mask), folder) != folder

    if elsewhere or not _claim(folder, source, crowds):
        done.append(_kept(folder, [item.mask for item in found if item.mask]))
    elif missing:
        images = [image for image in annotated() if image.name in missing]
        done.append(_write_masks(folder, source, images, each, crowds))
    return "; ".join(done) or (
        f"tags and masks of all {len(found)} images with objects are there "
        f"({RULES[crowds]}), nothing to do"
    )


def _is_side(length: object) -> TypeGuard[int]:
    """Tell whether an annotation's height or width is a whole number above 0, and no `true`."""
    return type(length) is int and length > 0


def paint(image: AnnotatedImage, crowds: str = "class") -> np.ndarray:
    """Paint the (H, W) uint8 labels of an image, as the module says; `crowds` is a key of `RULES`.
    Raises UserError naming an annotation that is malformed.
    """
    height, width = image.height, image.width
    if not (_is_side(height) and _is_side(width) and height * width <= _MOST_PIXELS):
        raise UserError(
            f"image {image.name} is {image.width} x {image.height} px there; correct its width "
            "and height"
        )
    foreign = next((shape for shape in image.shapes if shape.category not in COCO.classes), None)
    if foreign:
        raise UserError(
            f"annotation {foreign.number} is of {foreign.category!r}, no category of COCO; "
            "correct it"
        )

    labels = np.zeros((height, width), np.uint8)
    ignored = crowds == "ignore"
    drawn = [(shape, _pixels(shape, height, width)) for shape in image.shapes]

    def in_front(pair: tuple[Shape, np.ndarray]) -> tuple[bool, float]:
        """Rank a shape by what lies over what: the smaller over the larger."""
        shape, pixels = pair
        area = shape.area
        if area is None:
            area = pixels.sum()
        return ignored and shape.crowd, area

    for shape, pixels in reversed(sorted(drawn, key=in_front)):
        label = COCO.classes.index(shape.category) + 1
        if ignored and shape.crowd:
            label = IGNORE
        labels[pixels] = label
    return labels


def write_mask(
    folder: Path, source: Path, image: AnnotatedImage, crowds: str = "class"
) -> list[str]:
    """Write the mask of one image as a single-channel PNG; returns its tags that the mask does not
    show.

    Raises UserError naming `source`, the image and what is malformed.
    """
    try:
        labels = paint(image, crowds)
    except UserError as error:
        raise UserError(f"{source}, {error}") from error

    write_whole(folder / f"{image.name}.png", mask_png(labels))
    shown = {COCO.label_names[label] for label in labels_in(labels)}
    return sorted({shape.category for shape in image.shapes} - shown)


def _pixels(shape: Shape, height: int, width: int) -> np.ndarray:
    """Return the (H, W) bool pixels of an annotation."""
    place = f"annotation {shape.number}"
    if isinstance(shape.outline, list):
        return polygon_pixels(shape.outline, height, width, place)
    if isinstance(shape.outline, dict):
        return run_pixels(shape.outline, height, width, place)
    raise UserError(
        f"{place} has no `segmentation` of polygons or runs; make or copy the file again"
    )


def _is_from(tags: Path, source: Source) -> bool:
    """Tell whether a tags file is there, whole and made from these annotations."""
    try:
        return tags.is_file() and read_json(tags).get("sha256") == source.sha256
    except UserError:
        return False


def _write_tags(path: Path, source: Source, images: list[AnnotatedImage]) -> str:
    classes = classes_of(source.path, images)
    tags = tags_of(str(source.path), classes, list(classes), COCO, COCO_SOURCE)
    write_tags(path, COCO, replace(tags, sha256=source.sha256))
    empty = int((~tags.matrix.any(1)).sum())
    return f"tags of {len(images)} images ({empty} without objects) in {path}"


def _claim(folder: Path, source: Source, crowds: str) -> bool:
    """Tell whether masks may be written into the folder: it is empty, or holds masks made from the
    same file by this rule.

    A marker says so; it is written before the first mask, so that those of an interrupted run count
    and others do not. Raises UserError where it names another file or rule.
    """
    marker = folder / MARKER
    wanted = {"annotations": source.path.name, "sha256": source.sha256, "rule": RULES[crowds]}
    if marker.is_file():
        found = read_json(marker)
        if found.get("sha256") != source.sha256:
            raise UserError(
                f"{folder} was made from another {source.path.name}; {remade(folder, crowds)}"
            )
        if found != wanted:
            raise UserError(
                f"{folder} was made by another rule ({found.get('rule')}), not by this one "
                f"({RULES[crowds]}); {remade(folder, crowds)}"
            )
        return True

    if folder.is_dir() and any(folder.iterdir()):
        return False

    write_whole(marker, (json.dumps(wanted, indent=1) + "\n").encode())
    return True


def _kept(folder: Path, masks: list[Path]) -> str:
    """Return what is said of masks of another origin."""
    where = folder
    if masks:
        where = masks[0].parent
    return f"{where} holds masks that this command has not made, they are kept"


def _write_masks(
    folder: Path, source: Source, images: list[AnnotatedImage], each: Each, crowds: str
) -> str:
    start = perf_counter()
    write = partial(write_mask, folder, source.path, crowds=crowds)
    hidden = list(each(write, images, folder.name))
    text = (
        f"{len(images)} masks in {folder}, {RULES[crowds]} "
        f"({len(images) / (perf_counter() - start):.0f} per second)"
    )
    unlike = [
        f"{image.name} ({', '.join(classes)})" for image, classes in zip(images, hidden) if classes
    ]

    if unlike:
        text += f", {len(unlike)} of them without a tagged class, first {unlike[0]}"

    return text
