"""The one walk over a folder of pictures or masks: what is found below it, and what is left out and
why.
"""

import glob
import importlib.util
import itertools
import os
import unicodedata
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path

from PIL import features

from utils.common.errors import UserError

_ALWAYS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo", ".png", ".apng", ".bmp", ".dib"),
    *(".tif", ".tiff", ".gif", ".ppm", ".pgm", ".pbm", ".pnm", ".tga"),
)
# Suffixes that need a part of Pillow or a plugin: whether it is there, and what to do if not.
_NEW_PILLOW = "a newer Pillow reads it: `pip install --upgrade pillow`"
_SOMETIMES: dict[tuple[str, ...], tuple[Callable[[], bool], str]] = {
    (".webp",): (lambda: bool(features.check("webp")), _NEW_PILLOW),
    (".avif",): (lambda: "avif" in features.modules and bool(features.check("avif")), _NEW_PILLOW),
    (".jp2", ".j2k", ".jpx", ".j2c"): (lambda: bool(features.check("jpg_2000")), _NEW_PILLOW),
    (".heic", ".heif", ".hif"): (
        lambda: importlib.util.find_spec("pillow_heif") is not None,
        "HEIC needs a plugin: `pip install pillow-heif`",
    ),
}
_RAW = (".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".raf")
# Pictures that no library here reads; said, so that nobody misses them later.
_NEVER = (*_RAW, ".psd", ".svg", ".eps", ".pdf", ".jxl", ".mp4", ".mov", ".avi", ".mkv")

# Reasons to leave a file or folder out.
HIDDEN = "hidden"
RUBBISH = "thumbnails and what systems leave"
OUTPUTS = "folders of results or masks"
AGAIN = "links to a folder that is there already"
MASKS = "masks of a picture beside them"
DEAD = "links to nothing"
CLOSED = "folders that cannot be listed"
FOREIGN = "other formats"

MASK_MARKS = ("_mask", "-mask", "_label", "_labels", "_seg", "_gt")  # ends of names of masks
_RUBBISH = {
    *("__macosx", "@eadir", "#recycle", "$recycle.bin", "lost+found", "__pycache__"),
    *("system volume information", "thumbnails", "thumbs.db", "desktop.ini"),
}
_OUTPUTS = {"prediction", "prediction_cmap"}  # by name alone; the others in a run folder
_MORE_OUTPUTS = {"overlay", "logits", "panels", "pictures", "pseudo_labels", "seeds"}
# What a folder that this project wrote holds, all of one line: of prediction, training, export.
_RUN_SIGNS = (
    ("images.jsonl",),
    ("checkpoints", "config.yaml"),
    ("seeds", "pseudo_labels", "export.json"),
    ("prediction", "prediction_cmap"),
)


@dataclass
class Found:
    """Files of a walk in the order of their paths, and what was left out, by reason."""

    files: list[Path] = field(default_factory=list)
    left_out: dict[str, list[Path]] = field(default_factory=dict)

    def leave(self, reason: str, path: Path) -> None:
        """Keep a path as left out."""
        self.left_out.setdefault(reason, []).append(path)

    def explanation(self) -> str:
        """Return what was left out, in words; empty if nothing was."""
        said = (
            f"{len(paths)} {reason} (first {paths[0].name})"
            for reason, paths in self.left_out.items()
        )
        return "; ".join(said)


@cache
def picture_suffixes() -> tuple[str, ...]:
    """Return the suffixes, in lower case, of the pictures that the installed libraries read."""
    more = (suffix for group, (there, _) in _SOMETIMES.items() if there() for suffix in group)
    return (*_ALWAYS, *more)


def without_suffix(path: str) -> str:
    """Return a path without its suffix, if that is a picture's."""
    stem, dot, suffix = path.rpartition(".")
    if stem and dot and f".{suffix.lower()}" in picture_suffixes():
        return stem
    return path


def files_below(folder: Path, suffixes: Iterable[str] = (), outside: Iterable[Path] = ()) -> Found:
    """Return the files with one of the suffixes, whatever their case, in a folder and those below
    it.

    Links are followed, each folder being walked once, under its own name rather than a link's.
    Hidden files and folders, thumbnails, what systems leave behind, folders that this project
    writes, and those of `outside` are left out; the folder itself may be any.

    Args:
        folder: where to start.
        suffixes: in lower case; by default those of pictures.
        outside: folders that are not entered.
    """
    wanted = tuple(suffixes) or picture_suffixes()
    found = Found()
    closed = {_identity(path) for path in outside} - {_identity(folder)}
    walked: set[tuple[int, int] | str] = set()
    waiting = deque([folder])
    linked: deque[Path] = deque()

    while waiting or linked:
        # Links last, so that what they lead to keeps its own name where it lies in the folder too.
        here = (waiting or linked).popleft()
        identity = _identity(here)
        if identity in closed:
            found.leave(OUTPUTS, here)
            continue
        if identity in walked:
            found.leave(AGAIN, here)
            continue

        walked.add(identity)
        for entry in _entries(here, found):
            _sort_in(entry, wanted, found, waiting, linked)

    found.files.sort()
    if not suffixes:
        _leave_masks(found)

    return found


def label_files(folder: Path, flag: str) -> dict[str, Path]:
    """Find the PNGs in and below a folder as `files_by_name` does."""
    return files_by_name(folder, flag, {".png": "PNG"}, "label PNGs")


def files_by_name(
    folder: Path, flag: str, suffixes: Mapping[str, str], what: str
) -> dict[str, Path]:
    """Find the files with one of the suffixes in and below a folder, by path without suffix,
    letters with marks composed. suffixes: as in `files_below`, each with what a message calls it.

    Raises UserError naming the flag where there are none, or two of one name.
    """
    if not folder.is_dir():
        raise UserError(f"{flag} {folder} is not a folder; give a folder of {what}")

    below = files_below(folder, suffixes)
    if not below.files:
        said = below.explanation()
        if said:
            said = f" but {said}"
        kinds = " or ".join(suffixes.values())
        raise UserError(f"{flag} {folder} holds no {kinds}{said}; give a folder of {what}")

    found: dict[str, Path] = {}
    for file in below.files:
        name = file.relative_to(folder).with_suffix("").as_posix()
        if name in found:
            raise UserError(f"{found[name]} and {file} are both of {name}; keep one")
        found[name] = file

    for name in list(found):
        composed = unicodedata.normalize("NFC", name)
        if composed not in found:
            found[composed] = found.pop(name)
    return found


def _leave_masks(found: Found) -> None:
    """Leave out a_mask.png beside a.jpg: a person sees that it is none of the pictures."""
    stems = {path.with_suffix("") for path in found.files}
    for path in found.files:
        mark = next((mark for mark in MASK_MARKS if path.stem.endswith(mark)), None)
        if mark and path.with_name(path.stem.removesuffix(mark)) in stems:
            found.leave(MASKS, path)
    left = set(found.left_out.get(MASKS, ()))
    found.files = [path for path in found.files if path not in left]


def _identity(path: Path) -> tuple[int, int] | str:
    """Return what two names of one folder share."""
    try:
        status = path.stat()
    except OSError:
        return str(path)
    if status.st_ino:
        return (status.st_dev, status.st_ino)
    return os.path.realpath(path)


def _entries(folder: Path, found: Found) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError:
        found.leave(CLOSED, folder)
        return []


def _sort_in(
    entry: os.DirEntry[str],
    wanted: tuple[str, ...],
    found: Found,
    waiting: deque[Path],
    linked: deque[Path],
) -> None:
    """Put one entry of a folder where it belongs: found, to be walked, or left out."""
    path = Path(entry.path)
    suffix = os.path.splitext(entry.name)[1].lower()
    is_folder = _answers(entry.is_dir)
    reason = _reason(path, is_folder)

    if reason and (is_folder or suffix in wanted):
        found.leave(reason, path)
    elif reason:
        return
    elif is_folder and entry.is_symlink():
        linked.append(path)
    elif is_folder:
        waiting.append(path)
    elif _answers(entry.is_file):
        if suffix in wanted:
            found.files.append(path)
        elif why := _unread(suffix):
            found.leave(why, path)
    elif entry.is_symlink():
        found.leave(DEAD, path)


def _answers(ask: Callable[[], bool]) -> bool:
    """Return what the file system says; False where it refuses, as of links that lead to
    themselves.
    """
    try:
        return ask()
    except OSError:
        return False


def _reason(path: Path, is_folder: bool) -> str:
    """Tell why a file or folder is left out, by its name and what lies beside it; empty if it is
    not.
    """
    name = path.name.lower()
    if name in _RUBBISH:
        return RUBBISH
    if name.startswith("."):
        return HIDDEN
    if is_folder and _is_output(path, name):
        return OUTPUTS
    return ""


def _is_output(folder: Path, name: str) -> bool:
    return name in _OUTPUTS or (name in _MORE_OUTPUTS and _is_run(folder.parent)) or _is_run(folder)


@lru_cache(maxsize=256)
def _is_run(folder: Path) -> bool:
    return any(all((folder / name).exists() for name in signs) for signs in _RUN_SIGNS)


def _unread(suffix: str) -> str:
    """Tell why a picture of this suffix is not read; empty for what is no picture."""
    for group, (_, remedy) in _SOMETIMES.items():
        if suffix in group and suffix not in picture_suffixes():
            return f"{suffix}: {remedy}"
    if suffix in _NEVER:
        return FOREIGN
    return ""


def matching(pattern: str) -> Found:
    """Return the files and folders that a pattern such as 'photos/**/*.jpg' names, less those that
    `files_below` leaves out.

    Brackets that are part of names are taken for themselves where they match nothing otherwise.
    """
    found = Found()
    for spelt in (pattern, pattern.replace("[", "[[]")):
        parts = Path(spelt).parts
        root = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), parts))
        for path in map(Path, sorted(glob.glob(spelt, recursive=True))):
            reason = _reason_on_the_way(root, path)
            if reason:
                found.leave(reason, path)
            else:
                found.files.append(path)
        if found.files or found.left_out:
            break

    return found


def _reason_on_the_way(root: Path, path: Path) -> str:
    """Tell why one of the folders below `root` on the way to a file, or the file itself, is left
    out.
    """
    way = [path, *path.parents]
    below = way[:1]
    if root in way:
        below = way[: way.index(root)]
    return next((why for step in below if (why := _reason(step, step.is_dir()))), "")
