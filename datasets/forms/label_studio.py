"""Label Studio's own JSON: tasks with their annotations, and JSON-MIN, a record per annotation."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from datasets.folders import picture_suffixes
from datasets.forms.brush import brush_pixels
from datasets.forms.shapes import ellipse, outline, patch
from datasets.rows import Pixels, Region, Row, row_of
from datasets.tables import key_of
from utils.common.console import say_once
from utils.common.errors import UserError

_DONE = ("annotations", "completions")  # of today, and before version 1.0
_MIN = ("annotation_id", "annotator", "lead_time")


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


def read_tasks(path: Path, content: list) -> Iterator[Row]:
    """Yield the tasks that were worked on; of several annotations the one marked as ground truth,
    else the last. Raises UserError where a task is malformed.
    """
    untouched = 0
    for number, task in enumerate(content, 1):
        place = f"{path}, task {number}"
        try:
            done: list[dict] = next((task[key] for key in _DONE if key in task), [])
            kept = [each for each in done if not each.get("was_cancelled")]
            marked = [each for each in kept if each.get("ground_truth")] or kept
            results = marked[-1] if marked else None
            called = _named(place, task["data"])
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{place} is malformed ({type(error).__name__}: {error}); export it as JSON again"
            ) from error
        if results is None:
            untouched += 1
        else:
            yield _row(place, called, results.get("result") or [])

    _say_untouched(path, untouched)


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
        yield _row(place, _named(place, record), results, chosen)
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
    names = [unquote(text.partition("?d=")[2] or text.partition("?")[0]) for text in texts]
    pictures = [name for name in names if name.lower().endswith(picture_suffixes())]
    if not pictures:
        raise UserError(f"{place} names no picture; export a project of pictures")
    return pictures


def _row(place: str, called: list[str], results: list, more: Sequence[str] = ()) -> Row:
    try:
        regions, words, size = _read(results)
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise UserError(
            f"{place} has a malformed result ({type(error).__name__}: {error}); export it again"
        ) from error
    return row_of(place, called, regions, size, [*more, *words])


def _read(results: list) -> tuple[list[Region], list[str], tuple[int, int] | None]:
    """Return the regions, chosen classes and the picture's size of an annotation's results."""
    regions: list[Region] = []
    words: list[str] = []
    sizes = set()
    for result in results:
        value = result.get("value", {})
        if "choices" in value:
            words += map(str, value["choices"])
        kind = next((key for key in value if key.endswith("labels")), None)
        if kind is None:
            continue

        size = (int(result["original_height"]), int(result["original_width"]))
        sizes.add(size)
        pixels = _pixels(kind, value, size)
        if pixels and result.get("image_rotation"):
            pixels = _turned
        regions += [Region(str(name), pixels) for name in value[kind]]

    if len(sizes) != 1:
        return regions, words, None
    return regions, words, sizes.pop()


def _pixels(kind: str, value: Mapping[str, Any], size: tuple[int, int]) -> Pixels | None:
    """Return the function for the pixels of a result, whose coordinates are percent of the
    picture's sides.
    """
    if "points" in value and "polygon" in kind:
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
