"""Pictures of one's own, which belong to no data set: found by files, patterns and folders, and
given names that results can bear.
"""

import unicodedata
from collections.abc import Iterable, Sequence
from itertools import chain, count
from pathlib import Path, PurePosixPath

from datasets.folders import Found, files_below, matching, picture_suffixes
from datasets.lists import Items
from utils.common.console import say_once
from utils.common.errors import UserError

_LONGEST_PART = 200  # bytes of a file name; file systems allow 255, suffixes included


def pictures(paths: Iterable[str | Path], outside: Iterable[Path] = ()) -> Items:
    """List files, what patterns match, and all pictures below folders as items without masks, under
    the names of `picture_names`. What is left out of patterns and folders is said.

    `outside` are folders that are not entered. Raises UserError where a path is missing or a folder
    holds no picture.
    """
    found: dict[Path, PurePosixPath] = {}
    for given in paths:
        named = [Path(given)]
        if not named[0].exists():
            named = _matching(str(given))
        for path in named:
            if not path.is_dir():
                found[path] = PurePosixPath(path.name)
                continue
            for file in pictures_below(path, outside):
                found[file] = PurePosixPath(file.relative_to(path))

    names = picture_names(list(found.values()))
    return Items((name, str(file), "") for name, file in zip(names, found))


def _matching(pattern: str) -> list[Path]:
    """Return the pictures and folders that a pattern matches; other files if it matches nothing
    else.
    """
    found = matching(pattern)
    readable = picture_suffixes()
    wanted = [path for path in found.files if path.is_dir() or path.suffix.lower() in readable]
    if not found.files:
        said = found.explanation()
        rest = "; check its spelling"
        if said:
            rest = f" but {said}, which is left out; name it itself"
        raise UserError(f"--images {pattern} is no file, folder or pattern that matches any{rest}")

    _say_left_out(pattern, found)
    return wanted or found.files


def pictures_below(folder: Path, outside: Iterable[Path] = ()) -> list[Path]:
    """Return the pictures in a folder and those below it, sorted, as `files_below` finds them; what
    is left out is said. Raises UserError where there are none.
    """
    found = files_below(folder, outside=outside)
    if not found.files:
        said = found.explanation() or f"it may end in {' '.join(picture_suffixes())}"
        raise UserError(f"--images {folder} holds no picture ({said}); give another folder")
    _say_left_out(folder, found)
    return found.files


def _say_left_out(place: str | Path, found: Found) -> None:
    if said := found.explanation():
        say_once(f"left out of {place}", f"left out of {place}: {said}")


def picture_names(files: Sequence[PurePosixPath]) -> list[str]:
    """Return a name for each relative path: the path without its suffix, fit to name an output file
    on any file system.

    Characters that some system refuses become "_", over-long parts are cut. Where a name is taken
    already, ignoring case, the suffix is kept, and if that does not help, a number is added.
    """
    taken: set[str] = set()
    names = []
    for file in files:
        short, full = (
            "/".join(_usable_part(part) for part in path.parts)
            for path in (file.with_suffix(""), file)
        )
        candidates = chain((short, full), (f"{full} ({number})" for number in count(2)))
        name = next(name for name in candidates if name.casefold() not in taken)
        taken.add(name.casefold())
        names.append(name)

    return names


def _usable_part(part: str) -> str:
    """Return one part of a path without what Windows, macOS or a list file cannot hold."""
    part = unicodedata.normalize("NFC", part)
    part = "".join("_" if c in '<>:"\\|?*' or not c.isprintable() else c for c in part)
    return part.encode()[:_LONGEST_PART].decode(errors="ignore").strip(" .") or "_"
