"""Tags files are read as written or refused by name; annotations become the right tags."""

import json

import numpy as np
import pytest
from PIL import Image

from datasets.lists import Item
from datasets.specs import COCO, COCO_IDS, VOC
from datasets.tag_sources import tags_from_coco_json, tags_from_masks, tags_from_voc_xml
from datasets.tags import Tags, read_tags, write_tags
from utils.common.errors import UserError


def rows(spec, *classes: str) -> np.ndarray:
    """(n, K) bool from space-separated class names."""
    return np.array([[name in text.split() for name in spec.classes] for text in classes])


@pytest.fixture
def written(tmp_path):
    tags = Tags(("b", "a", "c"), rows(VOC, "cat dog", "", "person"), "a test")
    write_tags(tmp_path / "tags.json", VOC, tags)
    return tmp_path / "tags.json"


def change(path, **entries) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def test_tags_are_read_as_written_in_the_asked_order(written):
    np.testing.assert_array_equal(
        read_tags(written, VOC, ["a", "c", "b"]), rows(VOC, "", "person", "cat dog")
    )


def test_file_is_plain_sorted_json(written):
    content = json.loads(written.read_text())
    assert content["tags"] == {"b": ["cat", "dog"], "a": [], "c": ["person"]}
    assert list(content["tags"]) == ["a", "b", "c"]
    assert (content["format"], content["dataset"], content["source"]) == (1, "voc", "a test")
    assert content["classes"] == list(VOC.classes)
    assert [path.name for path in written.parent.iterdir()] == ["tags.json"]


def test_no_images_at_all(tmp_path):
    write_tags(
        tmp_path / "t.json", VOC, Tags((), rows(VOC)[:, None].reshape(0, len(VOC.classes)), "none")
    )
    assert read_tags(tmp_path / "t.json", VOC, []).shape == (0, len(VOC.classes))


def test_broken_json_names_the_line(written):
    written.write_text(written.read_text().replace('"source"', "source"))
    with pytest.raises(UserError, match="tags.json is not valid JSON at line 5"):
        read_tags(written, VOC, ["a"])


@pytest.mark.parametrize(
    "text", ["[]", "{}", '{"format": 2, "tags": {}}', '{"format": 1, "tags": []}']
)
def test_other_json_is_refused(written, text):
    written.write_text(text)
    with pytest.raises(UserError, match="tags.json"):
        read_tags(written, VOC, ["a"])


def test_tags_of_another_dataset_are_refused(written):
    with pytest.raises(
        UserError, match="tags.json is for dataset 'voc' with 20 classes, not for 'coco'"
    ):
        read_tags(written, COCO, ["a"])
    change(written, classes=[*VOC.classes[:19], "television"])
    with pytest.raises(UserError, match="'television' instead of 'tvmonitor' as class 19"):
        read_tags(written, VOC, ["a"])


def test_unknown_class_gets_the_nearest_name(written):
    change(written, tags={"a": ["airplane"]})
    with pytest.raises(
        UserError,
        match="image a has class 'airplane', which voc has not; did you mean 'aeroplane'?",
    ):
        read_tags(written, VOC, ["a"])


@pytest.mark.parametrize("value", ["cat", None, 3, [3], [["cat"]]])
def test_values_that_are_no_list_of_names_are_refused(written, value):
    change(written, tags={"a": value})
    with pytest.raises(UserError, match="image a has"):
        read_tags(written, VOC, ["a"])


def test_missing_images_are_counted(written):
    with pytest.raises(UserError, match="no tags for 2 of 3 images, first x"):
        read_tags(written, VOC, ["x", "a", "y"])


def annotate(root, name: str, *objects: tuple[str, int]) -> None:
    (root / "Annotations").mkdir(exist_ok=True)
    text = "".join(
        f"<object><name>{c}</name><difficult>{d}</difficult><part><name>head</name></part></object>"
        for c, d in objects
    )
    (root / f"Annotations/{name}.xml").write_text(f"<annotation>{text}</annotation>")


@pytest.mark.parametrize(("difficult", "expected"), [(True, "cat dog"), (False, "cat")])
def test_voc_xml(tmp_path, difficult, expected):
    annotate(tmp_path, "a", ("cat", 0), ("dog", 1), ("cat", 0))
    annotate(tmp_path, "b")
    tags = tags_from_voc_xml(tmp_path, ["b", "a"], VOC, difficult)
    np.testing.assert_array_equal(tags.matrix, rows(VOC, "", expected))
    assert tags.names == ("b", "a")


def test_bad_voc_xml_is_named(tmp_path):
    annotate(tmp_path, "a", ("kitten", 0))
    with pytest.raises(UserError, match="a.xml has class 'kitten'"):
        tags_from_voc_xml(tmp_path, ["a"], VOC)
    with pytest.raises(UserError, match="z.xml does not exist"):
        tags_from_voc_xml(tmp_path, ["z"], VOC)
    (tmp_path / "Annotations/a.xml").write_text("<annotation>\n<object>")
    with pytest.raises(UserError, match="a.xml is not valid XML .*line 2"):
        tags_from_voc_xml(tmp_path, ["a"], VOC)
    (tmp_path / "Annotations/a.xml").write_text(
        '<!DOCTYPE a [<!ENTITY e "x">]><annotation>&e;</annotation>'
    )
    with pytest.raises(UserError, match="a.xml cannot be read safely"):
        tags_from_voc_xml(tmp_path, ["a"], VOC)


@pytest.fixture
def coco(tmp_path):
    (tmp_path / "annotations").mkdir()
    content = {
        "images": [{"id": 5, "file_name": "five.jpg"}, {"id": 9, "file_name": "nine.jpg"}],
        "annotations": [
            {"image_id": 9, "category_id": 90},
            {"image_id": 9, "category_id": 13, "iscrowd": 1},
        ],
        "categories": [{"id": i, "name": name} for i, name in zip(COCO_IDS, COCO.classes)],
    }
    path = tmp_path / "annotations/instances_train2014.json"
    path.write_text(json.dumps(content))
    return path


def test_coco_json(coco):
    tags = tags_from_coco_json(coco.parent.parent, "train", ["nine", "five"], COCO)
    assert [COCO.classes[k] for k in tags.matrix[0].nonzero()[0]] == ["stop sign", "toothbrush"]
    assert not tags.matrix[1].any()


def test_bad_coco_json_is_named(coco):
    root = coco.parent.parent
    with pytest.raises(UserError, match="lacks 1 of 2 images, first six"):
        tags_from_coco_json(root, "train", ["five", "six"], COCO)
    change(coco, annotations=[{"image_id": 9, "category_id": 12}])
    with pytest.raises(UserError, match="train2014.json, an annotation is of the category 12,"):
        tags_from_coco_json(root, "train", ["five"], COCO)


def test_masks_ignore_background_and_rim(tmp_path):
    Image.fromarray(np.array([[0, 255, 15], [20, 20, 15]], np.uint8)).save(tmp_path / "m.png")
    tags = tags_from_masks([Item("a", tmp_path / "a.jpg", tmp_path / "m.png")], VOC)
    np.testing.assert_array_equal(tags.matrix, rows(VOC, "person tvmonitor"))
    assert "mask" in tags.source


def test_masks_missing_or_with_foreign_labels_are_refused(tmp_path):
    with pytest.raises(UserError, match="image a has no mask"):
        tags_from_masks([Item("a", tmp_path / "a.jpg", None)], VOC)
    Image.fromarray(np.array([[21]], np.uint8)).save(tmp_path / "m.png")
    with pytest.raises(UserError, match="m.png holds label 21"):
        tags_from_masks([Item("a", tmp_path / "a.jpg", tmp_path / "m.png")], VOC)
