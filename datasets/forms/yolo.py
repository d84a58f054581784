"""YOLO folders: a text per picture, a line per object, coordinates as shares of width and height.

As Ultralytics, Roboflow, CVAT and Label Studio write them; the classes stand in data.yaml,
obj.names or classes.txt.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import yaml

from datasets.folders import files_below
from datasets.forms.shapes import outline
from datasets.rows import Region, Row, called_by_place, row_of
from utils.common.console import say_once
from utils.common.errors import UserError
from utils.common.files import decoded_text
from utils.common.yaml_files import yaml_nodes

_LISTS = ("obj.names", "classes.txt")
_NO_LABELS = ("train", "val", "valid", "test", "classes", "labels", "requirements")
_POSES = "kpt_shape"  # key of a YAML file whose labels hold points of poses
_NUMBER = re.compile(r"[-+.]*\d[-+.\deE,;]*")  # also of a label with commas, which is refused
_FAR = 2  # shares of a side; numbers beyond are pixels


def found(folder: Path) -> Path | None:
    """Return the file of a folder that names its classes; None where it has none, or no labels.

    Raises UserError where two name them differently.
    """
    lists = [folder / name for name in _LISTS if (folder / name).is_file()]
    files = [file for file in sorted(folder.glob("*.y*ml")) if _names_in(file)] or lists

    named = {tuple(_names(file)) for file in files}
    if len(named) > 1:
        raise UserError(
            f"{files[0]} and {files[1]} name other classes; keep the one that the labels were "
            "written with"
        )

    if files and _texts(folder)[0]:
        return files[0]
    return None


def read(listed: Path) -> Iterator[Row]:
    """Yield the pictures of the folder of a list of classes that have a text. Raises UserError
    naming a line that is malformed.
    """
    folder = listed.parent
    names = _names(listed)
    if _POSES in _content(listed):
        raise UserError(
            f"{listed} is of poses, whose points are no outlines; export YOLO's detection or "
            "segmentation form"
        )

    labels, others = _texts(folder)
    for file in labels:
        below = file.relative_to(folder).with_suffix("")
        called = called_by_place(below, "labels", "images")
        yield row_of(str(file), called, list(_regions(file, names)))

    if others:
        say_once(
            f"others {folder}",
            f"{len(others)} texts of {folder} do not begin with a number, as labels do, and are "
            f"left out (first {others[0].name})",
        )


def _texts(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the texts of labels below a folder, and those directly in it that are something else,
    as lists of pictures or notes are.
    """
    texts = files_below(folder, (".txt",)).files
    labels = [file for file in texts if "labels" in file.relative_to(folder).parts[:-1]]
    if labels:
        return labels, []

    told = _texts_told(folder)
    texts = [
        file
        for file in texts
        if file.stem.casefold() not in _NO_LABELS
        and "readme" not in file.name.casefold()
        and file not in told
    ]
    others = {file for file in texts if file.parent == folder and not _begins_with_number(file)}
    return [file for file in texts if file not in others], sorted(others)


def _texts_told(folder: Path) -> set[Path]:
    """Return where the lists of pictures may lie that obj.data names, as in train = data/train.txt:
    tools leave out folders.
    """
    data = folder / "obj.data"
    if not data.is_file():
        return set()
    lines = decoded_text(data, data.read_bytes()).splitlines()
    values = [line.partition("=")[2].strip() for line in lines]
    return {folder / name for value in values for name in (value, PurePosixPath(value).name)}


def _begins_with_number(file: Path) -> bool:
    """Tell whether a text begins as labels do; yes of an empty one, which labels nothing."""
    words = decoded_text(file, file.read_bytes()).split(maxsplit=1)
    return not words or _NUMBER.fullmatch(words[0]) is not None


def _regions(file: Path, names: Sequence[str]) -> Iterator[Region]:
    text = decoded_text(file, file.read_bytes())
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield _region(f"{file}, line {number}", line.split(), names)


def _region(place: str, cells: list[str], names: Sequence[str]) -> Region:
    try:
        values = np.array(cells, np.float64)
        if not np.isfinite(values).all() or values[0] % 1:
            raise ValueError
        label = int(values[0])
    except ValueError:
        raise UserError(f"{place} is {' '.join(cells)!r:.60}, no YOLO label; correct it") from None

    if not 0 <= label < len(names):
        raise UserError(f"{place} is of class {label}, the list has 0..{len(names) - 1}; mend it")
    if np.abs(values[1:]).max(initial=0) > _FAR:
        raise UserError(f"{place} has {values[1:].max():g}, no share of a side; export it again")
    if len(values) in (5, 6):  # a box, perhaps with a confidence
        return Region(names[label])
    if len(values) < 7 or len(values) % 2 == 0:
        raise UserError(
            f"{place} has {len(values)} numbers; export YOLO's detection or segmentation form"
        )
    return Region(names[label], outline([values[1:].copy()], relative=True))


def _names(file: Path) -> list[str]:
    if file.suffix.lower() in (".yaml", ".yml"):
        return _names_in(file)
    lines = decoded_text(file, file.read_bytes()).splitlines()
    return [line.strip() for line in lines if line.strip()]


def _content(file: Path) -> dict[str, yaml.Node]:
    """Return what a YAML file holds by key; nothing of another file."""
    if file.suffix.lower() not in (".yaml", ".yml"):
        return {}
    root = yaml_nodes(file, decoded_text(file, file.read_bytes()))
    if not isinstance(root, yaml.MappingNode):
        return {}
    return {str(key.value): value for key, value in root.value}


def _names_in(file: Path) -> list[str]:
    """Return the names of classes in a YAML file, as they are written there, in the order of their
    numbers; none if it has no `names`.
    """
    names = _content(file).get("names")
    if isinstance(names, yaml.MappingNode):
        by_number = {str(key.value): value for key, value in names.value}
        numbers = [str(number) for number in range(len(by_number))]
        if set(by_number) != set(numbers):
            said = ", ".join(by_number)
            raise UserError(f"{file} numbers its names {said:.60}; count from 0 on")
        nodes = [by_number[number] for number in numbers]
    elif isinstance(names, yaml.SequenceNode):
        nodes = names.value
    else:
        return []

    if not all(isinstance(node, yaml.ScalarNode) and node.value.strip() for node in nodes):
        raise UserError(f"{file} has something else than a name in `names`; write one per class")
    return [node.value.strip() for node in nodes]
