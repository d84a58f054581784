"""Pictures found by what people and tools call them: paths of any system, names without suffix; and
those that an export says lie elsewhere.
"""

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePath, PurePosixPath
from urllib.parse import unquote

from datasets.folders import without_suffix
from utils.common.errors import UserError, nearest

# How tools rename what is uploaded: Label Studio 1a2b3c4d-NAME, Roboflow NAME_jpg.rf.HASH.
_RENAMED = (
    re.compile(r"^[0-9a-f]{8}-(?P<name>.+)$"),
    re.compile(r"^(?P<name>.+)_[a-z0-9]{2,4}\.rf\.[0-9a-z]{8,64}$", re.IGNORECASE),
)
_ELSEWHERE = re.compile(r"^(?:[a-z][a-z0-9+.-]*://[^/]*/|[a-z]:/|/)", re.IGNORECASE)


def misread(called: str) -> str:
    """Return what to do where a name may be of a text in another encoding than it was read in; any
    bytes are some letters in Windows's Western one. Empty for plain letters.
    """
    if called.isascii():
        return ""
    return "; if these are not the letters that you wrote, save the file as UTF-8"


def picture_parts(address: str) -> list[str]:
    """Return what may name a picture in an address with a query, as in a.jpg?raw=true or ?d=a.jpg:
    its path and the values of the query, as far as they end as pictures do.
    """
    path, _, query = address.partition("?")
    values = (part.partition("=")[2] for part in query.split("&"))
    return [part for part in (path, *values) if without_suffix(part) != part]


class Pictures:
    """Pictures of one folder by relative path, and by what else names them."""

    def __init__(
        self,
        files: Sequence[PurePosixPath],
        roots: Iterable[Path] = (),
        export: Path | None = None,
    ) -> None:
        """files: paths relative to a folder. roots: folders whose name may begin a path. export:
        file or folder that names pictures, by paths below its folder.
        """
        roots = list(roots)
        self._beside = _Beside(export, roots) if export else None
        self._exact = {_key(str(file)): file for file in files}
        self._bare: dict[str, list[PurePosixPath]] = {}
        self._loose: dict[str, list[PurePosixPath]] = {}
        self._any_case: dict[str, list[PurePosixPath]] = {}
        self._slugs: dict[str, list[PurePosixPath]] = {}
        self._roots = {"images", *(root.resolve().name for root in roots)}

        for file in files:
            self._bare.setdefault(_key(without_suffix(str(file))), []).append(file)
            self._slugs.setdefault(_slug(without_suffix(file.name)), []).append(file)
            for called in {without_suffix(str(file)), file.name, without_suffix(file.name)}:
                self._loose.setdefault(_key(called), []).append(file)
            for called in {str(file), file.name}:
                self._any_case.setdefault(_key(called).casefold(), []).append(file)

    def named(self, called: str, place: str) -> PurePosixPath:
        """Return the picture called so. Raises UserError as `the_one` does."""
        return self.the_one(self.find(called), called, place)

    def the_one(self, found: Sequence[PurePosixPath], called: str, place: str) -> PurePosixPath:
        """Return the only picture of those found by a name. Raises UserError naming the place if
        there is none, or more than one.
        """
        if len(found) > 1:
            raise UserError(
                f"{place}: {called!r} may be {found[0]} or {found[1]}; write the path below "
                "--images"
            )
        if not found:
            hint = nearest(_key(called), list(self._exact)) or "; write its path below --images"
            raise UserError(
                f"{place}: {called!r} is no picture below --images{hint}{misread(called)}"
            )
        return found[0]

    def is_beside(self, called: str) -> bool:
        """Tell whether this is the path, in the export, of a picture that lies beside the folders
        of these, as in another split. A file name alone says nothing of where a picture lies.
        """
        key = _key(called).replace("\\", "/")
        return self._beside is not None and key not in self._exact and self._beside.has(key)

    def find(self, called: str, path: str = "", anywhere: bool = False) -> list[PurePosixPath]:
        """Return all pictures that may be meant, by the whole name, or by a part of an address.

        path: what else is known of where the picture lies, as `val/Annotations/a`: of pictures in
        folders that differ in one name alone, it means the one whose name it has. anywhere: the
        name is not known to be a path, so that without suffix it means pictures of any folder.
        """
        if self.is_beside(called):
            return []
        key = _key(called)
        names = dict.fromkeys((key, *picture_parts(key)))
        found = next(filter(None, (self._called(name, anywhere) for name in names)), [])
        folders = set(_key(path).replace("\\", "/").split("/")[:-1]) - {"", ".", ".."}
        return [file for file in found if not self._is_another_meant(file, folders)]

    def _is_another_meant(self, file: PurePosixPath, folders: set[str]) -> bool:
        """Tell whether there is a picture of this name, here or beside, in a folder that differs in
        one name alone, which is one of `folders`.
        """
        if any(_key(other) in self._loose for other in _in_other_folders(file, folders)):
            return True
        return self._beside is not None and self._beside.is_meant(file, folders)

    def _called(self, key: str, anywhere: bool) -> list[PurePosixPath]:
        plain = _base(unquote(key))
        for candidate in dict.fromkeys((key, *self._tails(key.replace("\\", "/")))):
            if not candidate:
                continue
            if candidate in self._exact:
                return [self._exact[candidate]]
            if candidate in self._bare and not anywhere:  # before such names in other folders
                return self._bare[candidate]
            if "/" in candidate or candidate in (key, _base(key), plain):
                found = self._loose.get(candidate) or self._any_case.get(candidate.casefold())
                if found := found or self._by_stem(without_suffix(candidate)):
                    return found
        return self._renamed(without_suffix(plain))

    def _renamed(self, stem: str) -> list[PurePosixPath]:
        """Return pictures whose name a tool changed, which also changes spaces and other signs."""
        found = (pattern.match(stem) for pattern in _RENAMED)
        plain = next((match["name"] for match in found if match), "")
        if not plain:
            return []
        return self._slugs.get(_slug(without_suffix(plain)), [])

    def _by_stem(self, stem: str) -> list[PurePosixPath]:
        """Return pictures that are known without suffix."""
        return [
            file for file in self._loose.get(stem, ()) if without_suffix(file.name) == file.name
        ]

    def _tails(self, path: str) -> Iterator[str]:
        """Yield a path of any system as it may stand below the folder: whole, and without what
        leads to the folder elsewhere.
        """
        for spelt in dict.fromkeys((path, unquote(path).replace("\\", "/"))):
            elsewhere = _ELSEWHERE.match(spelt)
            plain = spelt
            if elsewhere:
                plain = spelt[elsewhere.end() :]

            parts = [part for part in plain.split("/") if part not in ("", ".")]
            if ".." in parts:
                return
            if not elsewhere:
                yield "/".join(parts)
            for n, part in enumerate(parts):
                if elsewhere:
                    yield "/".join(parts[n:])
                elif part in self._roots:
                    yield "/".join(parts[n + 1 :])


class _Beside:
    """The pictures of an export that lie beside the folder of one's own, where that is a part of
    the export, as one of its splits. Folders are listed when they are first asked for.
    """

    def __init__(self, export: Path, roots: Sequence[Path]) -> None:
        """export: file or folder of the annotations. roots: folders of one's own pictures."""
        folder = export if export.is_dir() else export.parent
        self._folder = folder.resolve()
        self._roots = {root.resolve() for root in roots}
        self._is_around = any(map(self._is_below, self._roots))
        self._listed: dict[str, set[str]] = {}

    def _is_below(self, root: Path) -> bool:
        return self._folder in root.parents

    def has(self, path: str) -> bool:
        """Tell whether a path below the export, perhaps without suffix, is one of them."""
        below, _, name = path.rpartition("/")
        if not self._is_around or not below:
            return False
        if below not in self._listed:
            self._listed[below] = set(self._names(below))
        return name in self._listed[below]

    def is_meant(self, file: PurePosixPath, folders: set[str]) -> bool:
        """Tell whether one of them has the path of one's own picture, but for one of `folders` in
        place of another one.
        """
        around = (root.relative_to(self._folder) for root in self._roots if self._is_below(root))
        return any(
            self.has(_key(other))
            for place in around
            for other in _in_other_folders(place / file, folders)
        )

    def _names(self, below: str) -> Iterator[str]:
        """Yield the names of pictures in one folder, with and without suffix; none where it is no
        other part of the export.
        """
        try:
            place = (self._folder / below).resolve()
            way = {place, *place.parents}
            if self._folder not in way or way & self._roots:
                return
            names = [_key(name) for name in os.listdir(place)]
        except (OSError, ValueError, RuntimeError):  # no folder, or no name of any
            return

        for name in names:
            if without_suffix(name) != name:
                yield name
                yield without_suffix(name)


def _in_other_folders(file: PurePath, folders: set[str]) -> Iterator[str]:
    """Yield the path of a picture, without suffix, with one of `folders` in place of each folder on
    the way to it that is none of them.
    """
    *way, name = PurePosixPath(without_suffix(file.as_posix())).parts
    for place, part in enumerate(way):
        if _key(part) not in folders:
            for other in sorted(folders):
                yield "/".join((*way[:place], other, *way[place + 1 :], name))


def _key(called: str) -> str:
    return unicodedata.normalize("NFC", called.strip())


def _base(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[2]


def _slug(name: str) -> str:
    return re.sub(r"[\W_]+", "-", _key(name).casefold())
