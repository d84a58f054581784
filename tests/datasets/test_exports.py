"""What annotation tools export is read: tags, regions, and the quirks of each form."""

import json
import shutil
import zlib
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from exported import (
    CAT,
    DOG,
    FILES,
    HEIGHT,
    HOLED,
    SPEC,
    WIDTH,
    coco,
    cvat,
    masks,
    object_of,
    tags,
    task,
    written,
    xml,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coder

from datasets.lists import Item
from datasets.pictures import mask_png
from datasets.specs import IGNORE
from datasets.tag_sources import find_tags, tags_of_images
from utils.common.errors import UserError

HERE = Path(__file__).parent / "exports"

BOTH = ["cat", "dog"]
# form: tags of a.jpg, whether sub/b.jpg is known, the mask of a.jpg (None: not compared)
FORMS = {
    "labelme": (BOTH, False, CAT + np.where(CAT, 0, DOG)),
    "label_studio": (BOTH, False, CAT + DOG),
    "label_studio_min": (BOTH, False, CAT + DOG),
    "label_studio_coco": (["cat"], False, CAT),
    "label_studio_yolo": (["cat"], False, CAT),
    "cvat_coco": (BOTH, True, None),
    "cvat_images": (BOTH, True, CAT + DOG),
    "cvat_labelme": (BOTH, True, None),
    "cvat_mask": (["dog"], False, DOG),
    "cvat_voc": (BOTH, True, None),
    "supervisely": (BOTH, False, HOLED + DOG),
}


@pytest.mark.parametrize("form", FORMS)
def test_what_the_tools_own_libraries_write_is_read(form: str, photos: Path) -> None:
    classes, knows_b, expected = FORMS[form]
    found = tags(HERE / form, [*FILES, PurePosixPath("d.jpg")])  # a task nobody has done
    assert "d.jpg" not in found and found["a.jpg"] == classes and found["c.jpg"] == []
    assert found.get("sub/b.jpg") == (["dog"] if knows_b else None)

    drawn = masks(HERE / form, photos)
    assert not drawn["c.jpg"].any() and drawn.get("sub/b.jpg") is None
    if expected is not None:
        assert np.array_equal(drawn["a.jpg"], expected)


def test_prediction_and_training_take_exports(photos: Path) -> None:
    images = [Item(str(file.with_suffix("")), photos / file, None) for file in FILES]
    expected = {"a": BOTH, "sub/b": ["dog"], "c": []}
    assert tags_of_images(HERE / "cvat_images", SPEC, images) == expected
    matrix = find_tags("voc", photos, "train", list(expected), SPEC, HERE / "cvat_images")
    assert matrix.tolist() == [[True, True], [False, True], [False, False]]


def test_yolo_of_cvat_knows_boxes_and_names_in_any_folder() -> None:
    for form in ("cvat_yolo", "cvat_ultralytics"):
        assert tags(HERE / form) == {"a.jpg": [], "sub/b.jpg": ["dog"], "c.jpg": []}
    assert tags(HERE / "cvat_ultralytics" / "data.yaml") == tags(HERE / "cvat_yolo" / "obj.names")


def test_a_polygon_of_a_brush_covers_its_pixels_but_for_the_edge(photos: Path) -> None:
    dog = masks(HERE / "cvat_coco", photos)["a.jpg"] == 2
    assert not (dog & (DOG == 0))[:6].any() and dog[5, 25] and dog.sum() > 30


def test_roboflow_in_three_folders_with_its_extra_category_and_names(
    tmp_path: Path, photos: Path
) -> None:
    pictures = {
        "train": ("a_jpg.rf.0123456789abcdef0123456789abcdef.jpg", "a.jpg"),
        "valid": ("b_jpg.rf.aBcDeF0123456789aBcD.jpg", ""),
        "test": ("IMG-01-v2_png.rf.0123456789abcdef0123456789abcdef.jpg", "IMG 01.v2.png"),
    }
    files = [PurePosixPath(name) for name in ("a.jpg", "sub/b.jpg", "IMG 01.v2.png")]
    for folder, (name, before) in pictures.items():
        content = coco(file_name=name, extra={"name": before})
        content["annotations"] = [object_of(2, [], bbox=[1, 2, 3, 4])]
        written(tmp_path / "robo" / folder / "_annotations.coco.json", content)
    expected = {str(file): ["dog"] for file in files}
    assert tags(tmp_path / "robo", files) == expected

    own = [PurePosixPath(folder, name) for folder, (name, _) in pictures.items()]
    assert tags(tmp_path / "robo", own, "robo") == {str(file): ["dog"] for file in own}

    yolo = tmp_path / "yolo"
    written(yolo / "data.yaml", "train: ../train/images\nnc: 2\nnames: ['cat', 'dog']\n")
    written(yolo / "README.roboflow.txt", "exported 1 2 3")
    for folder, (name, _) in pictures.items():
        written(yolo / folder / "labels" / f"{name[:-4]}.txt", "1 0.5 0.5 0.1 0.1\n")
    assert tags(yolo, files) == expected
    in_folders = [PurePosixPath(folder, "images", name) for folder, (name, _) in pictures.items()]
    assert tags(yolo, in_folders, "yolo") == {str(file): ["dog"] for file in in_folders}


def test_equal_names_in_several_splits_are_told_apart(tmp_path: Path) -> None:
    written(tmp_path / "data.yaml", "names: {0: cat, 1: dog}")
    for split, label in (("train", 0), ("val", 1)):
        written(tmp_path / "labels" / split / "a.txt", f"{label} .5 .5 .1 .1")
        content = coco()
        content["annotations"] = [object_of(label + 1, [])]
        written(tmp_path / "coco" / split / "x.json", content)
    images = [PurePosixPath("images", split, "a.jpg") for split in ("train", "val")]
    assert list(tags(tmp_path, images).values()) == [["cat"], ["dog"]]
    below = [PurePosixPath(split, "a.jpg") for split in ("train", "val")]
    assert list(tags(tmp_path, below).values()) == [["cat"], ["dog"]]
    assert list(tags(tmp_path / "coco", below).values()) == [["cat"], ["dog"]]


def yolo_split(split: Path, name: str, label: int) -> Path:
    written(split.parent / "data.yaml", "names: [cat, dog]")
    written(split / "labels" / f"{name}.txt", f"{label} .5 .5 .1 .1")
    return split / "images"


def yolo_part(split: Path, name: str, label: int) -> Path:
    return yolo_split(split / "data", name, label)


def yolo_folder(split: Path, name: str, label: int) -> Path:
    written(split / "data.yaml", "names: [cat, dog]")
    written(split / f"{name}.txt", f"{label} .5 .5 .1 .1")
    return split


def coco_split(split: Path, name: str, label: int) -> Path:
    content = coco(file_name=f"{name}.jpg")
    content["annotations"] = [object_of(label + 1, [])]
    written(split / f"{name}.json", content)
    return split


def voc_split(split: Path, name: str, label: int) -> Path:
    written(
        split / f"{name}.xml",
        f"<annotation><object><name>{BOTH[label]}</name></object></annotation>",
    )
    return split


def voc_part(split: Path, name: str, label: int) -> Path:
    voc_split(split / "annotations", name, label)
    return split / "images"


def voc_folders(split: Path, name: str, label: int) -> Path:
    voc_split(split.parent / "xml" / split.name, name, label)
    return split.parent / "pictures" / split.name


def colours_split(split: Path, name: str, label: int) -> Path:
    written(split / "labelmap.txt", "cat:9,0,0::\ndog:0,9,0::\n")
    (split / "SegmentationClass").mkdir(parents=True, exist_ok=True)
    colour = [(9, 0, 0), (0, 9, 0)][label]
    Image.new("RGB", (2, 2), colour).save(split / "SegmentationClass" / f"{name}.png")
    return split / "JPEGImages"


def labelme_split(split: Path, name: str, label: int) -> Path:
    shape = {"label": BOTH[label], "points": [[1, 1], [9, 9]], "shape_type": "rectangle"}
    written(split / f"{name}.json", {"shapes": [shape], "imagePath": f"{name}.jpg"})
    return split


SPLITS = [
    *(yolo_split, yolo_part, yolo_folder, coco_split, voc_split, voc_part, voc_folders),
    *(colours_split, labelme_split),
]


@pytest.mark.parametrize("split", SPLITS, ids=lambda split: split.__name__)
def test_a_picture_of_another_split_gives_no_tags_to_one_of_its_name(
    split: Callable[[Path, str, int], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder, names in {"train": "ab", "valid": "ac"}.items():
        for name in names:
            place = split(tmp_path / "ds" / folder, name, int(folder == "valid"))
            written(place / f"{name}.jpg", "")

    train = split(tmp_path / "ds" / "train", "b", 0)
    every = [file.relative_to(tmp_path / "ds") for file in (tmp_path / "ds").rglob("*.jpg")]
    expected = {str(file): ["dog" if "valid" in file.parts else "cat"] for file in every}
    assert tags(tmp_path / "ds", [*map(PurePosixPath, every)], tmp_path / "ds") == expected
    files = [PurePosixPath("a.jpg"), PurePosixPath("b.jpg")]
    assert tags(tmp_path / "ds", files, train) == {"a.jpg": ["cat"], "b.jpg": ["cat"]}
    assert "2 pictures of" in capsys.readouterr().err

    for file in (tmp_path / "ds").rglob("a.*"):
        if file.suffix != ".jpg" and "train" in file.parts:
            file.unlink()
    assert tags(tmp_path / "ds", files, train) == {"b.jpg": ["cat"]}

    copies = tmp_path / "copies"  # of which the export's own paths say nothing
    assert tags(tmp_path / "ds", files[:1], copies) == {"a.jpg": ["dog"]}


def test_a_table_names_no_picture_of_another_split(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        written(tmp_path / split / "images" / "a.jpg", "")
    written(tmp_path / "a.jpg", "")
    files = [PurePosixPath("a.jpg")]
    for name in ("train/images/a.jpg", "a.jpg"):
        path = written(tmp_path / "t.csv", f"image,tags\n{name},cat\n")
        assert tags(path, files, tmp_path / "train" / "images") == {"a.jpg": ["cat"]}
    written(path, "image,tags\nvalid\\images\\a.jpg,cat\n")
    with pytest.raises(UserError, match="line 2: .* is no picture below --images"):
        tags(path, files, tmp_path / "train" / "images")


@pytest.mark.parametrize("name", ["a.jpg", "images\\a.jpg", "images/a.jpg", "C:\\x\\a.jpg"])
def test_coco_of_ids_from_0_with_runs_polygons_and_crowds(
    name: str, tmp_path: Path, photos: Path
) -> None:
    content = coco(file_name=name)
    coded = coder.encode(np.asfortranarray(DOG > 0))
    ends = np.flatnonzero(np.diff((DOG > 0).T.ravel(), prepend=0, append=0))
    plain = np.diff([0, *ends, DOG.size]).tolist()
    for counts in (coded["counts"].decode(), plain):
        dog = {"size": [HEIGHT, WIDTH], "counts": counts}
        content["annotations"] = [
            object_of(1, [[2, 2, 12, 2, 12, 18, 2, 18]]),
            object_of(2, dog, iscrowd=1),
        ]
        path = written(tmp_path / "x.json", content)
        assert np.array_equal(masks(path, photos)["a.jpg"], CAT + DOG)


def test_a_polygon_of_coco_may_stand_alone_and_what_is_not_listed_is_named(
    tmp_path: Path, photos: Path
) -> None:
    """As other tools write one polygon, and as a file is after images were taken out of it."""
    square = [2, 2, 12, 2, 12, 18, 2, 18]
    for outline in (square, [square]):
        content = coco() | {"annotations": [object_of(1, outline)]}
        path = written(tmp_path / "x.json", content)
        assert np.array_equal(masks(path, photos)["a.jpg"], CAT)
    for change, said in (({"image_id": 9}, "image 9"), ({"category_id": "x"}, "category 'x'")):
        path = written(tmp_path / "x.json", coco() | {"annotations": [object_of(1, []) | change]})
        with pytest.raises(UserError, match=f"annotation 1 is of the {said}, which is not listed"):
            tags(path)


@pytest.mark.parametrize("counts", [[5], [], "5", "", "zz"])
def test_runs_that_end_before_the_picture_does_are_refused(
    counts: list | str, tmp_path: Path, photos: Path
) -> None:
    runs = {"size": [HEIGHT, WIDTH], "counts": counts}
    content = coco() | {"annotations": [object_of(1, runs)]}
    with pytest.raises(UserError, match="pixels in all"):
        masks(written(tmp_path / "x.json", content), photos)


def test_labels_of_what_does_not_count_and_of_background(tmp_path: Path, photos: Path) -> None:
    square = [[4, 4], [8, 4], [8, 8], [4, 8]]
    shapes = [
        {"label": "cat", "points": [[2, 2], [12, 2], [12, 18], [2, 18]]},
        {"label": "__ignore__", "points": square, "shape_type": "polygon"},
        {"label": "_background_", "points": [[9, 9], [10, 9], [10, 10], [9, 10]]},
    ]
    old = {"version": "3.4", "shapes": shapes, "imagePath": "a.jpg", "flags": None}
    path = written(tmp_path / "a.json", old)
    expected = CAT.copy()
    expected[4:8, 4:8] = IGNORE
    expected[9, 9] = 0
    assert np.array_equal(masks(path, photos)["a.jpg"], expected)
    assert tags(path) == {"a.jpg": ["cat"]}


def test_small_objects_are_seen_over_large_ones(tmp_path: Path, photos: Path) -> None:
    small = "<polygon label='dog' points='4,4;8,4;8,8;4,8'/>"
    large = "<polygon label='cat' points='2,2;12,2;12,18;2,18'/>"
    brush = "<mask label='dog' rle='1, 2, 1' left='20' top='10' width='2' height='2'/>"
    expected = CAT.copy()
    expected[4:8, 4:8] = 2
    expected[10, 21] = expected[11, 20] = 2
    for order in (small + large + brush, brush + large + small):
        image = f"<image id='0' name='a.jpg' width='32' height='24'>{order}</image>"
        path = written(
            tmp_path / "x.xml", f"<annotations><version>1.1</version>{image}</annotations>"
        )
        assert np.array_equal(masks(path, photos)["a.jpg"], expected)


def test_tags_of_whole_pictures_count_where_they_are_classes(tmp_path: Path) -> None:
    image = "<image name='a.jpg' width='32' height='24'><tag label='Dog'/></image>"
    assert tags(written(tmp_path / "x.xml", f"<annotations>{image}</annotations>")) == {
        "a.jpg": ["dog"]
    }
    entry = {"image": "/data/upload/7/3b0cf5f1-a.jpg", "choice": "dog", "annotator": 1, "note": "x"}
    assert tags(written(tmp_path / "min.json", [entry])) == {"a.jpg": ["dog"]}
    entry["choice"] = {"choices": ["dog", "cat"]}
    assert tags(written(tmp_path / "min.json", [entry])) == {"a.jpg": ["cat", "dog"]}
    labelme = {"shapes": [], "imagePath": "a.jpg", "flags": {"cat": True, "dog": False, "x": True}}
    assert tags(written(tmp_path / "a.json", labelme)) == {"a.jpg": ["cat"]}


def test_of_several_annotations_of_label_studio_one_counts(tmp_path: Path) -> None:
    def chosen(name: str, **more: object) -> dict:
        return {"result": [{"type": "choices", "value": {"choices": [name]}}], **more}

    def read(*annotations: dict, image: str = "a.jpg", key: str = "annotations") -> dict:
        tasks = [{"id": 1, "data": {"text": "x", "image": image}, key: list(annotations)}]
        return tags(written(tmp_path / "t.json", tasks))

    assert read(chosen("cat"), chosen("dog")) == {"a.jpg": ["dog"]}
    assert read(chosen("cat", ground_truth=True), chosen("dog")) == {"a.jpg": ["cat"]}
    assert read(chosen("cat"), chosen("dog", was_cancelled=True)) == {"a.jpg": ["cat"]}
    assert read(chosen("cat"), key="completions") == {"a.jpg": ["cat"]}
    for image in (
        "/data/local-files/?d=photos/sub/b.jpg",
        "s3://x/photos/sub%2Fb.jpg?v=2",
        "https://x.org/storage-data/uploaded/?v=2&filepath=upload/7/013686d8-b.jpg",
    ):
        assert read(chosen("cat"), image=image) == {"sub/b.jpg": ["cat"]}


def test_an_outline_counts_whichever_control_of_label_studio_names_it(
    tmp_path: Path, photos: Path
) -> None:
    outline = {"points": [[6.25, 100 / 12], [37.5, 100 / 12], [37.5, 75], [6.25, 75]]}
    drawn = {"type": "polygon", "from_name": "shape", "value": outline}
    for kind in ("labels", "polygonlabels"):
        named = {"type": kind, "from_name": "name", "value": {**outline, kind: ["cat"]}}
        path = written(tmp_path / "t.json", [task("a.jpg", drawn, named)])
        assert np.array_equal(masks(path, photos)["a.jpg"], CAT)


def test_an_outline_of_label_studio_without_a_label_does_not_count(
    tmp_path: Path, photos: Path
) -> None:
    outline = {"points": [[6.25, 100 / 12], [37.5, 100 / 12], [37.5, 75], [6.25, 75]]}
    box = {"type": "rectangle", "value": {"x": 50, "y": 50, "width": 20, "height": 20}}
    dog = {"points": [[50, 0], [100, 0], [100, 50], [50, 50]], "polygonlabels": ["dog"]}
    for value in (outline, {**outline, "polygonlabels": []}):
        nameless = {"type": "polygon", "from_name": "shape", "value": value}
        content = [task("a.jpg", nameless, box, {"type": "polygonlabels", "value": dog})]
        path = written(tmp_path / "t.json", content)
        assert tags(path) == {"a.jpg": ["dog"]}
        labels = masks(path, photos)["a.jpg"]
        assert np.array_equal(labels == IGNORE, CAT == 1)
        assert set(labels[labels != IGNORE]) == {0, SPEC.classes.index("dog") + 1}


def test_answers_that_are_no_classes_are_left_out_where_classes_are_asked_for_elsewhere(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    box = {"type": "rectanglelabels", "from_name": "box", "value": {"rectanglelabels": ["cat"]}}

    def answer(question: str, *words: str) -> dict:
        return {"type": "choices", "from_name": question, "value": {"choices": list(words)}}

    for names_classes in (box, answer("animal", "cat")):
        two = [task("a.jpg", names_classes, answer("sharp", "blurry")), task("c.jpg")]
        assert tags(written(tmp_path / "t.json", two)) == {"a.jpg": ["cat"], "c.jpg": []}
    assert "answers to 'sharp' in" in capsys.readouterr().err

    wrong = [task("a.jpg", answer("animal", "cat")), task("c.jpg", answer("animal", "catt"))]
    for content in (wrong, [task("a.jpg", answer("sharp", "blurry"))]):
        with pytest.raises(UserError, match="has the tag '(catt|blurry)', which is no class"):
            tags(written(tmp_path / "t.json", content))


def test_a_supervisely_bitmap_may_lie_partly_outside_and_be_plain(
    tmp_path: Path, photos: Path
) -> None:
    png = mask_png(np.full((4, 5), 255, np.uint8))
    written(tmp_path / "1_x" / "meta.json", {"classes": [], "tags": []})
    for data in (png, zlib.compress(png)):
        bitmap = {"origin": [WIDTH - 2, -1], "data": b64encode(data).decode()}
        content = {
            "size": {"height": HEIGHT, "width": WIDTH},
            "objects": [{"classTitle": "cat", "bitmap": bitmap}],
        }
        written(tmp_path / "1_x" / "ds" / "ann" / "a.jpg.json", content)
        labels = masks(tmp_path, photos)["a.jpg"]
        assert labels.sum() == 6 and labels[:3, -2:].all()


def test_masks_in_colours_are_read_by_their_list(tmp_path: Path, photos: Path) -> None:
    colours = np.array([[0, 0, 0], [250, 50, 83], [51, 221, 255]], np.uint8)
    folder = tmp_path / "SegmentationClass" / "sub"
    folder.mkdir(parents=True)
    Image.fromarray(colours[CAT + DOG]).save(folder / "b.png")
    rows = ["# label:color_rgb:parts:actions", "background:0,0,0::", "Dog:51,221,255::"]
    listed = written(tmp_path / "labelmap.txt", "\n".join([*rows, "cat:250,50,83::", ""]))
    for path in (tmp_path, listed):
        assert np.array_equal(masks(path, photos)["sub/b.jpg"], CAT + DOG)
    written(listed, "\n".join(rows))
    with pytest.raises(UserError, match="b.png has the colour 250,50,83, which labelmap.txt lacks"):
        tags(tmp_path)


BAD: dict[str, tuple[str, object, str]] = {
    "archive": ("x.zip", "PK\3\4", "is an archive; unpack it"),
    "video": ("x.xml", xml("<track id='0' label='cat'/>"), "form for video; export it as CVAT for"),
    "version": ("x.xml", xml("", "2.0"), "is of version 2.0 of CVAT's XML"),
    "other XML": ("x.xml", "<html/>", "holds <html> where VOC has <annotation> and CVAT"),
    "number": ("x.xml", cvat("<polygon label='cat' points='1,x'/>"), "missing or malformed"),
    "panoptic": (
        "x.json",
        coco() | {"annotations": [{"image_id": 0, "segments_info": []}]},
        "entry or key 'category_id' is missing or malformed; make or copy it again, of panoptic",
    ),
    "images alone": (
        "x.json",
        coco() | {"annotations": None},
        "is no instance JSON: entry or key 'NoneType'",
    ),
    "no labels": ("data.yaml", "names: [cat, dog]", "labels or masks with their list of classes"),
    "yolo class": ("labels/a.txt", "7 .1 .1 .1 .1", "a.txt, line 1 is of class 7, the list has"),
    "yolo pixels": ("labels/a.txt", "0 120 80 30 20", "line 1 has 120, no share of a side"),
    "yolo pose": ("labels/a.txt", "0 .1 .1 .1 .1 .2 .2 2", "line 1 has 8 numbers; export YOLO's"),
    "yolo text": ("labels/a.txt", "cat .1 .1", "is 'cat .1 .1', no YOLO label"),
    "yolo names": ("classes.yml", "names: [dog, cat]", "name other classes; keep the one"),
    "yolo laughs": (
        "data.yaml",
        "a: &a [x, x]\nb: &b [*a, *a]\nnames: [*b, dog]",
        "has something else than a name in `names`",
    ),
    "yolo twice": ("data.yaml", "names: {0: cat, 0: dog}", "line 1 has the key '0' a second time"),
    "yolo numbers": ("data.yaml", "names: {1: cat, 2: dog}", "numbers its names 1, 2; count"),
    "shape": ("a.json", {"shapes": [{"points": []}]}, "shape 1 is malformed (KeyError: 'label')"),
    "task": ("x.json", [{"data": {"image": "a.jpg"}, "annotations": [{"result": 7}]}], "malformed"),
    "no picture": (
        "x.json",
        [{"data": {"t": "x"}, "annotations": [{}]}],
        "names no picture; export a",
    ),
    "colour": ("labelmap.txt", "cat;1,2,3", "line 1 is 'cat;1,2,3'; write it as cat:255,0,0::"),
    "far colour": ("labelmap.txt", "cat:1,2,99999999999999999999::", "write it as cat:255,0,0::"),
    "many colours": ("labelmap.txt", "cat:::\n" * 257, "line 257 is 'cat:::'"),
    "deep": ("x.jsonl", "[" * 100_000, "x.jsonl, line 1 is not JSON"),
    "no masks": ("labelmap.txt", "cat:1,2,3::", "labels or masks with their list of classes"),
    "strange": ("x.json", {"hello": 1}, "holds no XML file, JSON, or labels or masks with"),
}


@pytest.mark.parametrize("case", BAD)
def test_another_form_or_version_is_one_sentence(case: str, tmp_path: Path) -> None:
    name, content, said = BAD[case]
    path = written(tmp_path / "export" / name, content)
    if name.startswith(("labels", "classes")):
        written(tmp_path / "export" / "data.yaml", "names: [cat, dog]")
    if "colour" in case:
        Image.new("RGB", (WIDTH, HEIGHT)).save(path.with_name("a.png"))
    whole = (
        path if path.suffix in (".zip", ".xml", ".json", ".jsonl") and case != "strange" else None
    )
    with pytest.raises(UserError) as caught:
        tags(whole or tmp_path / "export")
    assert said in str(caught.value) and "\n" not in str(caught.value), str(caught.value)


@pytest.mark.parametrize("shape", [[2, 3], [1, 2]])
def test_poses_with_as_many_numbers_as_an_outline_are_refused(
    shape: list[int], tmp_path: Path
) -> None:
    """A box and its points: 1 + 4 + 2 x 3 numbers, and 1 + 4 + 2."""
    numbers = " ".join(["0", *[".3"] * (4 + shape[0] * shape[1])])
    written(tmp_path / "labels" / "a.txt", numbers)
    listed = written(tmp_path / "data.yaml", "names: [cat, dog]")
    assert tags(tmp_path) == {"a.jpg": ["cat"]}
    listed.write_text(f"names: [cat, dog]\nkpt_shape: {shape}")
    with pytest.raises(UserError, match="data.yaml is of poses, whose points are no outlines"):
        tags(tmp_path)


BAD_OUTLINES: dict[str, tuple[str, str]] = {
    "outside": ("<polygon label='cat' points='40,4;44,4;44,8'/>", "a polygon outside the picture"),
    "far": ("<polygon label='cat' points='0,0;9000,4;44,8'/>", "reaches to 9000 px in an image of"),
    "brush": ("<mask label='cat' rle='1,2' left='0' top='0' width='2' height='2'/>", "run lengths"),
    "vast": (
        "<mask label='cat' rle='1000000000000' left='0' top='0' width='1000000' height='1000000'/>",
        "has no legible pixels (run lengths of 1000000000000 pixels",
    ),
    "unknown": ("<polygon label='cow' points='0,0;4,0;4,4'/>", "has the tag 'cow', which is no"),
}


@pytest.mark.parametrize("case", BAD_OUTLINES)
def test_an_outline_that_cannot_be_is_one_sentence(case: str, tmp_path: Path, photos: Path) -> None:
    inside, said = BAD_OUTLINES[case]
    with pytest.raises(UserError, match=r"x.xml, image a.jpg, object 1 \(c") as caught:
        masks(written(tmp_path / "x.xml", cvat(inside)), photos)
    assert said in str(caught.value)


def test_what_reaches_beyond_the_picture_is_cut_off(tmp_path: Path, photos: Path) -> None:
    path = written(tmp_path / "x.xml", cvat("<polygon label='cat' points='-3,-3;5,-3;5,5;-3,5'/>"))
    expected = np.zeros_like(CAT)
    expected[:5, :5] = 1
    assert np.array_equal(masks(path, photos)["a.jpg"], expected)


def test_sizes_that_differ_are_refused_and_exchanged_ones_said(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cat = "<polygon label='cat' points='2,2;12,2;12,18;2,18'/>"
    path = written(tmp_path / "x.xml", cvat(cat, "width='24' height='32'"))
    assert np.array_equal(masks(path, photos)["a.jpg"], CAT)
    said = capsys.readouterr()
    assert "width and height are taken as exchanged" in said.err + said.out

    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (24, 32)).save(photos / "a.jpg", exif=exif)
    with pytest.raises(UserError, match="as .* is stored, but EXIF turns it to 32 x 24"):
        masks(path, photos)
    written(path, cvat(cat, "width='640' height='640'"))
    with pytest.raises(UserError, match="is of a picture of 640 x 640, but .*a.jpg has 32 x 24"):
        masks(path, photos)


def test_label_studio_scales_by_the_size_before_exif_turns_it(tmp_path: Path, photos: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (HEIGHT, WIDTH)).save(photos / "a.jpg", exif=exif)  # shown as WIDTH x HEIGHT
    corners = np.array([[2, 2], [12, 2], [12, 18], [2, 18]]) / (WIDTH, HEIGHT) * (HEIGHT, WIDTH)
    content = coco(width=HEIGHT, height=WIDTH) | {"info": {"contributor": "Label Studio"}}
    content["annotations"] = [object_of(1, [corners.ravel().tolist()])]
    path = written(tmp_path / "result.json", content)
    assert np.array_equal(masks(path, photos)["a.jpg"], CAT)


@pytest.mark.parametrize("name", ["other.json", "sub/x.json"])
def test_two_files_may_number_otherwise_but_not_name_a_picture_twice(
    name: str, tmp_path: Path
) -> None:
    first, second = coco(), coco(file_name="c.jpg")
    second["categories"][1:] = [{"id": 2, "name": "cat"}, {"id": 1, "name": "dog"}]
    first["annotations"] = second["annotations"] = [object_of(1, [])]
    written(tmp_path / "e" / "x.json", first)
    written(tmp_path / "e" / name, second)
    assert tags(tmp_path / "e") == {"a.jpg": ["cat"], "c.jpg": ["dog"]}

    second["images"][0]["file_name"] = "a.jpg"
    written(tmp_path / "e" / name, second)
    with pytest.raises(UserError, match="lists 'a.jpg' a second time, after .*; keep one of them"):
        tags(tmp_path / "e")


def changed(content: object, choose: st.DataObject) -> object:
    """JSON with one value, somewhere, replaced by another of any type."""
    if isinstance(content, (dict, list)) and content and choose.draw(st.integers(0, 9)):
        keys = list(content) if isinstance(content, dict) else range(len(content))
        key = choose.draw(st.sampled_from(list(keys)))
        content[key] = changed(content[key], choose)
        return content
    odd = (None, True, -1, 0, 2**70, float("nan"), "", "x", "a.jpg", [], {}, [[]], [1], {"x": []})
    return choose.draw(st.sampled_from(odd))


JSONS = sorted(str(file.relative_to(HERE)) for file in HERE.rglob("*.json"))
TEXTS = [str(file.relative_to(HERE)) for file in sorted(HERE.glob("*/**/*")) if file.is_file()]


def read_or_one_sentence(file: str, content: bytes, folder: Path) -> None:
    photos = folder / "photos"
    if not photos.is_dir():
        for name in FILES:
            (photos / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (WIDTH, HEIGHT)).save(photos / name)
    form = folder / Path(file).parts[0]
    shutil.rmtree(form, ignore_errors=True)
    shutil.copytree(HERE / form.name, form)
    (folder / file).write_bytes(content)
    for read in (lambda: tags(form), lambda: masks(form, photos)):
        try:
            assert read() is not None
        except UserError as error:
            assert str(folder) in str(error) and "\n" not in str(error)


@settings(max_examples=60, deadline=None)
@given(choose=st.data(), file=st.sampled_from(JSONS))
def test_any_type_anywhere_is_read_or_one_sentence(
    choose: st.DataObject, file: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = changed(json.loads((HERE / file).read_text()), choose)
    folder = tmp_path_factory.getbasetemp() / "types"
    read_or_one_sentence(file, json.dumps(content).encode(), folder)


@settings(max_examples=60, deadline=None)
@given(
    file=st.sampled_from(TEXTS),
    place=st.floats(0, 1),
    length=st.integers(0, 8),
    put=st.binary(max_size=4) | st.sampled_from([b"-9", b"1e400", b"nan", b"\n", b'"', b"<", b":"]),
)
def test_any_bytes_anywhere_are_read_or_one_sentence(
    file: str, place: float, length: int, put: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = (HERE / file).read_bytes()
    at = int(place * len(content))
    folder = tmp_path_factory.getbasetemp() / "bytes"
    read_or_one_sentence(file, content[:at] + put + content[at + length :], folder)


def test_a_size_may_be_written_with_a_point(tmp_path: Path, photos: Path) -> None:
    cat = "<polygon label='cat' points='0,0;8,0;8,8;0,8'/>"
    path = written(tmp_path / "x.xml", cvat(cat, "width='32.0' height='24.0'"))
    whole = written(tmp_path / "y.xml", cvat(cat))
    assert (masks(path, photos)["a.jpg"] == masks(whole, photos)["a.jpg"]).all()
