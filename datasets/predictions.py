"""What a run folder tells of its predictions: `images.jsonl`, their journal, as it is read;
`utils.run_folder.journal` writes it.

The first line is the header, {"format": 1, "checkpoint": SHA-256, "options": {all that changes what
is predicted}, "classes": [name of label 0, 1, ...], not in older ones}. One line per image follows,
appended when its files are whole: {"name", "image": path, "mask": path or null, "size": [h, w],
"results": {title: [[truth, predicted, pixels], ...]}, "pixels": {label: pixels} of the final
result, "files": [path in the run folder, ...], "changed": stamp of image and mask}. An image that
could not be read has "error" and no result. Process r > 0 of several appends to `images-r.jsonl`.
Of ten million images it has some gigabytes: it is read line by line and never held.

A line that is no whole entry, as an interrupt or an editor may leave it, or one that counts labels
outside the classes (`is_of_classes`), counts as not written: its image is predicted again.
"""

import functools
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from datasets.classes import CLASSES, read_classes
from datasets.folders import label_files
from datasets.specs import IGNORE
from datasets.tables import key_of
from utils.common.errors import UserError

FORMAT = 1
FILE = "images.jsonl"
PREDICTION = "prediction"  # folder of label PNGs beside it
LABELLED = "labelled"  # folder in a run's for the journal of its pseudo labels, apart from a test's
PSEUDO_LABELS = "pseudo_labels"  # folder of label PNGs of an export, or a run that ends with them
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
        for entry in every_entry(self._folder):
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


def every_entry(folder: Path) -> Iterator[Entry]:
    """Yield the entries of all files of a journal; of an image there may be several."""
    for path in _files(folder):
        yield from (entry for _, entry in _placed_entries(path))


def is_of_classes(entry: Entry, labels: int) -> bool:
    """Return whether an entry counts labels 0..labels-1 alone, and 255 in the final result, rather
    than some that no label map of these classes has.
    """
    counted = (pair[:2] for pairs in entry["results"].values() for pair in pairs)
    return entry["pixels"].keys() <= _numbers(labels) and all(
        0 <= label < labels for label in itertools.chain.from_iterable(counted)
    )


@functools.cache
def _numbers(labels: int) -> frozenset[str]:
    """Return labels 0..labels-1 and 255 as the keys of an entry, made once for all entries."""
    return frozenset(str(label) for label in (*range(labels), IGNORE))


def told_files(folder: Path, flag: str) -> dict[str, Path]:
    """Find the label PNGs of a folder, by path without suffix; of a prediction those alone that its
    last run tells, not what an earlier one left beside them. Says which are left out.

    Raises UserError naming the flag where there are none.
    """
    files = label_files(folder, flag)
    entries = Entries(folder.parent)
    if folder.name != PREDICTION or not entries:
        return files

    told = {entry["name"] for entry in entries if "error" not in entry}
    if former := [name for name in files if name not in told]:
        print(
            f"{len(former)} of {len(files)} label maps in {folder} are left out, as the last run "
            f"into {folder.parent} made none of their names, the first is {files[former[0]].name}"
        )
    return {name: file for name, file in files.items() if name in told}


def check_order(folder: Path, names: Sequence[str]) -> None:
    """Raise UserError where a prediction, or the class list beside label maps, gives a class
    another label than its place in `names`, of labels 0, 1, ... Other names may differ, as those of
    classes that were renamed.
    """
    told = _told_order(folder)
    places = {key_of(name): label for label, name in enumerate(names)}
    for label, name in enumerate(map(str, told)):
        if (here := places.get(key_of(name), label)) != label:
            raise UserError(
                f"{folder} was made with {name!r} as label {label}, and here it is label {here}; "
                f"name the classes in this order: {', '.join(map(str, told[1:]))}"
            )


def _told_order(folder: Path) -> Sequence[str]:
    """Return the names of labels 0, 1, ... that a folder of label maps tells; none if it does not.

    `utils.tools.convert` writes a class list beside them.
    """
    if folder.name in (PREDICTION, PSEUDO_LABELS):
        journals = [folder.parent]
        if folder.name == PSEUDO_LABELS:  # of an export, or of a run that trains nothing
            journals.insert(0, folder.parent / LABELLED)

        heads = [read_journal(place)[0] for place in journals]
        told = next((head["classes"] for head in heads if head.get("classes")), ())
        return told if isinstance(told, list) else ()

    listed = folder / CLASSES
    if not listed.is_file():
        return ()
    try:
        return read_classes(listed).label_names
    except UserError:  # another's file of that name
        return ()


def _files(folder: Path) -> list[Path]:
    """Return the files of a journal that are there."""
    files = (folder / FILE, *sorted(folder.glob("images-*.jsonl")))
    return [file for file in files if file.is_file()]


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
        and _fit_the_size(content)
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


def _fit_the_size(content: dict[str, Any]) -> bool:
    """Return whether no result of an entry has more pixels than its image, or fewer than none."""
    height, width = content["size"]
    results = ([pixels for *_, pixels in pairs] for pairs in content["results"].values())
    return min(height, width) >= 0 and all(
        min(counts, default=0) >= 0 and sum(counts) <= height * width
        for counts in (content["pixels"].values(), *results)
    )


def _are(kind: type, values: Iterable[Any]) -> bool:
    """Return whether all values are of one kind."""
    return set(map(type, values)) <= {kind}


def _is_of(form: dict[str, Any], content: dict[str, Any]) -> bool:
    """Return whether an object has every key of a form, with a value of its kind."""
    return all(isinstance(content.get(key, ...), kind) for key, kind in form.items())
