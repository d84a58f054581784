"""The one place that tells, from content, which form a file or folder of annotations has."""

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from datasets.coco_json import without_outline
from datasets.folders import files_below
from datasets.forms import coco, colours, cvat, label_studio, labelme, supervisely, voc, yolo
from datasets.forms.records import read_lines, read_mapping, read_records
from datasets.rows import Row
from datasets.tables import HEADER, read_table
from datasets.voc_xml import parsed_xml
from utils.common.console import say_once
from utils.common.errors import UserError
from utils.common.files import read_json

FORMS = (
    f"a table with the header {HEADER}, JSON, or what a tool exports: COCO, VOC, YOLO, LabelMe, "
    "CVAT, Label Studio, Supervisely"
)
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")
_LINES = (".jsonl", ".ndjson")
_LISTS = ("obj.names", "classes.txt", "obj.data", colours.LIST, "meta.json")  # stand for a folder


def rows_of(path: Path, classes: Sequence[str], outlines: bool) -> tuple[Iterator[Row], bool]:
    """Rows of a file or folder of any form, and whether it usually names more pictures than there
    are, as exports of tools do.

    Args:
        path: a file or folder of FORMS.
        classes: names of classes, by which columns of tables and flags of pictures are known.
        outlines: whether regions are needed.

    Raises:
        UserError: it has no form that is known; the rows raise it where they are malformed.
        OSError: it cannot be read.
    """
    if path.name.lower() in _LISTS or path.suffix.lower() in (".yaml", ".yml"):
        path = path.parent
    if path.is_dir():
        rows = rows_of_folder(path, classes, outlines)
        if rows is None:
            raise UserError(f"{path} holds no XML file, JSON or list of classes; give {FORMS}")
        return rows, True

    with path.open("rb") as file:
        start = file.read(64).lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n\0")[:1]
    suffix = path.suffix.lower()
    if suffix in _ARCHIVES:
        raise UserError(f"{path} is an archive; unpack it and name its folder")
    if suffix == ".xml" or start == b"<":
        return _of_xml(path, path.name), True
    if suffix in _LINES:
        return read_lines(path), False
    if suffix == ".json" or start in (b"{", b"["):
        return _of_json(path, classes, outlines)
    return read_table(path, classes), False


def rows_of_folder(folder: Path, classes: Sequence[str], outlines: bool) -> Iterator[Row] | None:
    """Rows of a folder that a tool exported, or several of them side by side; None if it is none.

    Raises UserError as `rows_of` does.
    """
    below = sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
    for roots in ([folder], below):
        if found := [rows for root in roots if (rows := _marked(root, classes)) is not None]:
            return chain.from_iterable(found)

    files = files_below(folder, (".json",)).files
    if any(_is_known(_content(file)) for file in files):
        return _of_json_files(folder, files, classes, outlines)
    files = files_below(folder, (".xml",)).files
    if files:
        return chain.from_iterable(_of_xml(file, str(file.relative_to(folder))) for file in files)
    return None


def _marked(folder: Path, classes: Sequence[str]) -> Iterator[Row] | None:
    """Rows of a folder that a file in it tells the form of."""
    if meta := supervisely.found(folder):
        return supervisely.read(meta, classes)
    if listed := colours.found(folder):
        return colours.read(listed)
    if listed := yolo.found(folder):
        return yolo.read(listed)
    return None


def _of_xml(path: Path, below: str) -> Iterator[Row]:
    root = parsed_xml(path)
    if root.tag == "annotations":
        return cvat.read(path, root)
    if root.tag == "annotation":
        return iter([voc.read(path, root, below)])
    raise UserError(
        f"{path} holds <{root.tag}> where VOC has <annotation> and CVAT <annotations>; "
        "export it again"
    )


def _content(path: Path) -> Any:
    return read_json(path, without_outline, (dict, list))


def _is_known(content: Any) -> bool:
    return (
        coco.is_coco(content)
        or labelme.is_labelme(content)
        or label_studio.is_tasks(content)
        or label_studio.is_min(content)
    )


def _of_json_files(
    folder: Path, files: Sequence[Path], classes: Sequence[str], outlines: bool
) -> Iterator[Row]:
    strange = []
    for file in files:
        content = _content(file)
        if _is_known(content):
            below = file.relative_to(folder).parent.as_posix()
            yield from _of_known(file, content, f"{below}/".removeprefix("./"), classes, outlines)
        else:
            strange.append(file)

    if strange:
        say_once(
            f"strange {folder}",
            f"{len(strange)} JSON files of {folder} are no annotations of a form that is known, "
            f"and left out (first {strange[0].name})",
        )


def _of_known(
    path: Path, content: Any, below: str, classes: Sequence[str], outlines: bool
) -> Iterator[Row]:
    if coco.is_coco(content):
        return coco.read(path, content, below, outlines)
    if labelme.is_labelme(content):
        return labelme.read(path, content, below, classes)
    if label_studio.is_tasks(content):
        return label_studio.read_tasks(path, content)
    return label_studio.read_min(path, content, classes)


def _of_json(path: Path, classes: Sequence[str], outlines: bool) -> tuple[Iterator[Row], bool]:
    content = _content(path)
    if _is_known(content):
        return _of_known(path, content, "", classes, outlines), True
    if isinstance(content, list):
        return read_records(path, content), False
    return read_mapping(path, content), False
