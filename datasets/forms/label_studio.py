"""Label Studio's own JSON: tasks with their annotations, and JSON-MIN, a record per annotation."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import numpy as np

from datasets.folders import picture_suffixes
from datasets.forms.brush import brush_pixels
from datasets.forms.shapes import ellipse, outline, patch
from datasets.rows import IGNORED, Pixels, Region, Row, row_of
from datasets.tables import key_of
from utils.common.console import say_once
from utils.common.errors import UserError

_DONE = ("annotations", "completions")  # of today, and before version 1.0
_MIN = ("annotation_id", "annotator", "lead_time")
_OUTLINES = ("points", "radiusX", "rle")  # what values of results with pixels have


class _Done(NamedTuple):
    """What one annotation of a picture says: its regions, the answers chosen by question, and the
    picture's (height, width) where the regions tell one.
    """

    regions: list[Region]
    chosen: dict[str, set[str]]
    size: tuple[int, int] | None


def is_tasks(content: Any) -> bool:
    """Tell whether a JSON's content is of the whole form."""
    return any("data" in task and any(key in task for key in _DONE) for task in _records(content))


def is_min(content: Any) -> bool:
    """Tell whether a JSON's content is JSON-MIN."""
    return any(key in record for record in _records(content) for key in _MIN)


def _records(content: Any) -> list[dict]:
    if not isinstance(content, list):
        return []
    return [record for record in content if isinstance(record, dict)]


def read_tasks(path: Path, content: list, classes: Sequence[str]) -> Iterator[Row]:
    """Yield the tasks that were worked on; of several annotations the one marked as ground truth,
    else the last. Raises UserError where a task is malformed.
    """
    tasks: list[tuple[str, list[str], _Done]] = []
    for number, task in enumerate(content, 1):
        place = f"{path}, task {number}"
        try:
            written: list[dict] = next((task[key] for key in _DONE if key in task), [])
            kept = [each for each in written if not each.get("was_cancelled")]
            marked = [each for each in kept if each.get("ground_truth")] or kept
            called = _named(place, task["data"])
            results = [each.get("result") or [] for each in marked[-1:]]
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{place} is malformed ({type(error).__name__}: {error}); export it as JSON again"
            ) from error
        tasks += [(place, called, _read(place, result)) for result in results]

    other = _other_questions(path, [done for *_, done in tasks], classes)
    for place, called, done in tasks:
        words = (words for question, words in done.chosen.items() if question not in other)
        yield row_of(place, called, done.regions, done.size, set().union(*words))

    _say_untouched(path, len(content) - len(tasks))


def _other_questions(path: Path, tasks: Sequence[_Done], classes: Sequence[str]) -> list[str]:
    """Return the questions that ask for something else than classes, as whether a picture is sharp,
    which is said: beside others, those of which no answer in the whole file is a class.
    """
    known = {key_of(name) for name in classes}
    answers: dict[str, set[str]] = {}
    for done in tasks:
        for question, words in done.chosen.items():
            answers.setdefault(question, set()).update(words)

    labelled = any(region.category != IGNORED for done in tasks for region in done.regions)
    alone = len(answers) == 1 and not labelled
    other = [name for name, words in answers.items() if known.isdisjoint(map(key_of, words))]
    if alone or not other:
        return []

    asked = ", ".join(map(repr, other))
    first = min(answers[other[0]])
    say_once(
        f"questions {path}",
        f"answers to {asked} in {path} are no classes, as {first!r}, and left out",
    )
    return other


def read_min(path: Path, content: list, classes: Sequence[str]) -> Iterator[Row]:
    """Yield the records that were worked on. Plain texts count where they are names of classes.
    Raises UserError where a record is malformed.
    """
    known = {key_of(name) for name in classes}
    untouched = 0
    for number, record in enumerate(content, 1):
        place = f"{path}, entry {number}"
        if not isinstance(record, dict):
            raise UserError(f"{place} is {record!r:.60}, no object; export it as JSON-MIN again")
        if all(record.get(key) is None for key in _MIN):
            untouched += 1
            continue

        results, words = _values(record)
        chosen = [word for word in words if key_of(word) in known]
        done = _read(place, results)
        yield row_of(place, _named(place, record), done.regions, done.size, chosen)
    _say_untouched(path, untouched)


def _values(record: Mapping[str, Any]) -> tuple[list[dict], list[str]]:
    """Return the results, in the form of tasks, and texts of a record."""
    results: list[dict] = []
    words: list[str] = []
    for value in record.values():
        if isinstance(value, str):
            words.append(value)
        elif isinstance(value, dict) and isinstance(value.get("choices"), list):
            words += map(str, value["choices"])
        elif isinstance(value, list):
            results += [{"value": each, **each} for each in value if isinstance(each, dict)]
    return results, words


def _say_untouched(path: Path, count: int) -> None:
    if count:
        say_once(f"untouched {path}", f"{count} tasks of {path} have no annotation; left out")


def _named(place: str, data: Mapping[str, Any]) -> list[str]:
    """Return what a task calls its picture: its texts that end as pictures do."""
    texts = [text for text in data.values() if isinstance(text, str)]
    names = [name for text in texts for name in _paths(text)]
    pictures = [name for name in names if name.lower().endswith(picture_suffixes())]
    if not pictures:
        raise UserError(f"{place} names no picture; export a project of pictures")
    return pictures


def _paths(address: str) -> list[str]:
    """Return the path of an address and those that its query names, as in ?d=a.jpg of files that
    Label Studio serves itself.
    """
    path, _, query = address.partition("?")
    values = (part.partition("=")[2] for part in query.split("&"))
    return [unquote(each) for each in (path, *values)]


def _read(place: str, results: list) -> _Done:
    """Read the results of an annotation. Outlines that got no label do not count, and come last, so
    that one whose label is a result of its own is seen. Raises UserError where one is malformed.
    """
    regions: list[Region] = []
    unlabelled: list[Region] = []
    chosen: dict[str, set[str]] = {}
    sizes = set()
    try:
        for result in results:
            value = result.get("value", {})
            if "choices" in value:
                question = str(result.get("from_name", ""))
                chosen.setdefault(question, set()).update(map(str, value["choices"]))

            names: list = next((value[key] for key in value if key.endswith("labels")), [])
            if not names and value.keys().isdisjoint(_OUTLINES):
                continue

            size = (int(result["original_height"]), int(result["original_width"]))
            sizes.add(size)
            pixels = _pixels(value, size)
            if pixels and result.get("image_rotation"):
                pixels = _turned
            regions += [Region(str(name), pixels) for name in names]
            if pixels and not names:
                unlabelled.append(Region(IGNORED, pixels))
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise UserError(
            f"{place} has a malformed result ({type(error).__name__}: {error}); export it again"
        ) from error

    return _Done([*regions, *unlabelled], chosen, sizes.pop() if len(sizes) == 1 else None)


def _pixels(value: Mapping[str, Any], size: tuple[int, int]) -> Pixels | None:
    """Return the function for the pixels of a result, whose coordinates are percent of the
    picture's sides.
    """
    if "points" in value:  # also beside `labels`, which a control of its own gives
        return outline([np.array(value["points"], np.float64) / 100], relative=True)
    if "radiusX" in value:
        # the two radii are percent of the two sides, so that a turned ellipse needs px
        x, y, rx, ry = (float(value[key]) for key in ("x", "y", "radiusX", "radiusY"))
        height, width = (side / 100 for side in size)
        return ellipse(x * width, y * height, rx * width, ry * height, value.get("rotation") or 0)
    if "rle" in value:
        return patch(0, 0, partial(brush_pixels, value["rle"], *size))
    return None


def _turned(height: int, width: int, place: str) -> np.ndarray:
    raise UserError(
        f"{place} was drawn on a picture turned in Label Studio; turn it back there and "
        "export again"
    )
