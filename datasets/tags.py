"""Image-level tags, the only supervision: read, written, and gathered from annotations.

A tags file is JSON: {"format": 1, "dataset": name, "classes": [...], "source": "...", "tags": {image: [class, ...]}}.
"""

import difflib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import ParseError, parse

from datasets.layouts import Item, coco_annotations, coco_name, read_json
from datasets.specs import IGNORE, DatasetSpec
from datasets.transforms import load_mask
from utils.errors import UserError

FORMAT = 1


@dataclass(frozen=True)
class Tags:
    """Classes of n images: names, matrix (n, K) bool, and where they come from."""

    names: tuple[str, ...]
    matrix: np.ndarray
    source: str


def read_tags(path: str | Path, spec: DatasetSpec, names: Sequence[str]) -> np.ndarray:
    """(n, K) bool tags of the named images, in their order. An image may have none.

    Raises:
        UserError: no such file, not JSON, another format, other classes than the spec's, an unknown class, or a named
            image that the file lacks.
    """
    content = read_json(path)
    if content.get("format") != FORMAT or not isinstance(content.get("tags"), dict):
        raise UserError(f"{path} is not a tags file of format {FORMAT}; make it with `python -m datasets.prepare`")
    _check_classes(path, content, spec)
    tags = content["tags"]
    missing = [name for name in names if name not in tags]
    if missing:
        raise UserError(
            f"{path} has no tags for {len(missing)} of {len(names)} images, first {missing[0]};"
            " make it for this list or write an empty list [] for images without a class"
        )
    return _matrix(spec, ((f"{path}, image {name}", tags[name]) for name in names), len(names))


def write_tags(path: str | Path, spec: DatasetSpec, tags: Tags) -> None:
    """Writes a tags file, one image a line in the order of names, whole or not at all.

    Raises:
        ValueError: tags.matrix is not (n, K).
    """
    if tags.matrix.shape != (len(tags.names), len(spec.classes)):
        raise ValueError(f"tags {tags.matrix.shape} for {len(tags.names)} images of {len(spec.classes)} classes")
    head = {"format": FORMAT, "dataset": spec.name, "classes": spec.classes, "source": tags.source}
    rows = sorted((name, [spec.classes[k] for k in row.nonzero()[0]]) for name, row in zip(tags.names, tags.matrix))
    lines = [f" {json.dumps(key)}: {json.dumps(value)}," for key, value in head.items()]
    body = ",\n".join(f"  {json.dumps(name)}: {json.dumps(classes)}" for name, classes in rows)
    path = Path(path)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text("\n".join(["{", *lines, ' "tags": {', body, " }", "}", ""]), encoding="utf-8")
    part.replace(path)


def tags_from_voc_xml(root: str | Path, names: Sequence[str], spec: DatasetSpec, difficult: bool = True) -> Tags:
    """Tags from the objects of Annotations/{name}.xml, those marked difficult included unless told otherwise.

    Raises:
        UserError: a file is missing or malformed, or names an unknown class.
    """
    folder = Path(root) / "Annotations"
    rows = ((str(folder / f"{name}.xml"), _xml_classes(folder / f"{name}.xml", difficult)) for name in names)
    source = "VOC bounding-box annotations" + ("" if difficult else " without difficult objects")
    return Tags(tuple(names), _matrix(spec, rows, len(names)), source)


def tags_from_coco_json(root: str | Path, split: str, names: Sequence[str], spec: DatasetSpec) -> Tags:
    """Tags from annotations/instances_{split}2014.json (or 2017), crowds included, for images named by file stem.

    Raises:
        UserError: the file is missing or malformed, lacks a named image, or has categories that the spec lacks.
    """
    path = coco_annotations(root, split)
    content = read_json(path)
    try:
        category = {entry["id"]: entry["name"] for entry in content["categories"]}
        found = {entry["id"]: set() for entry in content["images"]}
        for entry in content["annotations"]:
            found[entry["image_id"]].add(category[entry["category_id"]])
        by_name = {coco_name(entry): found[entry["id"]] for entry in content["images"]}
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{path} is no instance JSON: entry or key {error} is missing; make or copy it again"
        ) from error
    missing = [name for name in names if name not in by_name]
    if missing:
        raise UserError(f"{path} lacks {len(missing)} of {len(names)} images, first {missing[0]}; use its split's list")
    rows = ((f"{path}, image {name}", sorted(by_name[name])) for name in names)
    return Tags(tuple(names), _matrix(spec, rows, len(names)), "COCO instance annotations")


def tags_from_masks(items: Sequence[Item], spec: DatasetSpec) -> Tags:
    """Tags from the labels that occur in the masks. The source says so, as masks are more than image-level labels.

    Raises:
        UserError: an item has no mask, or a mask holds a label that the spec lacks.
    """
    matrix = np.zeros((len(items), len(spec.classes)), bool)
    for row, item in zip(matrix, items):
        if item.mask is None:
            raise UserError(f"image {item.name} has no mask; add it or make tags from other annotations")
        labels = np.unique(load_mask(item.mask))
        labels = labels[(labels > 0) & (labels != IGNORE)].astype(int)
        if labels.size and labels[-1] > len(spec.classes):
            raise UserError(
                f"mask {item.mask} holds label {labels[-1]}, but {spec.name} has classes 1..{len(spec.classes)};"
                " convert the mask's labels"
            )
        row[labels - 1] = True
    return Tags(tuple(item.name for item in items), matrix, "segmentation masks")


def _matrix(spec: DatasetSpec, rows: Iterable[tuple[str, Sequence[str]]], n: int) -> np.ndarray:
    """(n, K) bool from (place named in errors, class names) an image."""
    column = {name: k for k, name in enumerate(spec.classes)}
    matrix = np.zeros((n, len(spec.classes)), bool)
    for row, (place, classes) in zip(matrix, rows):
        if not isinstance(classes, list):
            raise UserError(f"{place} has {classes!r} where a list of class names belongs; write the list")
        for name in classes:
            if not isinstance(name, str) or name not in column:
                near = difflib.get_close_matches(str(name), spec.classes, n=1, cutoff=0)
                hint = f"did you mean {near[0]!r}?" if near else "the dataset has no classes"
                raise UserError(f"{place} has class {name!r}, which {spec.name} has not; {hint}")
            row[column[name]] = True
    return matrix


def _check_classes(path: str | Path, content: dict, spec: DatasetSpec) -> None:
    classes = content.get("classes")
    if classes == list(spec.classes):
        return
    theirs = f"{len(classes)} classes" if isinstance(classes, list) else "no class list"
    if isinstance(classes, list) and len(classes) == len(spec.classes):
        k = next(k for k, (a, b) in enumerate(zip(classes, spec.classes)) if a != b)
        theirs = f"{classes[k]!r} instead of {spec.classes[k]!r} as class {k}"
    raise UserError(
        f"{path} is for dataset {content.get('dataset')!r} with {theirs}, not for {spec.name!r} with its"
        f" {len(spec.classes)} classes; make it for this dataset"
    )


def _xml_classes(path: Path, difficult: bool) -> list[str]:
    """Class names of the objects in one VOC annotation file."""
    try:
        objects = parse(path).getroot().findall("object")
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; complete the Annotations folder or shorten the list") from error
    except ParseError as error:
        raise UserError(f"{path} is not valid XML ({error}); copy it again") from error
    except (OSError, DefusedXmlException) as error:
        raise UserError(f"{path} cannot be read safely as XML ({error}); copy it again") from error
    kept = [o for o in objects if difficult or o.findtext("difficult", "0").strip() != "1"]
    return [o.findtext("name", "").strip() for o in kept]
