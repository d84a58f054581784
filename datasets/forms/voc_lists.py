"""Lists of pictures in ImageSets, of PASCAL VOC and of what CVAT exports as such: in Main,
cat_train.txt marks which pictures show a cat, and train.txt has names alone.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

from datasets.folders import files_below
from datasets.forms import voc
from datasets.rows import Row, called_by_place, row_of
from utils.common.errors import UserError
from utils.common.files import decoded_text

LABEL_MAP = "labelmap.txt"  # CVAT writes it beside ImageSets, VOC has none
_FOLDER = "ImageSets"
_MAIN = "Main"
_KINDS = (_MAIN, "Segmentation")  # the other lists have numbers of objects
_PRESENT = "1"
_ABSENT = "-1"
_DIFFICULT = "0"  # all objects of the class are hard to see; they count, as those in XML do


class _Said(NamedTuple):
    """What a line of a list says: a picture's name, and a class that it shows; "" for none."""

    file: Path
    name: str
    category: str


def listed_below(folder: Path) -> dict[str, Row]:
    """Return what lists below a folder say of each picture, by the first name that it is called.

    A picture has the classes that it is marked with. In VOC, lists say nothing of a picture that
    has XML, from which they were made, and names alone say nothing; in CVAT's exports, marks are
    tags beside boxes, and a name alone is a picture without an object. Raises UserError naming a
    line that is malformed.
    """
    texts = files_below(folder, (".txt",)).files
    exports = sorted({file.parents[2] for file in texts if file.parent.parent.name == _FOLDER})
    rows: dict[str, Row] = {}
    for export in exports:
        below = PurePath()
        if export.is_relative_to(folder):  # else the folder is a part of the export
            below = export.relative_to(folder)
        rows |= {row.called[0]: row for row in _rows(export, below)}

    return rows


def joined(rows: Iterable[Row], listed: Mapping[str, Row]) -> Iterator[Row]:
    """Yield rows with the classes that lists add, then the pictures that are only listed."""
    rest = dict(listed)
    for row in rows:
        added = next((rest.pop(name) for name in row.called if name in rest), None)
        if added:
            row = row._replace(words=sorted({*row.words, *added.words}))
        yield row
    yield from rest.values()


def _rows(export: Path, below: PurePath) -> Iterator[Row]:
    """Yield a row per picture of an export that lies `below`."""
    files: dict[str, Path] = {}
    classes: dict[str, set[str]] = {}
    for file, name, category in _said(export):
        files.setdefault(name, file)
        classes.setdefault(name, set()).add(category)

    is_of_cvat = _is_of_cvat(export)
    for name, file in files.items():
        if not is_of_cvat and (export / voc.BOXES / f"{name}.xml").is_file():
            continue
        called = called_by_place(below / voc.BOXES / name, voc.BOXES, voc.PICTURES)
        yield row_of(f"{file}, {name}", called, [], more=classes[name] - {""})


def _said(export: Path) -> Iterator[_Said]:
    """Yield what each line of an export's lists says."""
    files = (file for kind in _KINDS for file in sorted((export / _FOLDER / kind).glob("*.txt")))
    lists = {file: _lines(file) for file in files}
    marks = {file: _marks(file, lines) for file, lines in lists.items() if _is_marked(file, lines)}
    _refuse_doubtful(marks)

    names = {file: lines for file, lines in lists.items() if file not in marks}
    splits = {file.stem for file in names}
    for file, marked in marks.items():
        category = _category(file, splits)
        for name, mark in marked.items():
            shown = "" if mark == _ABSENT else category
            yield _Said(file, name, shown)

    if _is_of_cvat(export):
        for file, listed in names.items():
            yield from (_Said(file, name, "") for name in listed)


def _is_of_cvat(export: Path) -> bool:
    return (export / LABEL_MAP).is_file()


def _lines(file: Path) -> list[str]:
    lines = decoded_text(file, file.read_bytes()).splitlines()
    return [line.strip() for line in lines if line.strip()]


def _is_marked(file: Path, lines: Sequence[str]) -> bool:
    """Tell whether a list is of a class: by its name, and a mark in any line."""
    could_be = file.parent.name == _MAIN and "_" in file.stem
    return could_be and any(_name_and_mark(line)[1] for line in lines)


def _marks(file: Path, lines: Sequence[str]) -> dict[str, str]:
    """Return the mark of each picture in the list of a class."""
    marks = {}
    for line in lines:
        name, mark = _name_and_mark(line)
        if not mark:
            raise UserError(
                f"{file} has {line!r:.60} where other lines have a picture's name and 1, 0 or -1; "
                "correct it"
            )
        marks[name] = mark
    return marks


def _name_and_mark(line: str) -> tuple[str, str]:
    """Return both parts of a line; an empty mark where it has none."""
    words = line.rsplit(maxsplit=1)
    if len(words) < 2 or words[1] not in (_PRESENT, _DIFFICULT, _ABSENT):
        return line, ""
    return words[0].strip('"'), words[1]


def _refuse_doubtful(marks: Mapping[Path, Mapping[str, str]]) -> None:
    """Raise UserError where 0 may mean that a class is absent, as it never does in VOC."""
    used = {mark for marked in marks.values() for mark in marked.values()}
    if _DIFFICULT not in used or _ABSENT in used:
        return
    file = next(file for file, marked in marks.items() if _DIFFICULT in marked.values())
    raise UserError(
        f"{file} has marks of {_DIFFICULT}, which VOC has where a class is there but hard to see, "
        f"and no list beside it has {_ABSENT}; write {_ABSENT} where a class is absent"
    )


def _category(file: Path, splits: Collection[str]) -> str:
    """Return the class of a list called CLASS_SPLIT.txt, either of which may have a _ itself."""
    ends = [split for split in splits if file.stem.endswith(f"_{split}")]
    split = max(ends, key=len, default=file.stem.rpartition("_")[2])
    return file.stem.removesuffix(f"_{split}")
