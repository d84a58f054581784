"""COCO instance annotations: where they lie, what they say of each image, and the small file that
stands for them.

The instance JSON of a split is hundreds of MB. Once `datasets.prepare coco` has written the split's
tags file, images and tags are read from that; it holds the SHA-256 of the JSON it was made from, so
that it never stands for another.
"""

import itertools
import math
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from utils.common.errors import UserError
from utils.common.files import is_set, read_json, require_file, sha256_of

_YEARS = ("2014", "2017")
_AGAIN = "remove it and run `python -m datasets.prepare coco` again"


class Shape(NamedTuple):
    """One annotation: its number, category, whether it is a crowd, its outline as in the JSON
    (None: not kept) and the area given there, px (None: not given).

    Polygons are float64 arrays x0, y0, x1, y1, ... in px; a dict is run-length coded.
    """

    number: int
    category: str
    crowd: bool
    outline: list[np.ndarray] | dict | None
    area: float | None = None


@dataclass
class AnnotatedImage:
    """An image of an instance JSON: its name (file name without suffix), size in px (None: not
    given), shapes, file name, and the name that it had before a tool changed it ("": not told).
    """

    name: str
    height: int | None
    width: int | None
    shapes: list[Shape] = field(default_factory=list)
    file: str = ""
    before: str = ""


def coco_image_folders(root: Path, split: str, year: str) -> list[Path]:
    """Return the folders that may hold the images of a split: the usual ones, those of YOLO's
    repositories, and WeCLIP's.
    """
    folder = f"{split}{year}"
    below = (f"coco{year}/{folder}", folder, f"images/{folder}", f"JPEGImages/{folder}")
    return [root / place for place in (*below, f"JPEGImages/{split}")]


def coco_year(root: str | Path, split: str) -> str:
    """Find the first year, of 2014 and 2017, whose annotations and images of the split lie under
    `root`, or at least one of the two; 2014 if none.
    """
    root = Path(root)

    def there(year: str) -> int:
        """Count the two kinds that are there; JPEGImages/val tells no year."""
        images = coco_image_folders(root, split, year)[:-1]
        annotations = root / "annotations" / f"instances_{split}{year}.json"
        return annotations.is_file() + any(folder.is_dir() for folder in images)

    return max(_YEARS, key=there)


def coco_annotations(root: str | Path, split: str) -> Path:
    """Return the path of the split's instance JSON (it may not exist)."""
    return Path(root) / "annotations" / f"instances_{split}{coco_year(root, split)}.json"


def coco_tags(root: str | Path, split: str) -> Path:
    """Return the path of the tags file that `datasets.prepare coco` writes for the split (it may
    not exist).
    """
    return Path(root) / "annotations" / f"tags_{split}{coco_year(root, split)}.json"


def coco_classes(root: str | Path, split: str) -> dict[str, list[str]]:
    """Return the names of all images of a split, in order, each with the sorted categories of its
    objects, crowds included.

    Read from the prepared tags file where there is one, else from the instance JSON; once in a
    process as long as neither changes.

    Raises:
        UserError: both are missing, one is malformed, or the tags file was made from another JSON
            than the one there.
    """
    files = (coco_annotations(root, split), coco_tags(root, split))
    return _classes(*files, *map(_stamp, files))


def read_instances(path: str | Path, outlines: bool, of_coco: bool = False) -> list[AnnotatedImage]:
    """Read all images of an instance JSON in name order, with their annotations. Outlines, nearly
    all of its bytes, are kept on request only, as arrays, which need a fifth of the memory of
    Python's lists.

    Raises:
        UserError: the file is missing or malformed, or names an image twice; or it shall be
            `of_coco`, as MS COCO has it, and is of people's keypoints.
    """
    shortened = partial(_compact, path) if outlines else without_outline
    content = read_json(path, shortened)
    try:
        if of_coco and any("keypoints" in entry for entry in content["categories"]):
            raise UserError(
                f"{path} holds keypoints of people, and no object of COCO's other categories; put "
                "the instance annotations there"
            )
        images = {
            _key(entry["id"]): AnnotatedImage(
                _name(entry),
                _side(entry, "height"),
                _side(entry, "width"),
                [],
                _file(entry),
                _before(entry),
            )
            for entry in content["images"]
        }
        category = {_key(entry["id"]): str(entry["name"]) for entry in content["categories"]}
        for entry in content["annotations"]:
            number = entry.get("id")
            _check_listed(path, number, "image", entry["image_id"], images)
            _check_listed(path, number, "category", entry["category_id"], category)
            shape = Shape(
                number,
                category[_key(entry["category_id"])],
                is_set(entry.get("iscrowd")),
                entry.get("segmentation"),
                _number(entry.get("area")),
            )
            images[_key(entry["image_id"])].shapes.append(shape)
        found = sorted(images.values(), key=lambda image: (image.name, image.file))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(
            f"{path} is no instance JSON: entry or key {error} is missing or malformed; make or "
            "copy it again, of panoptic annotations or captions export instances"
        ) from error

    if not found:
        raise UserError(f"{path} lists no image; make or copy it again, with images")

    twice = next((a.file for a, b in itertools.pairwise(found) if a.file == b.file), None)
    if twice is not None or len(images) < len(content["images"]):
        raise UserError(f"{path} lists an image {twice or 'id'} twice; remove the second entry")

    return found


def classes_of(path: Path, images: Sequence[AnnotatedImage]) -> dict[str, list[str]]:
    """Return the sorted categories of each image's objects, crowds included, by name. Raises
    UserError naming the file where two images share a name.
    """
    shared = next((a.name for a, b in itertools.pairwise(images) if a.name == b.name), None)
    if shared is not None:
        raise UserError(
            f"{path} lists two images called {shared}, which differ by suffix alone, as masks of "
            "COCO do not; rename one, or use `python -m datasets.prepare custom`"
        )
    return {image.name: sorted({shape.category for shape in image.shapes}) for image in images}


@lru_cache(maxsize=4)
def _classes(annotations: Path, tags: Path, *_: tuple[int, int] | None) -> dict[str, list[str]]:
    """Return `coco_classes` of two files; their stamps are there for the cache alone."""
    if tags.is_file():
        content = read_json(tags)
        if annotations.is_file() and content.get("sha256") != sha256_of(annotations):
            raise UserError(f"{tags} was made from another {annotations.name}; {_AGAIN}")
        classes = content.get("tags")
        if not isinstance(classes, dict) or not classes:
            raise UserError(f"{tags} is no tags file of images; {_AGAIN}")
        return dict(sorted(classes.items()))
    require_file(
        annotations, "the file", "put COCO's instance annotations there, or name the data's folder"
    )
    return classes_of(annotations, read_instances(annotations, outlines=False, of_coco=True))


def _stamp(path: Path) -> tuple[int, int] | None:
    """Return what changes when a file does, size and time of change; None for no file."""
    if not path.is_file():
        return None
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _number(value: Any) -> float | None:
    """Return a number of a JSON file; None for anything that cannot order areas."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    if not math.isfinite(number):
        return None
    return number


def _check_listed(
    path: str | Path, annotation: Any, kind: str, number: Any, listed: Container[int | str]
) -> None:
    """Raise UserError where an annotation is of an image or category that the file does not list,
    as after images were taken out of it by hand.
    """
    if _key(number) in listed:
        return
    place = "an annotation"
    if annotation is not None:
        place = f"annotation {annotation}"
    raise UserError(
        f"{path}, {place} is of the {kind} {number!r:.20}, which is not listed there; remove the "
        f"annotation, or list the {kind}"
    )


def _key(value: Any) -> int | str:
    """Return the number of an image or category, whether it is written as number or as text."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip()
    if text.isdecimal() and text.isascii() and len(text) < 19:
        return int(text)
    return text


def _side(entry: dict[str, Any], name: str) -> int | None:
    value = entry.get(name)
    if value is None:
        return None
    return int(float(value))


def _file(entry: dict[str, Any]) -> str:
    """Return the file name with / between folders, whatever system wrote it."""
    return entry["file_name"].replace("\\", "/")


def _before(entry: dict[str, Any]) -> str:
    """Return the name of the picture that Roboflow was given."""
    extra = entry.get("extra")
    if not isinstance(extra, dict):
        return ""
    name = extra.get("name")
    if not isinstance(name, str):
        return ""
    return name


def _name(entry: dict[str, Any]) -> str:
    return str(PurePosixPath(_file(entry)).with_suffix(""))


def without_outline(entry: dict) -> dict:
    """Drop the outline of an annotation, the bulk of its file, as it is read."""
    entry.pop("segmentation", None)
    return entry


def _compact(path: str | Path, entry: dict) -> dict:
    outline = entry.get("segmentation")
    if isinstance(outline, list):
        if outline and isinstance(outline[0], int | float):  # one polygon, as some tools write it
            outline = [outline]
        try:
            entry["segmentation"] = [
                np.array(polygon, np.float64).reshape(-1, 2).ravel() for polygon in outline
            ]
        except (TypeError, ValueError, OverflowError) as error:
            raise UserError(
                f"{path}, annotation {entry.get('id')}: a polygon is no list x0, y0, x1, y1, ... "
                f"({error}); correct it"
            ) from error
    return entry
