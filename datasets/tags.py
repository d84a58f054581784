"""Image-level tags, the only supervision: read, written, and gathered from annotations.

A tags file is JSON: {"format": 1, "dataset": name, "classes": [...], "source": "...", "tags":
{image: [class, ...]}}.
"""

import difflib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import ParseError, parse

from datasets.coco_json import coco_annotations, coco_classes
from datasets.layouts import Item
from datasets.pictures import load_mask
from datasets.specs import IGNORE, DatasetSpec
from utils.common.errors import UserError
from utils.common.files import read_json, write_whole

FORMAT = 1
COCO_SOURCE = "COCO instance annotations"
TAGS = "tags.json"  # of a custom data set, in its folder


@dataclass(frozen=True)
class Tags:
    """Classes of n images: names, matrix (n, K) bool, and where they come from.

    `sha256` is that of the one file they were made from, where there is one and it may change.
    """

    names: tuple[str, ...]
    matrix: np.ndarray
    source: str
    sha256: str = ""


def read_tags(path: str | Path, spec: DatasetSpec, names: Sequence[str]) -> np.ndarray:
    """(n, K) bool tags of the named images, in their order. An image may have none.

    Raises:
        UserError: no such file, not JSON, another format, other classes than the spec's, an unknown
            class, or a named
            image that the file lacks.
    """
    tags = _content(path, spec)["tags"]
    missing = [name for name in names if name not in tags]
    if missing:
        raise UserError(
            f"{path} has no tags for {len(missing)} of {len(names)} images, first {missing[0]};"
            " make it for this list or write an empty list [] for images without a class"
        )
    return tags_of(str(path), tags, names, spec, "").matrix


def read_all_tags(path: str | Path, spec: DatasetSpec) -> Tags:
    """Everything in a tags file. Raises UserError as `read_tags` does."""
    content = _content(path, spec)
    return tags_of(
        str(path), content["tags"], list(content["tags"]), spec, str(content.get("source", ""))
    )


def tags_of(
    place: str,
    classes: Mapping[str, Sequence[str]],
    names: Sequence[str],
    spec: DatasetSpec,
    source: str,
) -> Tags:
    """`Tags` of the named images from their class names. Raises UserError, naming `place`, on an
    unknown class.
    """
    rows = ((f"{place}, image {name}", classes[name]) for name in names)
    return Tags(tuple(names), _matrix(spec, rows, len(names)), source)


def write_tags(path: str | Path, spec: DatasetSpec, tags: Tags) -> bool:
    """Writes a tags file, one image a line in the order of names, whole or not at all; False if it
    is there already.

    Raises:
        ValueError: tags.matrix is not (n, K).
    """
    if tags.matrix.shape != (len(tags.names), len(spec.classes)):
        raise ValueError(
            f"tags {tags.matrix.shape} for {len(tags.names)} images of {len(spec.classes)} classes"
        )
    head = {"format": FORMAT, "dataset": spec.name, "classes": spec.classes, "source": tags.source}
    if tags.sha256:
        head["sha256"] = tags.sha256
    rows = sorted(
        (name, [spec.classes[k] for k in row.nonzero()[0]])
        for name, row in zip(tags.names, tags.matrix)
    )
    lines = [f" {json.dumps(key)}: {json.dumps(value)}," for key, value in head.items()]
    body = ",\n".join(f"  {json.dumps(name)}: {json.dumps(classes)}" for name, classes in rows)
    text = "\n".join(["{", *lines, ' "tags": {', body, " }", "}", ""]).encode()
    path = Path(path)
    if path.is_file() and path.read_bytes() == text:
        return False
    write_whole(path, text)
    return True


def find_tags(
    dataset: str,
    root: str | Path,
    split: str,
    names: Sequence[str],
    spec: DatasetSpec,
    file: str | Path = "",
) -> np.ndarray:
    """(n, K) bool tags of the named images of a split: from a tags file if given, else as the data
    set itself has them.

    Raises:
        UserError: as the reader in question does.
    """
    if file or dataset == "custom":
        return read_tags(file or Path(root) / TAGS, spec, names)
    if dataset == "coco":
        return tags_from_coco_json(root, split, names, spec).matrix
    return tags_from_voc_xml(root, names, spec).matrix


def tags_from_voc_xml(
    root: str | Path, names: Sequence[str], spec: DatasetSpec, difficult: bool = True
) -> Tags:
    """Tags from the objects of Annotations/{name}.xml, those marked difficult included unless told
    otherwise.

    Raises:
        UserError: a file is missing or malformed, or names an unknown class.
    """
    folder = Path(root) / "Annotations"
    rows = (
        (str(folder / f"{name}.xml"), _xml_classes(folder / f"{name}.xml", difficult))
        for name in names
    )
    source = "VOC bounding-box annotations" + ("" if difficult else " without difficult objects")
    return Tags(tuple(names), _matrix(spec, rows, len(names)), source)


def tags_from_coco_json(
    root: str | Path, split: str, names: Sequence[str], spec: DatasetSpec
) -> Tags:
    """Tags from annotations/instances_{split}2014.json (or 2017) or the tags file made from it,
    crowds included.

    Raises:
        UserError: the file is missing, malformed or stale, lacks a named image, or has categories
            that the spec lacks.
    """
    path, found = coco_annotations(root, split), coco_classes(root, split)
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
    """Tags from the labels that occur in the masks. The source says so, as masks are more than
    image-level labels.

    `each(function, items)` may do the reading in parallel.

    Raises:
        UserError: an item has no mask, or a mask holds a label that the spec lacks.
    """
    matrix = np.zeros((len(items), len(spec.classes)), bool)
    for row, item, labels in zip(matrix, items, each(mask_labels, items)):
        if labels and labels[-1] > len(spec.classes):
            raise UserError(
                f"mask {item.mask} holds label {labels[-1]}, but {spec.name} has classes "
                f"1..{len(spec.classes)};"
                " convert the mask's labels"
            )
        row[np.array(labels, int) - 1] = True
    return Tags(tuple(item.name for item in items), matrix, "segmentation masks")


def mask_labels(item: Item) -> list[int]:
    """Sorted labels of an item's mask but background and ignored. Raises UserError if it has none
    or it is broken.
    """
    if item.mask is None:
        raise UserError(
            f"image {item.name} has no mask; add it or make tags from other annotations"
        )
    return labels_in(load_mask(item.mask))


def labels_in(labels: np.ndarray) -> list[int]:
    """Sorted labels that occur in (H, W) uint8, but background and ignored."""
    counts = np.bincount(labels.ravel(), minlength=IGNORE + 1)
    return [label for label in counts.nonzero()[0].tolist() if label not in (0, IGNORE)]


def differences(first: Tags, second: Tags, spec: DatasetSpec) -> list[str]:
    """A line an image whose classes differ in two `Tags` of the same images in the same order."""
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


def _matrix(spec: DatasetSpec, rows: Iterable[tuple[str, Sequence[str]]], n: int) -> np.ndarray:
    """(n, K) bool from (place named in errors, class names) an image."""
    column = {name: k for k, name in enumerate(spec.classes)}
    matrix = np.zeros((n, len(spec.classes)), bool)
    for row, (place, classes) in zip(matrix, rows):
        if not isinstance(classes, list):
            raise UserError(
                f"{place} has {classes!r} where a list of class names belongs; write the list"
            )
        for name in classes:
            if not isinstance(name, str) or name not in column:
                near = difflib.get_close_matches(str(name), spec.classes, n=1, cutoff=0)
                hint = f"did you mean {near[0]!r}?" if near else "the dataset has no classes"
                raise UserError(f"{place} has class {name!r}, which {spec.name} has not; {hint}")
            row[column[name]] = True
    return matrix


def _content(path: str | Path, spec: DatasetSpec) -> dict:
    """The object in a tags file, its format and classes checked."""
    content = read_json(path)
    if content.get("format") != FORMAT or not isinstance(content.get("tags"), dict):
        raise UserError(
            f"{path} is not a tags file of format {FORMAT}; make it with `python -m "
            "datasets.prepare`"
        )
    _check_classes(path, content, spec)
    return content


def _check_classes(path: str | Path, content: dict, spec: DatasetSpec) -> None:
    classes = content.get("classes")
    if classes == list(spec.classes):
        return
    theirs = f"{len(classes)} classes" if isinstance(classes, list) else "no class list"
    if isinstance(classes, list) and len(classes) == len(spec.classes):
        k = next(k for k, (a, b) in enumerate(zip(classes, spec.classes)) if a != b)
        theirs = f"{classes[k]!r} instead of {spec.classes[k]!r} as class {k}"
    raise UserError(
        f"{path} is for dataset {content.get('dataset')!r} with {theirs}, not for {spec.name!r} "
        "with its"
        f" {len(spec.classes)} classes; make it for this dataset"
    )


def _xml_classes(path: Path, difficult: bool) -> list[str]:
    """Class names of the objects in one VOC annotation file."""
    try:
        annotation = parse(path).getroot()
    except FileNotFoundError as error:
        raise UserError(
            f"{path} does not exist; complete the Annotations folder or shorten the list"
        ) from error
    except ParseError as error:
        raise UserError(f"{path} is not valid XML ({error}); copy it again") from error
    except (
        OSError,
        ValueError,
        LookupError,
        DefusedXmlException,
    ) as error:  # among others an unknown encoding
        raise UserError(f"{path} cannot be read safely as XML ({error}); copy it again") from error
    if annotation.tag != "annotation":
        raise UserError(
            f"{path} holds <{annotation.tag}> where VOC has <annotation>; copy it again"
        )
    objects = annotation.findall("object")
    kept = [o for o in objects if difficult or o.findtext("difficult", "0").strip() != "1"]
    return [o.findtext("name", "").strip() for o in kept]
