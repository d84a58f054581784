"""Classes as `--classes` takes them."""

from pathlib import Path, PurePosixPath

import pytest

from datasets.annotations import tags_of_file
from datasets.classes import given_classes, named_classes, read_classes
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


WRITTEN = ["پیش\u200cبند", "കാർ\u200d", "猫", "क्\u200dष", "👩\u200d🚀", "Straße", "xe\u00a0máy"]


def test_names_of_any_script_are_classes_and_tags(tmp_path: Path) -> None:
    names = tuple(name.replace("\u00a0", " ") for name in WRITTEN)
    path = tmp_path / "classes.yaml"
    path.write_text("classes:\n" + "".join(f"- {name}\n" for name in WRITTEN), encoding="utf-8")
    assert read_classes(path).classes == names
    spec = given_classes(", ".join(WRITTEN))
    assert spec.classes == named_classes(WRITTEN).classes == names

    table = tmp_path / "tags.csv"
    table.write_text("image,tags\na.jpg,{}\n".format(";".join(WRITTEN)), encoding="utf-8")
    files = [PurePosixPath("a.jpg")]
    assert tags_of_file(table, files, spec) == {files[0]: set(names)}


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], "lists 0 classes"),
        (["cat", " "], "has the class ''"),
        (None, "None is no list of classes; give names"),
        (["cat", 7], "'cat', 7. is no list of classes"),
        (["cat\x1b[31m"], "without ';', line breaks or signs that cannot be seen"),
        (["cat", "\u200d"], "signs that cannot be seen"),
        (["\u202ecat"], "signs that cannot be seen"),
        (["traffic light", "Traffic\xa0light"], "has the class 'Traffic light'"),
    ],
)
def test_a_list_without_fit_names_is_refused(names: list, said: str) -> None:
    with pytest.raises(UserError, match=said):
        named_classes(names)
