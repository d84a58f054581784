"""The tags file of image-level tags, the only supervision: read and written.

A tags file is JSON: {"format": 1, "dataset": name, "classes": [...], "source": "...", "tags":
{image: [class, ...]}}.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.specs import DatasetSpec
from utils.common.errors import UserError, nearest
from utils.common.files import read_json, write_whole

FORMAT = 1
_HEAD = 4096  # bytes of a tags file in which its format stands
_ALIKE = 0.7  # likeness, of 1, from which another class may have been meant


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
    """Read the (n, K) bool tags of the named images, in their order. An image may have none.

    Raises:
        UserError: no such file, not JSON, another format, other classes than the spec's, an unknown
            class, or a named
            image that the file lacks.
    """
    return tags_of_all(path, tags_content(path, spec)["tags"], names, spec)


def tags_of_all(
    path: str | Path, tags: Mapping[str, Sequence[str]], names: Sequence[str], spec: DatasetSpec
) -> np.ndarray:
    """Return the (n, K) bool tags of all named images. Raises UserError where one is missing."""
    missing = [name for name in names if name not in tags]
    if missing:
        raise UserError(
            f"{path} has no tags for {len(missing)} of {len(names)} images, first {missing[0]};"
            " make it for this list or write an empty list [] for images without a class"
        )
    return tag_matrix(spec, _rows(str(path), tags, names), len(names))


def read_all_tags(path: str | Path, spec: DatasetSpec) -> Tags:
    """Read everything in a tags file. Raises UserError as `read_tags` does."""
    content = tags_content(path, spec)
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
    """Make the `Tags` of the named images from their class names. Raises UserError, naming `place`,
    on an unknown class.
    """
    return Tags(tuple(names), tag_matrix(spec, _rows(place, classes, names), len(names)), source)


def _rows(
    place: str, classes: Mapping[str, Sequence[str]], names: Sequence[str]
) -> Iterator[tuple[str, Sequence[str]]]:
    return ((f"{place}, image {name}", classes[name]) for name in names)


def write_tags(path: str | Path, spec: DatasetSpec, tags: Tags) -> bool:
    """Write a tags file, one image per line in the order of names, whole or not at all; False if it
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


def is_tags_file(path: str | Path) -> bool:
    """Tell whether a file is of the form that this module writes, by its first bytes."""
    try:
        with Path(path).open("rb") as file:
            start = file.read(_HEAD)
    except OSError:
        return False
    return start.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"{") and b'"format"' in start


def tag_matrix(spec: DatasetSpec, rows: Iterable[tuple[str, Sequence[str]]], n: int) -> np.ndarray:
    """Return (n, K) bool from one (place named in errors, class names) per image."""
    column = {name: k for k, name in enumerate(spec.classes)}
    matrix = np.zeros((n, len(spec.classes)), bool)
    for row, (place, classes) in zip(matrix, rows):
        if not isinstance(classes, list):
            raise UserError(
                f"{place} has {classes!r} where a list of class names belongs; write the list"
            )
        for name in classes:
            if not isinstance(name, str) or name not in column:
                hint = nearest(str(name), spec.classes, cutoff=_ALIKE).removeprefix(", ")
                own = "for classes of your own use `python -m datasets.prepare custom`"
                raise UserError(
                    f"{place} has class {name!r}, which {spec.name} has not; {hint or own}"
                )
            row[column[name]] = True

    return matrix


def tags_content(path: str | Path, spec: DatasetSpec) -> dict:
    """Read the object in a tags file, its format and classes checked."""
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
    theirs = "no class list"
    if isinstance(classes, list):
        theirs = f"{len(classes)} classes"
        if len(classes) == len(spec.classes):
            k = next(k for k, (a, b) in enumerate(zip(classes, spec.classes)) if a != b)
            theirs = f"{classes[k]!r} instead of {spec.classes[k]!r} as class {k}"
    raise UserError(
        f"{path} is for dataset {content.get('dataset')!r} with {theirs}, not for {spec.name!r} "
        f"with its {len(spec.classes)} classes; make it for this dataset"
    )
