"""`images.jsonl` of a run folder: what prediction has finished, so that the same command goes on
where it stopped.

The first line is the header, {"format": 1, "checkpoint": SHA-256, "options": {all that changes what
is predicted}}. One line per image follows, appended when its files are whole: {"name", "image":
path, "mask": path or null, "size": [h, w], "results": {title: [[truth, predicted, pixels], ...]},
"pixels": {label: pixels} of the final result, "files": [path in the run folder, ...], "changed":
stamp of image and mask}. An image that could not be read has "error" and no result. Process r > 0
of several appends to `images-r.jsonl`. Of ten million images it has some gigabytes: it is read line
by line and never held.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from datasets.lists import Item, Items
from utils.common.files import written_whole

FORMAT = 1
FILE = "images.jsonl"
Entry = dict[str, Any]


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

    def __bool__(self) -> bool:
        return any(True for _ in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def read_journal(folder: Path) -> tuple[dict[str, Any], Entries]:
    """Read header and entries of a run folder; an empty header where there is none.

    A line that is no whole JSON object, as an interrupt leaves it, counts as not written.
    """
    return next(_objects(folder / FILE), {}), Entries(folder)


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
    former, _ = read_journal(folder)
    other = _difference(former, header)
    kept = 0
    if other:  # before the new header, which these entries would seem to belong to
        _remove_parts(folder)
    with written_whole(folder / FILE) as file:
        file.write(_line(header).encode())
        if former and not other:
            for entry in filter(holds, _valid(folder, items)):
                file.write(_line(entry).encode())
                kept += 1

    _remove_parts(folder)
    if not former:
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
    if former.get("checkpoint") != header["checkpoint"] or former.get("format") != FORMAT:
        return "another checkpoint"
    names = [
        name for name, value in header["options"].items() if former["options"].get(name) != value
    ]
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


def _entries(folder: Path) -> Iterator[Entry]:
    """Yield the entries of all files of a journal; of an image there may be several."""
    for path in (folder / FILE, *sorted(folder.glob("images-*.jsonl"))):
        yield from (entry for entry in _objects(path) if "name" in entry)


def _objects(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of a file, one per line; none where there is no file."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
        yield from filter(None, map(_object, file))


def _object(line: str) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except ValueError:
        return {}
    if not isinstance(content, dict):
        return {}
    return content
