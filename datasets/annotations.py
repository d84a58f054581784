"""Tags of one's own pictures in any form that people and tools write: tables, JSON, and the
exports of annotation tools.
"""

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from datasets.forms.detect import FORMS, rows_of
from datasets.named_pictures import Pictures, misread
from datasets.rows import IGNORED, Row
from datasets.specs import DatasetSpec
from datasets.tables import key_of, split_words
from utils.common.console import say_once
from utils.common.errors import UserError, nearest

NOTHING = "background"  # folder, or tag, of pictures that show no class
_IGNORED = {IGNORED, "ignore", "void"}  # labels of tools for pixels that do not count
Tagged = dict[PurePosixPath, set[str]]


def tags_of_file(
    path: Path,
    files: Sequence[PurePosixPath],
    spec: DatasetSpec,
    roots: Iterable[Path] = (),
    partial: bool = False,
) -> Tagged:
    """Return the classes of those pictures that a file of tags names.

    Args:
        path: a file, or folder, of FORMS.
        files: pictures, as paths relative to their folder.
        spec: names of the classes.
        roots: folders whose name may begin a path in the file.
        partial: whether the file may name other pictures too, which is said. Exports of tools
            always may.

    Raises:
        UserError: names file, place and fix, where the file cannot be read, or a class is unknown,
            or a picture is unknown, ambiguous, or named twice where that means no further object.
    """
    tags: Tagged = {}
    for file, row in matched(path, files, spec, roots, partial=partial):
        words = row.words
        if isinstance(words, str):
            words = split_words(words, spec.classes)
        named = (class_of(word, spec, row.place) for word in words)
        tags.setdefault(file, set()).update(name for name in named if name)

    return tags


def matched(
    path: Path,
    files: Sequence[PurePosixPath],
    spec: DatasetSpec,
    roots: Iterable[Path] = (),
    flag: str = "--tags",
    partial: bool = False,
    outlines: bool = False,
) -> Iterator[tuple[PurePosixPath, Row]]:
    """Yield each picture that a file or folder names, with what is said of it: once, but for
    tables and records of one row per object.

    Args:
        path, files, spec, roots, partial: as of `tags_of_file`.
        flag: which names the path, for errors.
        outlines: whether regions are needed too.

    Raises UserError as `tags_of_file` does, but for classes.
    """
    try:
        rows, usually = rows_of(path, spec.classes, outlines)

        yield from _matched(path, rows, Pictures(files, roots, path), partial or usually)
    except FileNotFoundError:
        raise UserError(f"{flag} {path} does not exist; give {FORMS}") from None
    except (OSError, RecursionError) as error:
        raise UserError(f"{flag} {path} cannot be read ({error}); give {FORMS}") from None


def _matched(
    path: Path, rows: Iterator[Row], pictures: Pictures, partial: bool
) -> Iterator[tuple[PurePosixPath, Row]]:
    seen: dict[PurePosixPath, str] = {}
    repeated: set[PurePosixPath] = set()
    elsewhere: list[str] = []
    for file, name, row in _named(rows, pictures, partial, elsewhere):
        if file in seen and not row.more:
            raise UserError(
                f"{row.place} lists {name!r} a second time, after {seen[file]}; keep one of them, "
                "with all that is said of it"
            )
        if file in seen:
            repeated.add(file)
        seen[file] = row.place
        yield file, row

    if not seen and elsewhere:
        raise UserError(
            f"{path} lists no picture of these, but {len(elsewhere)} others, first "
            f"{elsewhere[0]!r}; give the pictures that it was made of{misread(elsewhere[0])}"
        )
    if not seen:
        raise UserError(
            f"{path} lists no picture; write one per line below the header, or annotate some where "
            "it comes from"
        )
    if repeated:
        say_once(
            f"repeated {path}",
            f"{len(repeated)} pictures of {path} have several rows, and the classes of all of them",
        )
    if elsewhere:
        say_once(
            f"elsewhere {path}",
            f"{len(elsewhere)} pictures of {path} are not among these, and left out",
        )


def _named(
    rows: Iterator[Row], pictures: Pictures, partial: bool, elsewhere: list[str]
) -> Iterator[tuple[PurePosixPath, str, Row]]:
    """Yield the picture of each row, and the name that means it; names of rows that are of no
    picture here are added to `elsewhere`, if `partial` allows them.

    Of pictures that differ in their suffix alone, `a` means the one that no row names in full: so
    are predictions and exports of this project named.
    """
    named: set[PurePosixPath] = set()
    twins: list[tuple[list[PurePosixPath], str, Row]] = []
    for row in rows:
        below = next(iter(row.called), "")
        found = [pictures.find(name, below, _is_shortened(name, row.called)) for name in row.called]
        # looser names of a picture that lies elsewhere may fit one of these
        if partial and (pictures.is_beside(below) or not any(found)):
            elsewhere += row.called[-1:] or (row.place,)
            continue

        sizes = [len(files) for files in found]
        best = next((n for n, size in enumerate(sizes) if size == 1), None)
        if best is None:
            best = next((n for n, size in enumerate(sizes) if size), 0)
        files, name = found[best], row.called[best]
        if _are_twins(files) and not row.more:
            twins.append((files, name, row))
            continue

        file = pictures.the_one(files, name, row.place)
        named.add(file)
        yield file, name, row

    for files, name, row in twins:
        left = [file for file in files if file not in named]
        if len(left) != 1:
            left = files
        yield pictures.the_one(left, name, row.place), name, row


def _is_shortened(name: str, called: Sequence[str]) -> bool:
    """Tell whether a name is the last part of another one, rather than a path of its own."""
    return called.count(name) == 1 and any(other.endswith(f"/{name}") for other in called)


def _are_twins(files: Sequence[PurePosixPath]) -> bool:
    """Tell whether there are several pictures, which differ in their suffix alone."""
    return len(files) > 1 and len({file.with_suffix("") for file in files}) == 1


def class_of(word: str, spec: DatasetSpec, place: str) -> str:
    """Return the class that a word names, whatever its case, _ and -; empty for `background` and
    for labels of what does not count.

    Raises UserError naming the place where it is none.
    """
    name = unicodedata.normalize("NFC", word)
    if name in spec.classes:
        return name

    alike = [known for known in spec.classes if key_of(known) == key_of(name)]
    if len(alike) == 1:
        return alike[0]
    if key_of(name) == NOTHING or is_ignored(name):
        return ""

    hint = nearest(word, spec.classes) or "; add it to the class list, or take it away"
    raise UserError(f"{place} has the tag {word!r}, which is no class{hint}")


def is_ignored(word: str) -> bool:
    """Tell whether tools mean pixels that do not count by this label."""
    return key_of(word) in _IGNORED
