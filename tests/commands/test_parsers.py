"""Whatever stands in a file that a user hands in, its reader gives a result or one sentence that
names the file.
"""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from datasets.coco_json import coco_classes, read_instances
from datasets.list_files import read_list
from datasets.prepare.coco import write_mask
from datasets.specs import COCO, COCO_IDS, VOC
from datasets.tag_sources import tags_from_coco_json, tags_from_voc_xml
from datasets.tags import read_all_tags
from utils.common.errors import UserError
from utils.common.files import read_json
from utils.config import load_config

QUICK = settings(max_examples=80, deadline=None)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["cat", "a", "1"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["id", "tags", "size"]), inner, max_size=3)
    ),
    max_leaves=5,
)
TAGS = {
    "format": 1,
    "dataset": "voc",
    "classes": list(VOC.classes),
    "source": "x",
    "tags": {"a": ["cat"], "b": []},
}
INSTANCES = {
    "images": [{"id": 1, "file_name": "a.jpg", "height": 8, "width": 9}],
    "categories": [{"id": i, "name": name} for i, name in zip(COCO_IDS[:2], COCO.classes)],
    "annotations": [
        {
            "id": 5,
            "image_id": 1,
            "category_id": 1,
            "iscrowd": 0,
            "segmentation": [[0, 0, 5, 0, 5, 5]],
        },
        {
            "id": 6,
            "image_id": 1,
            "category_id": 2,
            "iscrowd": 1,
            "segmentation": {"size": [8, 9], "counts": [70, 2]},
        },
    ],
}
XML = "<annotation><object><name>cat</name><difficult>0</difficult></object></annotation>"


def refused_or_read(path: Path, read: Callable[[], Any]) -> None:
    """Asserts that reading ends well, or with a UserError of one line that names the path."""
    try:
        read()
    except UserError as error:
        assert str(path) in str(error) and len(str(error).splitlines()) == 1, error


@st.composite
def changed(draw: st.DrawFn, whole: dict) -> Any:
    """The object with one of its parts, at any depth, replaced or left out."""
    whole = copy.deepcopy(whole)
    part, key = {"": whole}, ""
    while isinstance(part[key], (dict, list)) and part[key] and draw(st.integers(0, 3)):
        part = part[key]
        key = draw(
            st.sampled_from(sorted(part))
            if isinstance(part, dict)
            else st.integers(0, len(part) - 1)
        )
    if key != "" and draw(st.booleans()):
        del part[key]
        return whole
    if key == "":
        return draw(JSON)
    part[key] = draw(JSON)
    return whole


def text_changed(text: str) -> st.SearchStrategy[bytes]:
    """The text with a stretch replaced by other bytes."""
    place = st.integers(0, len(text))
    return st.builds(
        lambda a, b, new: text[: min(a, b)].encode() + new + text[max(a, b) :].encode(),
        place,
        place,
        st.binary(max_size=9),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("parsers")


@QUICK
@given(content=changed(TAGS))
def test_tags_files(folder: Path, content: Any) -> None:
    path = folder / "tags.json"
    path.write_text(json.dumps(content))
    refused_or_read(path, lambda: read_all_tags(path, VOC))


@QUICK
@given(content=changed(INSTANCES))
def test_instance_annotations(folder: Path, content: Any) -> None:
    path = folder / "annotations" / "instances_val2014.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))

    def paint() -> None:
        for image in read_instances(path, outlines=True):
            write_mask(folder, path, replace(image, name="a"))

    refused_or_read(
        path, lambda: tags_from_coco_json(folder, "val", list(coco_classes(folder, "val")), COCO)
    )
    refused_or_read(path, paint)


@QUICK
@given(content=st.binary(max_size=30) | text_changed(json.dumps(TAGS)[:60]))
@example(content=b"[" * 100_000)
@example(content=b'{"a": ' + b"9" * 5000 + b"}")
def test_json(folder: Path, content: bytes) -> None:
    path = folder / "any.json"
    path.write_bytes(content)
    refused_or_read(path, lambda: read_json(path))


@QUICK
@given(content=st.binary(max_size=30) | text_changed(XML))
@example(content=b'<?xml version="1.0" encoding="utf-99"?><annotation/>')
@example(content=b'<?xml version="1.0" encoding="big5"?><annotation/>')
@example(content=b"<html/>")
def test_voc_annotations(folder: Path, content: bytes) -> None:
    path = folder / "Annotations" / "a.xml"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    refused_or_read(path, lambda: tags_from_voc_xml(folder, ["a"], VOC))


@QUICK
@given(content=st.binary(max_size=30))
def test_lists(folder: Path, content: bytes) -> None:
    path = folder / "list.txt"
    path.write_bytes(content)
    refused_or_read(path, lambda: read_list(path))


@QUICK
@given(
    content=st.binary(max_size=30)
    | text_changed("dataset: voc\nscales: [1.0, 0.75]\nlr: 2e-4\nseed: 1\n")
)
@example(content=b"seed: 2001-99-99")
@example(content=b"seed: " + b"9" * 5000)
@example(content=b"[" * 5000)
@example(content=b"base: 3")
@example(content=b"base: c.yaml")
@example(content=b"1: 2")
@example(content=b"? [a]\n: 1")
@example(content=b"seed: .inf")
@example(content=b"lr: -4")
def test_configurations(folder: Path, content: bytes) -> None:
    path = folder / "c.yaml"
    path.write_bytes(content)
    refused_or_read(path, lambda: load_config(path))
