"""Label Studio's own JSON: tasks with their annotations, and JSON-MIN, a record per annotation."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datasets.forms.brush import brush_pixels
from datasets.forms.shapes import ellipse, outline, patch
from datasets.named_pictures import picture_parts
from datasets.rows import IGNORED, Pixels, Region, Row, row_of
from datasets.tables import key_of
from utils.common.console import say_once
from utils.common.errors import UserError

_DONE = ("annotations", "completions")  # of today, and before version 1.0
_MIN = ("annotation_id", "annotator", "lead_time")
_CHOSEN = ("choices", "taxonomy")  # what values of answers have
_OUTLINES = ("points", "radiusX", "rle")  # what values of results with pixels have


class _Done(NamedTuple):
    """What one annotation of a picture says: its regions, those that got no label and do not count,
    the answers chosen by question, every (height, width) of the picture that a region tells, and
    the kinds of results that are not read.
    """

    regions: list[Region]
    unlabelled: list[Region]
    chosen: dict[str, set[str]]
    sizes: set[tuple[int, int]]
    kinds: set[str]

    def row(self, place: str, called: Sequence[str], more: Iterable[str]) -> Row:
        """Return the row of the picture, whose tags are those of the regions, and `more`. Outlines
        without a label come last, so that one whose label is a result of its own is seen.
        """
        size = None
        if len(self.sizes) == 1:
            (size,) = self.sizes
        return row_of(place, called, [*self.regions, *self.unlabelled], size, more)


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
    known = {key_of(name) for name in classes}
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
        tasks += [(place, called, _read(place, result, known)) for result in results]

    other = _other_questions(path, [done for *_, done in tasks], known)
    for place, called, done in tasks:
        words = (words for question, words in done.chosen.items() if question not in other)
        yield done.row(place, called, set().union(*words))

    _say_untouched(path, len(content) - len(tasks))
    kinds = set().union(*(done.kinds for *_, done in tasks))
    if kinds:
        said = ", ".join(map(repr, sorted(kinds)))
        say_once(f"kinds {path}", f"results of {said} in {path} are not read, and left out")


def _other_questions(path: Path, tasks: Sequence[_Done], known: set[str]) -> list[str]:
    """Return the questions that ask for something else than classes, as whether a picture is sharp,
    which is said: beside others, those of which no answer in the whole file is a class.
    """
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

        results, texts = _values(record)
        done = _read(place, results, known)
        words = texts.union(*done.chosen.values())
        chosen = [word for word in words if key_of(word) in known]
        yield done.row(place, _named(place, record), chosen)
    _say_untouched(path, untouched)


def _values(record: Mapping[str, Any]) -> tuple[list[dict], set[str]]:
    """Return the results, in the form of tasks, and texts of a record."""
    results: list[dict] = []
    texts = set()
    for value in record.values():
        if isinstance(value, str):
            texts.add(value)
        elif isinstance(value, dict) and any(isinstance(value.get(key), list) for key in _CHOSEN):
            results.append({"value": value})
        elif isinstance(value, list):
            results += [{"value": each, **each} for each in value if isinstance(each, dict)]
            paths = [each for each in value if isinstance(each, list)]
            results.append({"value": {"taxonomy": paths}})
    return results, texts


def _say_untouched(path: Path, count: int) -> None:
    if count:
        say_once(f"untouched {path}", f"{count} tasks of {path} have no annotation; left out")


def _named(place: str, data: Mapping[str, Any]) -> list[str]:
    """Return what a task calls its picture: its texts that are paths or addresses of pictures."""
    texts = [text for text in data.values() if isinstance(text, str)]
    pictures = [text for text in texts if picture_parts(text)]
    if not pictures:
        raise UserError(f"{place} names no picture; export a project of pictures")
    return pictures


def _read(place: str, results: list, known: set[str]) -> _Done:
    """Read the results of an annotation. Raises UserError where one is malformed."""
    done = _Done([], [], {}, set(), set())
    try:
        for result in results:
            _add(done, result, known)
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise UserError(
            f"{place} has a malformed result ({type(error).__name__}: {error}); export it again"
        ) from error

    return done


def _add(done: _Done, result: Mapping[str, Any], known: set[str]) -> None:
    """Add what one result says: an answer, or regions of its labels."""
    value = result.get("value", {})
    answers = _answers(value, known)
    if answers is not None:
        done.chosen.setdefault(str(result.get("from_name", "")), set()).update(answers)

    names: list = next((value[key] for key in value if key.endswith("labels")), [])
    if not names and value.keys().isdisjoint(_OUTLINES):
        if value and answers is None and "x" not in value:
            done.kinds.add(str(result.get("type") or next(iter(value))))
        return

    size = _size(result)
    if size:
        done.sizes.add(size)
    pixels = _pixels(value, size)
    if pixels and result.get("image_rotation"):
        pixels = _turned

    done.regions.extend(Region(str(name), pixels) for name in names)
    if pixels and not names:
        done.unlabelled.append(Region(IGNORED, pixels))


def _answers(value: Mapping[str, Any], known: set[str]) -> list[str] | None:
    """Return the words chosen in answer to a question, of a tree of them one per path; None of
    what is no answer.
    """
    if "choices" in value:
        return [str(word) for word in value["choices"]]
    if "taxonomy" in value:
        return [_in_tree(path, known) for path in value["taxonomy"] if path]
    return None


def _in_tree(path: str | Sequence[Any], known: set[str]) -> str:
    """Return the last word of a path, from root to leaf, that is a class; without one the leaf."""
    if isinstance(path, str):
        return path
    words = [str(word) for word in path]
    return next((word for word in reversed(words) if key_of(word) in known), words[-1])


def _size(result: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the (height, width) of the picture; None where a result does not tell it."""
    height = result.get("original_height")
    width = result.get("original_width")
    if height is None or width is None:
        return None
    return int(height), int(width)


def _pixels(value: Mapping[str, Any], size: tuple[int, int] | None) -> Pixels | None:
    """Return the function for the pixels of a result, whose coordinates are percent of the
    picture's sides.
    """
    if "points" in value:  # also beside `labels`, which a control of its own gives
        return outline([np.array(value["points"], np.float64) / 100], relative=True)
    if "radiusX" not in value and "rle" not in value:
        return None
    if size is None:
        return _unsized
    if "rle" in value:
        return patch(0, 0, partial(brush_pixels, value["rle"], *size))
    # the two radii are percent of the two sides, so that a turned ellipse needs px
    x, y, rx, ry = (float(value[key]) for key in ("x", "y", "radiusX", "radiusY"))
    height, width = (side / 100 for side in size)
    return ellipse(x * width, y * height, rx * width, ry * height, value.get("rotation") or 0)


def _turned(height: int, width: int, place: str) -> np.ndarray:
    raise UserError(
        f"{place} was drawn on a picture turned in Label Studio; turn it back there and "
        "export again"
    )


def _unsized(height: int, width: int, place: str) -> np.ndarray:
    raise UserError(
        f"{place} is an ellipse or brush without original_width and original_height; export it "
        "again"
    )
