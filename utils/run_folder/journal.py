"""The journal of a run folder as prediction writes it, so that the same command goes on where it
stopped: `images.jsonl`, whose form `datasets.predictions` tells.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from datasets.lists import Item, Items
from datasets.predictions import FILE, FORMAT, Entries, Entry, every_entry, read_journal
from utils.common.files import written_whole


def unfinished(folder: Path, images: Items) -> list[int]:
    """Return the places of those images that have no entry in the journal of a run folder."""
    finished = {entry["name"] for entry in Entries(folder)}
    return [place for place, name in enumerate(images.names) if name not in finished]


def begin(
    folder: Path,
    checkpoint: str,
    options: dict[str, Any],
    items: Items,
    holds: Callable[[Entry], bool] = lambda _: True,
    classes: Sequence[str] = (),
) -> str:
    """Start or continue the journal of a folder; keep the entries of `items` that are still valid
    and for which `holds`. `classes` are the names of its labels, background first.

    Returns what became of a former journal, as a sentence for the user; empty where there was none.
    """
    header = {
        "format": FORMAT,
        "checkpoint": checkpoint,
        "options": options,
        "classes": list(classes),
    }
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


def labelled_entry(item: Item, size: Sequence[int], files: list[str], tags: list[str]) -> Entry:
    """Return the entry of an image of size (H, W) whose files were made with tags, without
    results.
    """
    return {
        "name": item.name,
        "image": str(item.image),
        "mask": item.mask and str(item.mask),
        "size": list(size),
        "results": {},
        "pixels": {},
        "files": files,
        "changed": stamp(item),
        "tags": tags,
    }


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
    for entry in every_entry(folder):
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
