"""Tags in JSON as people and small tools write them: a mapping, records, or a record per line."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets.rows import SCORES, Row, refuse_unsure
from datasets.tables import picture_places
from utils.common.errors import UserError
from utils.common.files import decoded_text

_TAG_KEYS = ("tags", "labels", "classes", "categories", "tag", "label", "class", "category")


def read_mapping(path: Path, content: Mapping[str, Any]) -> Iterator[Row]:
    """Yield the pictures of an object of names and tags, which may stand under `tags`. Raises
    UserError where tags are none, or it is VGG Image Annotator's own form.
    """
    if any(_is_of_via(name, entry) for name, entry in content.items()):
        raise UserError(
            f"{path} is VGG Image Annotator's own form, which is not read; export it there as COCO "
            "(Annotation > Export Annotations (COCO format))"
        )

    tags = content.get("tags")
    if not isinstance(tags, dict):
        tags = content
    for name, words in tags.items():
        place = f"{path}, image {name}"
        yield Row(place, (name,), _words(words, place))


def _is_of_via(name: str, entry: Any) -> bool:
    """Tell whether VGG Image Annotator wrote an entry, of a project or of its annotations alone."""
    is_picture = isinstance(entry, Mapping) and {"filename", "regions"} <= entry.keys()
    return name.startswith("_via_") or is_picture


def read_lines(path: Path) -> Iterator[Row]:
    """Return the records of a file with one per line. Raises UserError naming a line that is
    malformed.
    """
    records = []
    for number, line in enumerate(decoded_text(path, path.read_bytes()).splitlines(), 1):
        try:
            if line.strip():
                records.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}, line {number} is not JSON ({error}); mend it") from None
    return read_records(path, records)


def read_records(path: Path, records: Sequence[Any]) -> Iterator[Row]:
    """Yield the pictures of a list of objects, perhaps one per tag. Raises UserError naming a
    malformed entry.
    """
    for number, record in enumerate(records, 1):
        place = f"{path}, entry {number}"
        if not isinstance(record, Mapping):
            raise UserError(f"{place} is {record!r:.60}, not an object of an image and its tags")

        name = _picture(record)
        words = _first(record, _TAG_KEYS)

        if not name:
            raise UserError(f'{place} names no image; write it as "image": "a.jpg"')
        if record.keys().isdisjoint(_TAG_KEYS):
            raise UserError(
                f"{place} says nothing of tags, but of {', '.join(map(str, record))}; write them "
                'as "tags": ["cat"], of a picture without a class as "tags": []'
            )

        if words:
            refuse_unsure(place, words, _first(record, SCORES))
        yield Row(place, (name,), _words(words, place), more=True)


def _picture(record: Mapping[str, Any]) -> str:
    """Return what a record calls its picture: the text under the best key; "" without any."""
    keys = list(record)
    named = (record[keys[place]] for place in picture_places(keys))
    return next((name for name in named if isinstance(name, str) and name.strip()), "")


def _first(record: Mapping[str, Any], keys: Sequence[str]) -> Any:
    return next((record[key] for key in keys if key in record), None)


def _words(value: Any, place: str) -> str | list[str]:
    """Return the class names in one text or in several, of any JSON that says them."""
    read: dict[type, Callable[[Any], str | list[str]]] = {
        str: str,
        type(None): lambda _: [],
        dict: lambda marks: [name for name, mark in marks.items() if _is_yes(mark, place)],
        list: lambda words: [_word(word, place) for word in words],
    }
    if type(value) not in read:
        raise UserError(f"{place} has {value!r:.60} where a list of class names belongs")
    return read[type(value)](value)


def _word(word: Any, place: str) -> str:
    if isinstance(word, Mapping):  # as {"label": "cat", "score": 1}
        score = _first(word, SCORES)
        word = _first(word, (*_TAG_KEYS, "name"))
        refuse_unsure(place, word, score)
    if not isinstance(word, str):
        raise UserError(f"{place} has {word!r:.60} where a class name belongs; write the name")
    return word


def _is_yes(mark: Any, place: str) -> bool:
    if mark in (True, False, None, "", "0", "1"):
        return mark in (True, "1")
    raise UserError(
        f'{place} has {mark!r:.60} where 1 or 0 belongs; write {{"cat": 1}} or ["cat"], or give '
        "what a tool exports as COCO"
    )
