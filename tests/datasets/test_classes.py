"""Classes as `--classes` takes them."""

from pathlib import Path

import pytest

from datasets.classes import given_classes, named_classes
from datasets.specs import COCO, VOC
from utils.common.errors import UserError


def test_classes_are_a_data_set_a_file_or_names(tmp_path: Path) -> None:
    assert given_classes("voc") is VOC
    assert given_classes("coco") is COCO
    (tmp_path / "classes.yaml").write_text("classes: [cat, traffic light]\n")
    in_file = given_classes(str(tmp_path / "classes.yaml"))
    assert in_file == given_classes(" cat,traffic light, ")
    assert in_file.classes == ("cat", "traffic light")
    assert "tree" not in given_classes("tree").background


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("", "lists 0 classes"),
        ("none.yaml", "none.yaml does not exist"),
        ("cat, Cat", "has the class 'Cat'"),
        ("cat, background", "has the class 'background'"),
    ],
)
def test_what_names_no_classes_is_refused(given: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        given_classes(given)


def test_names_of_a_list_are_taken_as_they_stand(tmp_path: Path) -> None:
    (tmp_path / "classes.yaml").write_text("classes: [cat]\n")
    for name in ("voc", "coco", str(tmp_path / "classes.yaml"), "bow, tie"):
        assert named_classes([name]).classes == (name,)
    assert named_classes(["cat", "tree"]) == given_classes("cat, tree")
    assert named_classes(iter(["cat", "tree"])).classes == ("cat", "tree")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], "lists 0 classes"),
        (["cat", " "], "has the class ''"),
        (None, "None is no list of classes; give names"),
        (["cat", 7], "'cat', 7. is no list of classes"),
    ],
)
def test_a_list_without_fit_names_is_refused(names: list, said: str) -> None:
    with pytest.raises(UserError, match=said):
        named_classes(names)
