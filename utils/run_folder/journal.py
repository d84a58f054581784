"""`images.jsonl` of a run folder: what prediction has finished, so that the same command goes on
where it stopped.

The first line is the header, {"format": 1, "checkpoint": SHA-256, "options": {all that changes what
is predicted}}. One line per image follows, appended when its files are whole: {"name", "image":
path, "mask": path or null, "size": [h, w], "results": {title: [[truth, predicted, pixels], ...]},
"pixels": {label: pixels} of the final result, "files": [path in the run folder, ...], "changed":
stamp of image and mask}. An image that could not be read has "error" and no result. Process r > 0
of several appends to `images-r.jsonl`. Of ten million images it has some gigabytes: it is read line
by line and never held.

A line that is no whole entry, as an interrupt or an editor may leave it, counts as not written: its
image is predicted again.
"""

import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from datasets.lists import Item, Items
from utils.common.files import written_whole

FORMAT = 1
FILE = "images.jsonl"
Entry = dict[str, Any]

# What must be in the two kinds of lines, and of which kind it is.
HEADER = {"format": int, "checkpoint": str, "options": dict}
ENTRY = {
    "name": str,
    "image": str,
    "mask": str | None,
    "size": list,
    "results": dict,
    "pixels": dict,
    "files": list,
    "changed": list,
}


class Entries(Iterable[Entry]):
    """The entries of a run folder, one per image, read anew from its journal each time they are
    gone through; none where there is no journal.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __iter__(self) -> Iterator[Entry]:
        seen: set[str] = set()
        for entry in _entries(self._folder):
            if entry["name"] not in seen:
                seen.add(entry["name"])
                yield entry

    def by_name(self) -> Iterator[Entry]:
        """Yield the same entries in the order of their names, of which alone memory grows."""
        paths = _files(self._folder)
        places: dict[str, tuple[int, int]] = {}
        for number, path in enumerate(paths):
            for start, entry in _placed_entries(path):
                places.setdefault(entry["name"], (number, start))

        with ExitStack() as stack:
            files = [stack.enter_context(path.open("rb")) for path in paths]
            for name in sorted(places):
                number, start = places[name]
                files[number].seek(start)
                yield _object(files[number].readline())

    def __bool__(self) -> bool:
        return any(True for _ in self)


def read_journal(folder: Path) -> tuple[dict[str, Any], Entries]:
    """Read header and entries of a run folder; an empty header where none can be read."""
    _, header = next(_objects(folder / FILE), (0, {}))
    if not _is_of(HEADER, header):
        header = {}
    return header, Entries(folder)


def unfinished(folder: Path, images: Items) -> Items:
    """Return those images that have no entry in the journal of a run folder."""
    finished = {entry["name"] for entry in Entries(folder)}
    return images.at([place for place, name in enumerate(images.names) if name not in finished])


def begin(
    folder: Path,
    checkpoint: str,
    options: dict[str, Any],
    items: Items,
    holds: Callable[[Entry], bool] = lambda _: True,
) -> str:
    """Start or continue the journal of a folder; keep the entries of `items` that are still valid
    and for which `holds`.

    Returns what became of a former journal, as a sentence for the user; empty where there was none.
    """
    header = {"format": FORMAT, "checkpoint": checkpoint, "options": options}
    began = (folder / FILE).is_file()
    former, _ = read_journal(folder)
    other = _difference(former, header)
    kept = 0
    if other:  # before the new header, which these entries would seem to belong to
        _remove_parts(folder)
    with written_whole(folder / FILE) as file:
        file.write(_line(header).encode())
        if not other:
            for entry in filter(holds, _valid(folder, items)):
                file.write(_line(entry).encode())
                kept += 1

    _remove_parts(folder)
    if not began:
        return ""
    if other:
        return f"{folder / FILE} was made with {other}: every image is predicted anew"

    return (
        f"{kept} of {len(items)} images are finished already; delete {folder / FILE} to "
        "predict them again"
    )


def _remove_parts(folder: Path) -> None:
    """Remove what processes but the first have appended."""
    for part in folder.glob("images-*.jsonl"):
        part.unlink()


class Journal:
    """Appends entries of one process; each is on its way to the disk when `add` returns."""

    def __init__(self, folder: Path, rank: int = 0) -> None:
        name = FILE
        if rank:
            name = f"images-{rank}.jsonl"
        self._file = (folder / name).open("a", encoding="utf-8")

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, entry: Entry) -> None:
        """Append one entry."""
        self._file.write(_line(entry))
        self._file.flush()


def stamp(item: Item) -> list[int]:
    """Return when image and mask were last written, ns; a file that is gone counts 0."""
    files = [file for file in (item.image, item.mask) if file is not None]
    return [_changed(file) for file in files]


def _changed(file: Path) -> int:
    if not file.exists():
        return 0
    return file.stat().st_mtime_ns


def _difference(former: dict[str, Any], header: dict[str, Any]) -> str:
    """Say what differs; empty where nothing does."""
    if not former:
        return "settings that cannot be read"
    if former["format"] != FORMAT:
        return f"format {former['format']}"
    if former["checkpoint"] != header["checkpoint"]:
        return "another checkpoint"

    then = former["options"]
    now = header["options"]
    names = [name for name in {**now, **then} if then.get(name) != now.get(name)]
    if not names:
        return ""
    return f"other settings ({', '.join(names)})"


def _valid(folder: Path, items: Items) -> Iterator[Entry]:
    """Yield the entries of a journal, one per image, that still tell of one of the items."""
    places = {name: place for place, name in enumerate(items.names)}
    for entry in _entries(folder):
        place = places.get(entry["name"])
        if place is not None and _done(folder, entry, items[place]):
            del places[entry["name"]]
            yield entry


def _done(folder: Path, entry: Entry, item: Item) -> bool:
    """Return whether the entry tells of this very item and the files that were written for it are
    there.
    """
    same = entry["image"] == str(item.image) and entry["mask"] == (item.mask and str(item.mask))
    whole = "error" not in entry and all((folder / file).is_file() for file in entry["files"])
    return same and whole and entry["changed"] == stamp(item)


def _line(content: dict[str, Any]) -> str:
    return json.dumps(content, separators=(",", ":")) + "\n"


def _files(folder: Path) -> list[Path]:
    """Return the files of a journal that are there."""
    files = (folder / FILE, *sorted(folder.glob("images-*.jsonl")))
    return [file for file in files if file.is_file()]


def _entries(folder: Path) -> Iterator[Entry]:
    """Yield the entries of all files of a journal; of an image there may be several."""
    for path in _files(folder):
        yield from (entry for _, entry in _placed_entries(path))


def _placed_entries(path: Path) -> Iterator[tuple[int, Entry]]:
    """Yield the entries of one file of a journal, each with the byte at which it begins."""
    return ((start, content) for start, content in _objects(path) if _is_entry(content))


def _objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the JSON objects of a file, one per line, each with the byte at which it begins; none
    where there is no file.
    """
    if not path.is_file():
        return

    start = 0
    with path.open("rb") as file:
        for line in file:
            if content := _object(line):
                yield start, content
            start += len(line)


def _object(line: bytes) -> dict[str, Any]:
    """Return the JSON object of a line; an empty one where it holds no whole one."""
    try:
        content = json.loads(line.decode(errors="replace"))
    except (ValueError, RecursionError):
        return {}
    if not isinstance(content, dict):
        return {}
    return content


def _is_entry(content: dict[str, Any]) -> bool:
    """Return whether an object has all that an entry has, each of its kind."""
    return (
        _is_of(ENTRY, content)
        and len(content["size"]) == 2
        and _are(int, content["size"])
        and _are(str, content["files"])
        and _are(int, content["changed"])
        and _are(int, content["pixels"].values())
        and _are(list, content["results"].values())
        and all(map(_are_counts, content["results"].values()))
        and isinstance(content.get("tags", []), list)
        and _are(str, content.get("tags", []))
    )


def _are_counts(pairs: list) -> bool:
    """Return whether a list is one of [truth, predicted, pixels]."""
    return (
        _are(list, pairs)
        and set(map(len, pairs)) <= {3}
        and _are(int, itertools.chain.from_iterable(pairs))
    )


def _are(kind: type, values: Iterable[Any]) -> bool:
    """Return whether all values are of one kind."""
    return set(map(type, values)) <= {kind}


def _is_of(form: dict[str, Any], content: dict[str, Any]) -> bool:
    """Return whether an object has every key of a form, with a value of its kind."""
    return all(isinstance(content.get(key, ...), kind) for key, kind in form.items())
