"""The one place that tells, from content, which form a file or folder of annotations has."""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from datasets.coco_json import without_outline
from datasets.folders import files_below
from datasets.forms import coco, colours, cvat, label_studio, labelme, supervisely, voc, yolo
from datasets.forms.records import read_lines, read_mapping, read_records
from datasets.forms.voc_lists import LABEL_MAP, joined, listed_below
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
_EMPTY = "coco without images"
_SCALED = "coco of label studio"
_SIGNS: dict[str, Callable[[Any], bool]] = {  # of JSON that tools write
    _EMPTY: coco.is_empty,
    _SCALED: coco.is_label_studio,
    "coco": coco.is_coco,
    "labelme": labelme.is_labelme,
    "tasks": label_studio.is_tasks,
    "min": label_studio.is_min,
}
_XML: dict[str, Callable[[Path, Element, Path], Iterator[Row]]] = {  # by tag of the root
    "annotations": lambda path, root, _: cvat.read(path, root),
    voc.TAG: lambda path, root, below: iter([voc.read(path, root, below)]),
}
_LINES = (".jsonl", ".ndjson")
_LISTS = ("obj.names", "classes.txt", "obj.data", LABEL_MAP, "meta.json")  # stand for a folder


def rows_of(path: Path, classes: Sequence[str], outlines: bool) -> tuple[Iterator[Row], bool]:
    """Return the rows of a file or folder of any form, and whether it usually names more pictures
    than there are, as exports of tools do.

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
            raise UserError(
                f"{path} holds no XML file, JSON, or labels or masks with their list of classes, "
                f"as tools for annotation write them; give {FORMS}"
            )
        return rows, True

    with path.open("rb") as file:
        start = file.read(64).lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n\0")[:1]
    suffix = path.suffix.lower()
    if suffix in _ARCHIVES:
        raise UserError(f"{path} is an archive; unpack it and name its folder")
    if suffix == ".xml" or start == b"<":
        return _of_xml(path), True
    if suffix in _LINES:
        return read_lines(path), False
    if suffix == ".json" or start in (b"{", b"["):
        return _of_json(path, classes, outlines)
    return read_table(path, classes), False


def rows_of_folder(folder: Path, classes: Sequence[str], outlines: bool) -> Iterator[Row] | None:
    """Return the rows of a folder that a tool exported, or several of them side by side; None if it
    is none.

    Raises UserError as `rows_of` does.
    """
    rows = _marked(folder, classes)
    if rows is not None:
        return rows

    below = sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
    parts = {part.name: _marked(part, classes) for part in below}
    found = [_in_part(name, rows) for name, rows in parts.items() if rows is not None]
    if found:
        return chain.from_iterable(found)

    files = files_below(folder, (".json",)).files
    if any(map(_form, files)):
        return _of_json_files(folder, files, classes, outlines)
    annotations = _annotations(folder)
    first = list(islice(annotations, 1))  # of thousands of files, the others are not read yet
    listed = listed_below(folder)
    if first or listed:
        rows = chain.from_iterable(
            _XML[root.tag](file, root, file.relative_to(folder))
            for file, root in chain(first, annotations)
        )
        return joined(rows, listed)
    return None


def _in_part(name: str, rows: Iterator[Row]) -> Iterator[Row]:
    """Yield the rows of one of several folders that were exported, each picture called first by its
    path below all of them.
    """
    for row in rows:
        yield row._replace(called=(*(f"{name}/{called}" for called in row.called), *row.called))


def _marked(folder: Path, classes: Sequence[str]) -> Iterator[Row] | None:
    """Return the rows of a folder that a file in it tells the form of."""
    if meta := supervisely.found(folder):
        return supervisely.read(meta, classes)
    if listed := colours.found(folder):
        return colours.read(listed)
    if listed := yolo.found(folder):
        return yolo.read(listed)
    return None


def _of_xml(path: Path) -> Iterator[Row]:
    root = parsed_xml(path)
    if root.tag not in _XML:
        raise UserError(
            f"{path} holds <{root.tag}> where VOC has <annotation> and CVAT <annotations>; "
            "export it again"
        )
    return _XML[root.tag](path, root, Path(path.name))


def _annotations(folder: Path) -> Iterator[tuple[Path, Element]]:
    """Yield the XML files of tools for annotation below a folder, and their roots."""
    strange = []
    files = files_below(folder, (".xml",)).files
    for file in files:
        root = parsed_xml(file)
        if root.tag in _XML:
            yield file, root
        else:
            strange.append(file)

    if len(strange) < len(files):
        _say_strange(folder, "XML", strange)


def _say_strange(folder: Path, kind: str, files: Sequence[Path]) -> None:
    if files:
        say_once(
            f"strange {kind} {folder}",
            f"{len(files)} {kind} files of {folder} are no annotations of a form that is known, "
            f"and left out (first {files[0].name})",
        )


def _form(path: Path) -> str:
    """Return the form of a JSON file; "" for none of a tool. Asked again, an unchanged file is not
    read again.
    """
    status = path.stat()
    return _form_of_content(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=1 << 16)
def _form_of_content(path: Path, *_: int) -> str:
    content = read_json(path, without_outline, (dict, list))
    return next((name for name, is_so in _SIGNS.items() if is_so(content)), "")


def _of_json_files(
    folder: Path, files: Sequence[Path], classes: Sequence[str], outlines: bool
) -> Iterator[Row]:
    forms = {file: _form(file) for file in files}
    strange = [file for file, form in forms.items() if not form]
    empty = [file for file, form in forms.items() if form == _EMPTY]
    if len(strange) + len(empty) == len(files):
        empty = []  # and is refused then

    for file, form in forms.items():
        if form and file not in empty:
            below = file.relative_to(folder).parent.as_posix()
            yield from _of_tool(form, file, f"{below}/".removeprefix("./"), classes, outlines)

    _say_strange(folder, "JSON", strange)
    if empty:
        say_once(
            f"empty {folder}",
            f"{len(empty)} COCO files of {folder} list no image, and are left out (first "
            f"{empty[0].name})",
        )


def _of_tool(
    form: str, path: Path, below: str, classes: Sequence[str], outlines: bool
) -> Iterator[Row]:
    if form.startswith("coco"):
        return coco.read(path, below, outlines, relative=form == _SCALED)
    content = read_json(path, kinds=(dict, list))
    if form == "labelme":
        return labelme.read(path, content, below, classes)
    if form == "tasks":
        return label_studio.read_tasks(path, content, classes)
    return label_studio.read_min(path, content, classes)


def _of_json(path: Path, classes: Sequence[str], outlines: bool) -> tuple[Iterator[Row], bool]:
    if form := _form(path):
        return _of_tool(form, path, "", classes, outlines), True
    content = read_json(path, kinds=(dict, list))
    if isinstance(content, list):
        return read_records(path, content), False
    return read_mapping(path, content), False
