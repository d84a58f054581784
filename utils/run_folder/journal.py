"""`images.jsonl` of a run folder: what prediction has finished, so that the same command goes on
where it stopped.

The first line is the header, {"format": 1, "checkpoint": SHA-256, "options": {all that changes what
is predicted}}. One line per image follows, appended when its files are whole: {"name", "image":
path, "mask": path or null, "size": [h, w], "results": {title: [[truth, predicted, pixels], ...]},
"pixels": {label: pixels} of the final result, "files": [path in the run folder, ...], "changed":
stamp of image and mask}. An image that could not be read has "error" and no result. Process r > 0
of several appends to `images-r.jsonl`.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from datasets.layouts import Item
from utils.common.files import written_whole

FORMAT = 1
FILE = "images.jsonl"
Entry = dict[str, Any]


def read_journal(folder: Path) -> tuple[dict[str, Any], list[Entry]]:
    """Header and entries of a run folder, the latest of each image; ({}, []) where there are none.

    A line that is no whole JSON object, as an interrupt leaves it, counts as not written.
    """
    if not (folder / FILE).is_file():
        return {}, []
    header, *entries = _objects(folder / FILE) or [{}]
    for file in sorted(folder.glob("images-*.jsonl")):
        entries += _objects(file)
    return header, list({entry["name"]: entry for entry in entries if "name" in entry}.values())


def begin(
    folder: Path,
    checkpoint: str,
    options: dict[str, Any],
    items: Sequence[Item],
    holds: Callable[[Entry], bool] = lambda _: True,
) -> str:
    """Start or continue the journal of a folder; keep the entries of `items` that are still valid
    and for which `holds`.

    Returns what became of a former journal, as a sentence for the user; empty where there was none.
    """
    header = {"format": FORMAT, "checkpoint": checkpoint, "options": options}
    former, entries = read_journal(folder)
    other = _difference(former, header)
    known = {} if other else {item.name: item for item in items}
    kept = [
        entry
        for entry in entries
        if entry["name"] in known and holds(entry) and _done(folder, entry, known[entry["name"]])
    ]

    with written_whole(folder / FILE) as file:
        file.write("".join(map(_line, [header, *kept])).encode())

    for part in folder.glob("images-*.jsonl"):
        part.unlink()

    if not former:
        return ""
    if other:
        return f"{folder / FILE} was made with {other}: every image is predicted anew"

    return (
        f"{len(kept)} of {len(items)} images are finished already; delete {folder / FILE} to "
        "predict them again"
    )


class Journal:
    """Appends entries of one process; each is on its way to the disk when `add` returns."""

    def __init__(self, folder: Path, rank: int = 0) -> None:
        self._file = (folder / (f"images-{rank}.jsonl" if rank else FILE)).open(
            "a", encoding="utf-8"
        )

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, entry: Entry) -> None:
        """Append one entry."""
        self._file.write(_line(entry))
        self._file.flush()


def stamp(item: Item) -> list[int]:
    """When image and mask were last written, ns; a file that is gone counts 0."""
    files = [file for file in (item.image, item.mask) if file is not None]
    return [file.stat().st_mtime_ns if file.exists() else 0 for file in files]


def _difference(former: dict[str, Any], header: dict[str, Any]) -> str:
    """What differs, in words; empty where nothing does."""
    if former.get("checkpoint") != header["checkpoint"] or former.get("format") != FORMAT:
        return "another checkpoint"
    names = [
        name for name, value in header["options"].items() if former["options"].get(name) != value
    ]
    return f"other settings ({', '.join(names)})" if names else ""


def _done(folder: Path, entry: Entry, item: Item) -> bool:
    """Whether the entry tells of this very item and the files that were written for it are
    there.
    """
    same = entry["image"] == str(item.image) and entry["mask"] == (item.mask and str(item.mask))
    whole = "error" not in entry and all((folder / file).is_file() for file in entry["files"])
    return same and whole and entry["changed"] == stamp(item)


def _line(content: dict[str, Any]) -> str:
    return json.dumps(content, separators=(",", ":")) + "\n"


def _objects(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a file, one per line."""
    return list(
        filter(None, map(_object, path.read_text(encoding="utf-8", errors="replace").split("\n")))
    )


def _object(line: str) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
