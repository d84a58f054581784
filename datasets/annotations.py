"""Tags of one's own pictures in any form that people and tools write: tables, JSON, and the
annotations of COCO and VOC.
"""

import json
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from datasets.called import Pictures
from datasets.coco_json import read_instances, without_outline
from datasets.folders import files_below
from datasets.specs import DatasetSpec
from datasets.tables import HEADER, Row, key_of, read_table, split_words
from datasets.voc_xml import read_xml
from utils.common.console import say_once
from utils.common.errors import UserError, nearest
from utils.common.files import decoded_text, read_json

NOTHING = "background"  # folder, or tag, of pictures that show no class
FORMS = f"a table with the header {HEADER}, JSON, COCO's instances JSON or a folder of VOC's XML"
_IMAGE_KEYS = ("image", "file_name", "filename", "file", "path", "name", "img", "image_path")
_TAG_KEYS = ("tags", "labels", "classes", "categories", "tag", "label", "class", "category")
Tagged = dict[PurePosixPath, set[str]]


def tags_of_file(
    path: Path,
    files: Sequence[PurePosixPath],
    spec: DatasetSpec,
    roots: Iterable[Path] = (),
    partial: bool = False,
) -> Tagged:
    """Classes of those pictures that a file of tags names.

    Args:
        path: a file, or folder, of FORMS.
        files: pictures, as paths relative to their folder.
        spec: names of the classes.
        roots: folders whose name may begin a path in the file.
        partial: whether the file may name other pictures too, which is said. Annotations of COCO
            and VOC always may.

    Raises:
        UserError: names file, place and fix, where the file cannot be read, or a class is unknown,
            or a picture is unknown, ambiguous or named twice.
    """
    try:
        rows, usually = _rows(path, spec)
        return _gathered(path, rows, Pictures(files, roots), spec, partial or usually)
    except FileNotFoundError:
        raise UserError(f"--tags {path} does not exist; give {FORMS}") from None
    except (OSError, RecursionError) as error:
        raise UserError(f"--tags {path} cannot be read ({error}); give {FORMS}") from None


def _gathered(
    path: Path, rows: Iterator[Row], pictures: Pictures, spec: DatasetSpec, partial: bool
) -> Tagged:
    tags: Tagged = {}
    elsewhere = 0
    for place, called, words in rows:
        name = next((name for name in called if len(pictures.find(name)) == 1), called[0])
        if partial and not pictures.find(name):
            elsewhere += 1
            continue

        file = pictures.named(name, place)
        if file in tags:
            raise UserError(f"{place} lists {name!r} a second time; keep one line")

        apart = split_words(words, spec.classes) if isinstance(words, str) else words
        named = (class_of(word, spec, place) for word in apart)
        tags[file] = {name for name in named if name}

    if not tags:
        more = f"{path} names {elsewhere} others, " if elsewhere else f"{path} "
        raise UserError(f"{more}lists no picture of these; write one per line below the header")
    if elsewhere:
        say_once("elsewhere", f"{elsewhere} pictures of {path} are not among these, and left out")

    return tags


def class_of(word: str, spec: DatasetSpec, place: str) -> str:
    """The class that a word names, whatever its case, _ and -; empty for `background`.

    Raises UserError naming the place where it is none.
    """
    name = unicodedata.normalize("NFC", word)
    if name in spec.classes:
        return name
    alike = [known for known in spec.classes if key_of(known) == key_of(name)]
    if len(alike) == 1:
        return alike[0]
    if key_of(name) == NOTHING:
        return ""
    hint = nearest(word, spec.classes) or "; add it to the class list, or take it away"
    raise UserError(f"{place} has the tag {word!r}, which is no class{hint}")


def _rows(path: Path, spec: DatasetSpec) -> tuple[Iterator[Row], bool]:
    """Rows of a file of any form, and whether it usually names more pictures than are there."""
    if path.is_dir():
        return _of_xml_folder(path), True
    with path.open("rb") as file:
        start = file.read(64).lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n\0")[:1]
    if path.suffix.lower() == ".xml" or start == b"<":
        return iter([_of_xml(path, path.name)]), True
    if path.suffix.lower() in (".json", ".jsonl", ".ndjson") or start in (b"{", b"["):
        return _of_json(path)
    return read_table(path, spec.classes), False


def _of_xml_folder(folder: Path) -> Iterator[Row]:
    files = files_below(folder, (".xml",)).files
    if not files:
        raise UserError(f"--tags {folder} holds no XML file; give {FORMS}")
    return (_of_xml(file, str(file.relative_to(folder))) for file in files)


def _of_xml(path: Path, below: str) -> Row:
    """The objects of one file, whose picture has its name, or the name that it says."""
    annotation = read_xml(path)
    stem = PurePosixPath(below).with_suffix("").as_posix()
    called = [stem, annotation.filename, PurePosixPath(stem).name]
    return Row(str(path), tuple(name for name in called if name), annotation.classes())


def _of_json(path: Path) -> tuple[Iterator[Row], bool]:
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        return _of_records(path, _lines(path)), False
    content = read_json(path, without_outline, (dict, list))
    if isinstance(content, list):
        return _of_records(path, content), False
    if "images" in content and "categories" in content:
        return _of_instances(path), True
    tags = content["tags"] if isinstance(content.get("tags"), dict) else content
    return (
        Row(f"{path}, image {name}", (name,), _words(words, f"{path}, image {name}"))
        for name, words in tags.items()
    ), False


def _of_instances(path: Path) -> Iterator[Row]:
    for image in read_instances(path, outlines=False):
        classes = sorted({shape.category for shape in image.shapes})
        yield Row(f"{path}, image {image.file}", (image.file,), classes)


def _lines(path: Path) -> list[Any]:
    records = []
    for number, line in enumerate(decoded_text(path, path.read_bytes()).splitlines(), 1):
        try:
            records += [json.loads(line)] if line.strip() else []
        except ValueError as error:
            raise UserError(f"{path}, line {number} is not JSON ({error}); mend it") from None
    return records


def _of_records(path: Path, records: Sequence[Any]) -> Iterator[Row]:
    for number, record in enumerate(records, 1):
        place = f"{path}, entry {number}"
        if not isinstance(record, Mapping):
            raise UserError(f"{place} is {record!r:.60}, not an object of an image and its tags")
        name = _first(record, _IMAGE_KEYS)
        words = _first(record, _TAG_KEYS)
        if not isinstance(name, str):
            raise UserError(f'{place} names no image; write it as "image": "a.jpg"')
        yield Row(place, (name,), _words(words, place))


def _first(record: Mapping[str, Any], keys: Sequence[str]) -> Any:
    return next((record[key] for key in keys if key in record), None)


def _words(value: Any, place: str) -> str | list[str]:
    """Class names in one text or in several, of any JSON that says them."""
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
        word = _first(word, (*_TAG_KEYS, "name"))
    if not isinstance(word, str):
        raise UserError(f"{place} has {word!r:.60} where a class name belongs; write the name")
    return word


def _is_yes(mark: Any, place: str) -> bool:
    if mark in (True, False, None, "", "0", "1"):
        return mark in (True, "1")
    raise UserError(f"{place} has {mark!r:.60} where 1 or 0 belongs")
