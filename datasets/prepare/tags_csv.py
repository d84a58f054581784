"""Tags of one's own pictures: from a CSV, whose rows name pictures as people do, or from the names
of folders.
"""

import csv
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from datasets.classes import SEPARATOR
from datasets.specs import DatasetSpec
from utils.common.errors import UserError, nearest

NOTHING = "background"  # folder of pictures that show no class
_HEADER = ["image", "tags"]
Tagged = dict[PurePosixPath, set[str]]


def tags_of_table(path: Path, files: Sequence[PurePosixPath], spec: DatasetSpec) -> Tagged:
    """Classes of the pictures that a CSV lists, found by path, by path without suffix or by file
    name.

    Raises:
        UserError: names file, line and fix, where the table cannot be read, or a picture or class
            is unknown.
    """
    found, tags = _Pictures(files), {}
    for place, (called, words) in _rows(path):
        file = found.named(called, place)
        if file in tags:
            raise UserError(f"{place} lists {called!r} a second time; keep one line")
        tags[file] = {
            _class(word.strip(), spec, place) for word in words.split(SEPARATOR) if word.strip()
        }
    if not tags:
        raise UserError(f"{path} lists no picture; write one a line below the header")
    return tags


def tags_of_folders(root: Path, files: Sequence[PurePosixPath], spec: DatasetSpec) -> Tagged:
    """Classes of pictures: the names of all folders on the way to them that name a class.

    Raises:
        UserError: a picture lies in no such folder, nor in one called `background`.
    """
    tags = {}
    for file in files:
        folders = [unicodedata.normalize("NFC", part) for part in file.parent.parts]
        tags[file] = set(folders) & set(spec.classes)
        if not tags[file] and NOTHING not in folders:
            raise UserError(
                f"{root / file} lies in no folder named after a class; move it into one, or into"
                f" {NOTHING!r} if it shows none, or give --tags"
            )
    return tags


def pictures_named(
    called: Sequence[str], files: Sequence[PurePosixPath], place: str
) -> set[PurePosixPath]:
    """The pictures that are called so. Raises UserError naming `place` where one is unknown or
    ambiguous.
    """
    found = _Pictures(files)
    return {found.named(name, place) for name in called}


def _rows(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Place and cells of each row below the header."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = csv.reader(stream, strict=True)
            _check_header(path, next(rows, []))
            yield from (
                (f"{path}, line {rows.line_num}", row)
                for row in rows
                if _is_row(row, path, rows.line_num)
            )
    except FileNotFoundError:
        raise UserError(
            f"--tags {path} does not exist; give a CSV with the columns image,tags"
        ) from None
    except csv.Error as error:
        raise UserError(
            f"{path}, line {rows.line_num} is not CSV ({error}); mend that line"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} cannot be read as UTF-8 text ({error}); save it as CSV UTF-8"
        ) from None


def _check_header(path: Path, row: list[str]) -> None:
    header = [cell.strip().lower() for cell in row]
    if header != _HEADER:
        raise UserError(
            f"{path}, line 1 is {','.join(header)!r:.80}; the header must be {','.join(_HEADER)}"
        )


def _is_row(row: list[str], path: Path, line: int) -> bool:
    """False for a blank line. Raises UserError for one of too few or many cells."""
    if row and len(row) != len(_HEADER):
        raise UserError(
            f"{path}, line {line} has {len(row)} cells; write image,tags with {SEPARATOR!r} "
            "between the tags"
            " and quotes around names with commas"
        )
    return bool(row)


class _Pictures:
    """Finds pictures by what a user calls them."""

    def __init__(self, files: Sequence[PurePosixPath]) -> None:
        self.exact = {self._key(str(file)): file for file in files}
        self.loose: dict[str, list[PurePosixPath]] = {}
        for file in files:
            for called in {str(file.with_suffix("")), file.name, file.stem}:
                self.loose.setdefault(self._key(called), []).append(file)

    @staticmethod
    def _key(called: str) -> str:
        return unicodedata.normalize("NFC", called.strip())

    def named(self, called: str, place: str) -> PurePosixPath:
        """The picture called so. Raises UserError naming the place if there is none, or more than
        one.
        """
        key = self._key(called)
        if key in self.exact:
            return self.exact[key]
        found = self.loose.get(key) or self.loose.get(key.replace("\\", "/"), [])
        if len(found) > 1:
            raise UserError(
                f"{place}: {called!r} may be {found[0]} or {found[1]}; write the path below "
                "--images"
            )
        if not found:
            hint = nearest(key, list(self.exact)) or "; write its path below --images"
            raise UserError(f"{place}: {called!r} is no picture below --images{hint}")
        return found[0]


def _class(word: str, spec: DatasetSpec, place: str) -> str:
    name = unicodedata.normalize("NFC", word)
    if name not in spec.classes:
        raise UserError(
            f"{place} has the tag {word!r}, which is no "
            f"class{nearest(word, spec.classes) or '; add it'}"
        )
    return name
