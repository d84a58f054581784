"""Tables as spreadsheets and people write them: any delimiter, encoding and line ending.

A table of tags has a header. One column names the picture; the others are one or more columns of
tags, or one column per class.
"""

import csv
import io
import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from datasets.classes import SEPARATOR
from datasets.rows import SCORES, Row, refuse_unsure
from utils.common.errors import UserError
from utils.common.files import decoded_text

HEADER = "image,tags"
_PICTURES = ("image", "img", "picture", "photo")
# Titles, as of `_title`, of what names the picture: of several, the first of these does.
_IMAGE = (
    *("path", "filepath", *(f"{word}path" for word in _PICTURES)),
    *("filename", "file"),
    *(f"{word}{end}" for word in _PICTURES for end in ("filename", "file", "name")),
    *(*_PICTURES, "images"),
    *(f"{word}id" for word in _PICTURES),
    "name",  # else perhaps of a person
)
_TAGS = {
    *(f"{word}{end}" for word in ("tag", "label", "class") for end in ("", "name", "names")),
    *("tags", "labels", "classes", "category", "categories", "categoryname", "categorynames"),
    *("choice", "choices"),
}
_NAMELESS = re.compile(r"(unnamed:[\d.]+)?")  # titles of columns of row numbers, in pandas's words
# The words of a list as Python and NumPy print it, the latter without commas.
_QUOTED = re.compile(r"""(?:np\.str_\()?(?:'([^']*)'|"([^"]*)")\)?[\s,]*""")
_DELIMITERS = (",", ";", "\t", "|")
_YES = ("1", "1.0", "true", "yes", "y", "x")
_NO = ("", "0", "0.0", "false", "no", "n", "-1", "-")
csv.field_size_limit(1 << 30)  # cells of annotation tools hold whole outlines
# How workbooks start, which are no text: of Excel (new, OpenDocument, Numbers) and old Excel.
_WORKBOOKS = (b"PK\3\4", b"\xd0\xcf\x11\xe0")


def read_table(path: Path, classes: Sequence[str]) -> Iterator[Row]:
    """Read the rows of a table of tags.

    Raises:
        UserError: names file, line and fix, where the file is no table or a cell is not legible.
    """
    content = path.read_bytes()
    if content.startswith(_WORKBOOKS):
        raise UserError(f"{path} is a workbook, not text; save its sheet as CSV")

    text = decoded_text(path, content)
    first = text.partition("\n")[0]
    delimiters: Sequence[str] = _DELIMITERS
    if told := re.fullmatch(r"sep=(.)\s*", first):  # Excel's way to name it
        text = "\n" + text.partition("\n")[2]
        delimiters = [told[1]]

    delimiter = max(delimiters, key=lambda sign: _likeness(text, sign))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header = next((row for row in reader if any(cell.strip() for cell in row)), [])
        if not header:
            raise UserError(f"{path} is empty; write the header {HEADER} and a line per picture")
        columns = _Columns(path, reader.line_num, header, classes)
        for row in reader:
            if any(cell.strip() for cell in row):
                yield columns.read(f"{path}, line {reader.line_num}", row, delimiter)
    except csv.Error as error:
        raise UserError(
            f"{path}, line {reader.line_num} is not CSV ({error}); mend that line"
        ) from None


def split_words(text: str, classes: Sequence[str]) -> list[str]:
    """Return the class names in a cell: a JSON list, or names with ; | , or line breaks between
    them, each perhaps in quotes where brackets surround all.

    A text that is a class as a whole is that one; words with spaces between them are classes only
    if each is one.
    """
    text = text.strip()
    known = {key_of(name) for name in classes}
    if key_of(text) in known:
        return [text]
    bracketed = text[:1] + text[-1:] in ("[]", "()", "{}")
    if bracketed:
        if (listed := _json_words(text)) is not None:
            return listed
        text = text[1:-1].strip()
        if re.fullmatch(f"(?:{_QUOTED.pattern})+", text):
            return [word.strip() for pair in _QUOTED.findall(text) for word in pair if word.strip()]

    separator = next((sign for sign in (SEPARATOR, "|", ",", "\n") if sign in text), None)
    words = [text]
    if separator:
        words = [word.strip() for word in text.split(separator)]
    elif all(key_of(word) in known for word in text.split()):
        words = text.split()

    if bracketed:
        words = [re.sub(r"""^(["'])(.*)\1$""", r"\2", word.strip()) for word in words]
    return [word for word in words if word]


def _json_words(text: str) -> list[str] | None:
    """Return the words of a JSON list of texts, or of what Label Studio's CSV has instead: a list
    under `choices`, or objects with a list of labels each; None where the text is none of these.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(content, dict):
        content = content.get("choices")
    if not isinstance(content, list):
        return None

    words: list = []
    for each in content:
        named: Any = each
        if isinstance(each, dict):
            named = next((each[key] for key in each if key.endswith("labels")), None)
        words += named if isinstance(named, list) else [named]
    if not all(isinstance(word, str) for word in words):
        return None
    return [word.strip() for word in words if word.strip()]


def key_of(name: str) -> str:
    """Return a name as people compare it: without case, with one space for each _, - or gap within,
    and letters with their marks composed, which macOS writes apart.
    """
    composed = unicodedata.normalize("NFC", name)
    return " ".join(filter(None, re.split(r"[\s_-]+", composed.casefold())))


def _title(cell: str) -> str:
    """Return the title of a column as programs compare it: ImageID as image_id."""
    return key_of(cell).replace(" ", "")


def picture_places(titles: Sequence[str]) -> list[int]:
    """Return the places of those titles, of columns or keys, that may name a picture, best first:
    paths and names of files, then an image or its number, then a mere name.
    """
    known = [_title(title) for title in titles]
    return sorted(
        (place for place, title in enumerate(known) if title in _IMAGE),
        key=lambda place: _IMAGE.index(known[place]),
    )


def _likeness(text: str, delimiter: str) -> tuple[bool, int]:
    """Tell how much the first line looks like a header of this delimiter: whether a column names
    the picture, and the number of columns.
    """
    line = next((line for line in text.splitlines() if line.strip()), "")
    try:
        cells = next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        cells = []
    return bool(picture_places(cells)), len(cells)


class _Columns:
    """What the columns of a table hold."""

    def __init__(self, path: Path, line: int, header: list[str], classes: Sequence[str]) -> None:
        keys = [key_of(cell) for cell in header]
        titles = [_title(cell) for cell in header]
        self._classes = classes
        self._width = len(header)
        self._image = next(iter(picture_places(header)), -1)
        self._tags = [n for n, title in enumerate(titles) if re.sub(r"\d+$", "", title) in _TAGS]
        known = {key_of(name): name for name in classes}
        self._marks = {n: known[key] for n, key in enumerate(keys) if key in known}
        self._marks.pop(self._image, None)
        self._score = next((n for n, title in enumerate(titles) if title in SCORES), -1)
        if self._image < 0 or not (self._tags or self._marks):
            raise UserError(
                f"{path}, line {max(1, line)} is {','.join(header)!r:.80}; the header must be "
                f"{HEADER}, or name the image and each class"
            )
        if self._tags:
            self._marks = {}

        used = {self._image, *self._marks}
        rest = [n for n, title in enumerate(titles) if n not in used]
        strange = next((header[n] for n in rest if not _NAMELESS.fullmatch(titles[n])), "")
        if self._marks and strange:
            raise UserError(
                f"{path}, line {line} has the column {strange!r}, which is no class; remove it, or "
                "add it to the class list"
            )

    def read(self, place: str, row: list[str], delimiter: str) -> Row:
        """Read one row. Raises UserError where it has too many cells or a mark is neither yes nor
        no.
        """
        if any(cell.strip() for cell in row[self._width :]):
            raise UserError(
                f"{place} has {len(row)} cells; write {HEADER} with {SEPARATOR!r} between the tags "
                f"and quotes around names with {delimiter!r}"
            )

        cells = [cell.strip() for cell in row] + [""] * (self._width - len(row))
        words: list[str] = []
        for n in self._tags:
            words += split_words(cells[n], self._classes)
        if words and self._score >= 0:
            refuse_unsure(place, words[0], cells[self._score])

        for n, name in self._marks.items():
            mark = cells[n].casefold()
            if mark not in (*_YES, *_NO):
                raise UserError(f"{place} has {cells[n]!r} for {name!r}; write 1 or 0")
            if mark in _YES:
                words.append(name)

        return Row(place, (cells[self._image],), words, more=bool(self._tags))
