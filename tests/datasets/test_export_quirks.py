"""Which form an export has whatever lies beside its annotations, and what they may leave open."""

from collections.abc import Callable
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from exported import CAT, HEIGHT, WIDTH, coco, cvat, masks, object_of, tags, task, written
from PIL import Image

from datasets.annotations import tags_of_file
from datasets.classes import given_classes
from datasets.forms.detect import rows_of_folder
from utils.common.errors import UserError


def voc(*words: str) -> str:
    """Return VOC's XML of a picture with these boxes."""
    objects = "".join(f"<object><name>{word}</name></object>" for word in words)
    return f"<annotation>{objects}</annotation>"


COLOURS = "background:0,0,0::\ncat:128,0,0::\ndog:0,128,0::\n"


def coloured(path: Path, labels: np.ndarray) -> None:
    """Save labels in these colours."""
    path.parent.mkdir(parents=True)
    colours = np.array([[0, 0, 0], [128, 0, 0], [0, 128, 0]], np.uint8)
    Image.fromarray(colours[labels]).save(path)


@pytest.mark.parametrize("beside", ["nothing", "pictures", "empty folders"])
def test_voc_of_cvat_has_a_list_of_colours_though_it_has_boxes_alone(
    beside: str, tmp_path: Path, photos: Path
) -> None:
    written(tmp_path / "voc" / "labelmap.txt", COLOURS)
    written(tmp_path / "voc" / "Annotations" / "sub" / "b.xml", voc("dog"))
    written(tmp_path / "voc" / "ImageSets" / "Main" / "default.txt", "a\nsub/b\n")
    if beside == "pictures":
        coloured(tmp_path / "voc" / "JPEGImages" / "a.png", np.full((HEIGHT, WIDTH), 1))
    if beside == "empty folders":
        (tmp_path / "voc" / "SegmentationClass").mkdir()
    assert tags(tmp_path / "voc") == {"a.jpg": [], "sub/b.jpg": ["dog"]}
    drawn = masks(tmp_path / "voc", photos)
    assert drawn["sub/b.jpg"] is None and not drawn["a.jpg"].any()


def lists(folder: Path, **texts: str) -> Path:
    """Write lists of pictures as VOC has them."""
    for name, text in texts.items():
        written(folder / "ImageSets" / "Main" / f"{name}.txt", text)
    return folder


VOC_LISTS = {  # original: difficult alone is 0, names have no suffix, two splits and both
    "cat_train": "a  1\nb -1\n",
    "dog_train": "a -1\nb  0\n",
    "cat_val": "c -1\n",
    "dog_val": "c -1\n",
    "cat_trainval": "a  1\nb -1\nc -1\n",
    "dog_trainval": "a -1\nb  0\nc -1\n",
    "train": "a\nb\n",
    "val": "c\n",
    "trainval": "a\nb\nc\n",
    "test": "d\n",
}


@pytest.mark.parametrize("given", ["VOC2012", "", "VOC2012/ImageSets", "VOC2012/ImageSets/Main"])
def test_lists_of_voc_are_tags_without_xml(given: str, tmp_path: Path) -> None:
    """And the names of its test split, of which nothing is known, are none."""
    lists(tmp_path / "devkit" / "VOC2012", **VOC_LISTS)
    files = [PurePosixPath(name) for name in ("a.jpg", "b.jpg", "c.jpg", "d.jpg")]
    expected = {"a.jpg": ["cat"], "b.jpg": ["dog"], "c.jpg": []}
    assert tags(tmp_path / "devkit" / given, files) == expected


def test_lists_add_to_the_boxes_of_cvat_and_not_to_the_xml_of_voc(tmp_path: Path) -> None:
    for part in ("voc", "cvat"):
        lists(tmp_path / part, cat_train="a 1\nc 1\n", dog_train="a -1\nc -1\n", train="a\nc\nd\n")
        written(tmp_path / part / "Annotations" / "a.xml", voc("dog"))
    written(tmp_path / "cvat" / "labelmap.txt", COLOURS)
    files = [
        PurePosixPath(part, "JPEGImages", f"{n}.jpg") for part in ("voc", "cvat") for n in "acd"
    ]
    found = {
        file[:-4].replace("/JPEGImages", ""): said for file, said in tags(tmp_path, files).items()
    }
    assert found == {
        "voc/a": ["dog"],
        "voc/c": ["cat"],
        "cvat/a": ["cat", "dog"],
        "cvat/c": ["cat"],
        "cvat/d": [],
    }


def test_tags_of_pictures_are_added_to_masks_in_colours(tmp_path: Path, photos: Path) -> None:
    root = tmp_path / "voc"
    written(root / "labelmap.txt", COLOURS)
    coloured(root / "SegmentationClass" / "a.png", CAT)
    lists(root, cat_x="a 1\nsub/b -1\n", dog_x="a 1\nsub/b 1\n", x="a\nsub/b\nc\n")
    assert tags(root) == {"a.jpg": ["cat", "dog"], "sub/b.jpg": ["dog"], "c.jpg": []}
    drawn = masks(root, photos)
    assert drawn["a.jpg"] is drawn["sub/b.jpg"] is None and not drawn["c.jpg"].any()


@pytest.mark.parametrize("split", ["train", "my_train", "light_train"])
@pytest.mark.parametrize("name", ["cat", "traffic light", "traffic_light", "light"])
def test_classes_and_splits_of_lists_may_have_gaps_as_pictures_do(
    name: str, split: str, tmp_path: Path
) -> None:
    marked = {f"{name}_{split}": '"b c"  1\nd -1\n', "light_off_train": "d -1\n"}
    lists(tmp_path, **marked, **{split: "b c\nd\n"})
    spec = given_classes("cat, traffic light, light, off, my")
    files = [PurePosixPath("b c.jpg"), PurePosixPath("d.jpg")]
    found = tags_of_file(tmp_path, files, spec)
    assert found == {files[0]: {name.replace("_", " ")}, files[1]: set()}


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (
            {"cat_x": "a 1\nc\n"},
            "cat_x.txt has 'c' where other lines have a picture's name and 1, 0",
        ),
        ({"cat_x": "a\nc 1\n"}, "cat_x.txt has 'a' where"),
        ({"cat_x": "a 1\nc 2\n"}, "cat_x.txt has 'c 2' where"),
        (
            {"cat_x": "a 1\nc 0\n", "dog_x": "a 1\n"},
            "cat_x.txt has marks of 0, which VOC has where",
        ),
        ({"bird_x": "a 1\nc -1\n"}, "bird_x.txt, a has the tag 'bird', which is no class"),
        ({"x": "a\nc\n"}, "holds no XML file"),
    ],
)
def test_lists_that_may_mean_something_else_are_refused(
    texts: dict[str, str], said: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=said) as caught:
        tags(lists(tmp_path / "voc", **texts))
    assert "\n" not in str(caught.value)


def test_boxes_beside_masks_in_colours_are_tags_too(tmp_path: Path, photos: Path) -> None:
    root = tmp_path / "voc"
    written(root / "labelmap.txt", COLOURS)
    for folder in ("SegmentationClass", "SegmentationObject"):
        coloured(root / folder / "a.png", CAT)
    written(root / "ImageSets" / "Segmentation" / "default.txt", "a\nsub/b\nc\n")
    written(root / "Annotations" / "a.xml", voc("cat"))
    written(root / "Annotations" / "sub" / "b.xml", voc("dog"))
    assert tags(root) == {"a.jpg": ["cat"], "sub/b.jpg": ["dog"], "c.jpg": []}
    drawn = masks(root, photos)
    assert np.array_equal(drawn["a.jpg"], CAT)
    assert drawn["sub/b.jpg"] is None and not drawn["c.jpg"].any()

    written(root / "Annotations" / "a.xml", voc("cat", "dog"))  # a box alone shows the dog
    assert tags(root)["a.jpg"] == ["cat", "dog"] and masks(root, photos)["a.jpg"] is None


@pytest.mark.parametrize("first", ["0.xml", "z.aux.xml", "sub/a.xml"])
def test_xml_of_other_tools_beside_annotations_is_left_out_and_said(
    first: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As GDAL leaves a.png.aux.xml beside rasters."""
    foreign = written(tmp_path / "e" / first, "<PAMDataset/>")
    assert rows_of_folder(tmp_path / "e", (), outlines=False) is None
    with pytest.raises(UserError, match="e holds no XML file, JSON, or labels .* as tools for"):
        tags(tmp_path / "e")
    assert not capsys.readouterr().err

    written(tmp_path / "e" / "c.xml", voc("cat"))
    written(tmp_path / "e" / "x.xml", cvat("<box label='dog'/>"))
    assert tags(tmp_path / "e") == {"a.jpg": ["dog"], "c.jpg": ["cat"]}
    said = f"1 XML files of {tmp_path / 'e'} are no annotations of a form that is known, and left"
    assert said in capsys.readouterr().err
    with pytest.raises(UserError, match="holds <PAMDataset> where VOC has <annotation> and CVAT"):
        tags(foreign)


def test_an_empty_split_of_coco_is_left_out_and_said_where_others_have_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = written(tmp_path / "e" / "test.json", coco() | {"images": []})
    for path in (tmp_path / "e", empty):
        with pytest.raises(UserError, match="test.json lists no image; make or copy it again"):
            tags(path)
    written(tmp_path / "e" / "train.json", coco() | {"annotations": [object_of(1, [])]})
    assert tags(tmp_path / "e") == {"a.jpg": ["cat"]}
    said = f"1 COCO files of {tmp_path / 'e'} list no image, and are left out (first test.json)"
    assert said in capsys.readouterr().err


REGION = {"shape_attributes": {"name": "rect"}, "region_attributes": {"class": "cat"}}
PICTURE = {"filename": "a.jpg", "size": 9, "file_attributes": {}}
VIA = {
    "annotations": {"a.jpg9": {**PICTURE, "regions": [REGION]}},
    "of version 1": {"a.jpg9": {**PICTURE, "regions": {"0": REGION}}},
    "project": {"_via_settings": {}, "_via_img_metadata": {"a.jpg9": PICTURE}},
}


@pytest.mark.parametrize("content", VIA.values(), ids=VIA)
def test_the_form_of_vgg_image_annotator_is_named(content: dict, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="x.json is VGG Image Annotator's own form, .* as COCO"):
        tags(written(tmp_path / "x.json", content))


@pytest.mark.parametrize("content", [{"info": {"year": 2024}}, {"a.jpg": {"boxes": [1, 2]}}])
def test_json_of_another_tool_is_told_what_to_write(content: dict, tmp_path: Path) -> None:
    with pytest.raises(UserError, match='where 1 or 0 belongs; write {"cat": 1} or .* as COCO'):
        tags(written(tmp_path / "x.json", content))


LINE = [[2, 2], [12, 18]]
SQUARE = [[2, 2], [12, 2], [12, 18], [2, 18]]


def of_labelme(points: list) -> object:
    return {"imagePath": "a.jpg", "shapes": [{"label": "cat", "points": points}]}


def of_old_labelme(points: list) -> object:
    dots = "".join(f"<pt><x>{x}</x><y>{y}</y></pt>" for x, y in points)
    outlined = f"<object><name>cat</name><polygon>{dots}</polygon></object>"
    return f"<annotation><filename>a.jpg</filename>{outlined}</annotation>"


def of_label_studio(points: list) -> list[dict]:
    shares = [[x / WIDTH * 100, y / HEIGHT * 100] for x, y in points]
    return [task("a.jpg", {"value": {"points": shares, "polygonlabels": ["cat"]}})]


def of_coco(points: list) -> object:
    flat = [side for point in points for side in point]
    return coco() | {"annotations": [object_of(1, [[], flat])]}


def of_scaled_coco(points: list) -> object:
    return {**of_coco(points), "info": {"contributor": "Label Studio"}}


def of_cvat(points: list) -> object:
    return cvat(f"<polygon label='cat' points='{';'.join(f'{x},{y}' for x, y in points)}'/>")


def of_supervisely(points: list) -> object:
    return {"objects": [{"classTitle": "cat", "points": {"exterior": points, "interior": []}}]}


OUTLINED = {
    of_labelme: "x.json",
    of_old_labelme: "x.xml",
    of_label_studio: "x.json",
    of_coco: "x.json",
    of_scaled_coco: "x.json",
    of_cvat: "x.xml",
    of_supervisely: "ds/ann/a.jpg.json",
}


@pytest.mark.parametrize("form", OUTLINED, ids=lambda form: form.__name__)
def test_an_outline_of_fewer_than_three_points_is_a_tag_and_no_mask(
    form: Callable[[list], object], tmp_path: Path, photos: Path
) -> None:
    if form is of_supervisely:
        written(tmp_path / "e" / "meta.json", {"classes": []})
    for points, expected in ((SQUARE, CAT), (LINE, None), (LINE[:1], None), ([], None)):
        if form is of_cvat and not points:
            continue
        written(tmp_path / "e" / OUTLINED[form], form(points))
        assert tags(tmp_path / "e") == {"a.jpg": ["cat"]}
        drawn = masks(tmp_path / "e", photos)["a.jpg"]
        assert np.array_equal(drawn, expected) if points == SQUARE else drawn is None


@pytest.mark.parametrize("outline", [7, "x", [[1, 2, 3]], ["x"], [[[1], [2, 3]]]])
def test_an_outline_that_is_none_is_one_sentence(
    outline: object, tmp_path: Path, photos: Path
) -> None:
    for contributor in ("", "Label Studio"):
        content = coco() | {"annotations": [object_of(1, outline)]}
        path = written(tmp_path / "x.json", {**content, "info": {"contributor": contributor}})
        with pytest.raises(UserError, match="polygon .*is no list"):
            masks(path, photos)


def tree(*paths: list[str]) -> dict:
    return {"type": "taxonomy", "from_name": "tree", "value": {"taxonomy": list(paths)}}


TREES = {
    "leaf": ([["Animal", "cat"]], ["cat"]),
    "several": ([["Animal", "cat"], ["Animal", "Dog"]], ["cat", "dog"]),
    "root": ([["cat", "tabby"]], ["cat"]),
    "flat": ([["dog"]], ["dog"]),
    "both": ([["cat", "dog"]], ["dog"]),
    "empty": ([[]], []),
}


@pytest.mark.parametrize("case", TREES)
def test_of_words_in_a_tree_of_label_studio_the_last_that_is_a_class_is_the_tag(
    case: str, tmp_path: Path
) -> None:
    paths, expected = TREES[case]
    assert tags(written(tmp_path / "t.json", [task("a.jpg", tree(*paths))])) == {"a.jpg": expected}
    for value in (paths, [{"taxonomy": paths}], {"taxonomy": paths}):
        record = {"image": "/data/upload/1/1a2b3c4d-a.jpg", "tree": value, "annotation_id": 1}
        assert tags(written(tmp_path / "min.json", [record])) == {"a.jpg": expected}


def test_a_tree_of_other_words_is_another_question_and_other_results_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = written(tmp_path / "t.json", [task("a.jpg", tree(["Weather", "rain"]))])
    with pytest.raises(UserError, match="has the tag 'rain', which is no class"):
        tags(place)
    results = [
        {"type": "rectanglelabels", "value": {"x": 1, "rectanglelabels": ["cat"]}},
        {"type": "rectangle", "value": {"x": 1, "y": 1, "width": 1, "height": 1}},
        {"value": {"rating": 3}},
        {"type": "textarea", "value": {"text": ["blurry"]}},
        {"type": "relation", "from_id": "x"},
    ]
    written(place, [task("a.jpg", tree(["Weather", "rain"]), *results)])
    assert tags(place) == {"a.jpg": ["cat"]}
    said = capsys.readouterr().err
    assert f"answers to 'tree' in {place} are no classes, as 'rain', and left out" in said
    assert f"results of 'rating', 'textarea' in {place} are not read, and left out" in said


@pytest.mark.parametrize("side", [None, "missing"])
def test_label_studio_need_not_tell_sizes_where_no_outline_uses_them(
    side: str | None, tmp_path: Path, photos: Path
) -> None:
    box = {"x": 1, "y": 1, "width": 9, "height": 9, "rectanglelabels": ["cat"]}
    polygon = of_label_studio(SQUARE)[0]["annotations"][0]["result"][0]["value"]
    ellipse = {"x": 9, "y": 9, "radiusX": 3, "radiusY": 3, "ellipselabels": ["cat"]}
    rest = {"original_width": side, "original_height": side} if side is None else {}
    for value, expected in ((box, None), (polygon, CAT)):
        content = {"data": {"i": "a.jpg"}, "annotations": [{"result": [{**rest, "value": value}]}]}
        path = written(tmp_path / "t.json", [content])
        assert tags(path) == {"a.jpg": ["cat"]}
        assert np.array_equal(masks(path, photos)["a.jpg"], expected)

    content["annotations"][0]["result"][0]["value"] = ellipse
    assert tags(written(path, [content])) == {"a.jpg": ["cat"]}
    with pytest.raises(UserError, match="is an ellipse or brush without original_width and orig"):
        masks(path, photos)


@pytest.mark.parametrize("form", ["[{}, {}]", "{{0: {}, 1: {}}}", "{{'1': {1}, '0': {0}}}"])
@pytest.mark.parametrize("words", ["off on", "no yes", "1 2", "07 0x1F", "2020-13-45 ~", "'a' x"])
def test_names_of_yolo_are_the_text_that_is_written(words: str, form: str, tmp_path: Path) -> None:
    first, second = words.split()
    written(tmp_path / "data.yaml", f"nc: 2\nnames: {form.format(first, second)}\n")
    written(tmp_path / "labels" / "a.txt", "0 .5 .5 .1 .1\n")
    written(tmp_path / "labels" / "b.txt", "1 .5 .5 .1 .1\n")
    spec = given_classes(f"{first},{second}".replace("'", ""))
    found = tags_of_file(tmp_path, [PurePosixPath("a.jpg"), PurePosixPath("b.jpg")], spec)
    assert list(found.values()) == [{spec.classes[0]}, {spec.classes[1]}]


@pytest.mark.parametrize("subset", ["Validation", "train", "my set"])
@pytest.mark.parametrize("prefix", ["data/", ""])
def test_yolo_of_cvat_may_call_its_subsets_anything(
    subset: str, prefix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "yolo"
    written(root / "obj.names", "cat\ndog\n")
    written(root / "obj.data", f"classes = 2\n{subset} = {prefix}{subset}.txt\nbackup = backup/\n")
    for place in (subset, f"{prefix}{subset}"):
        written(root / f"{place}.txt", f"{prefix}obj_{subset}_data/a.jpg\n")
    written(root / f"obj_{subset}_data" / "a.txt", "1 0.5 0.5 0.1 0.1\n")
    assert tags(root) == {"a.jpg": ["dog"]} and not capsys.readouterr().err


@pytest.mark.parametrize("text", ["a\nb\n", "\n1.jpg\n2.jpg\n", "made by hand"])
def test_a_text_beside_a_list_of_classes_that_begins_with_no_number_is_no_label(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written(tmp_path / "e" / "classes.txt", "cat\ndog\n")
    written(tmp_path / "e" / "list.txt", text)
    assert rows_of_folder(tmp_path / "e", (), outlines=False) is None  # such as of masks
    written(tmp_path / "e" / "a.txt", "0 .5 .5 .1 .1\n")
    written(tmp_path / "e" / "c.txt", "\n")
    assert tags(tmp_path / "e") == {"a.jpg": ["cat"], "c.jpg": []}
    assert "1 texts of " in (said := capsys.readouterr().err) and "(first list.txt)" in said


@pytest.mark.parametrize(("place", "text"), [("c.txt", "0,.5,.5,.1,.1"), ("sub/b.txt", "cat .5")])
def test_labels_of_yolo_stay_strict_elsewhere(place: str, text: str, tmp_path: Path) -> None:
    written(tmp_path / "classes.txt", "cat\ndog\n")
    written(tmp_path / "a.txt", "0 .5 .5 .1 .1\n")
    file = written(tmp_path / place, text)
    with pytest.raises(UserError, match=f"{file}, line 1 is {text!r}, no YOLO label"):
        tags(tmp_path)


@pytest.mark.parametrize("source", ["voc", "voc/Annotations"])
@pytest.mark.parametrize(("images", "below"), [("voc/JPEGImages", ""), ("voc", "JPEGImages")])
def test_voc_in_folders_is_told_by_place(
    images: str, below: str, source: str, tmp_path: Path
) -> None:
    for folder, word in (("x", "cat"), ("y", "dog")):
        written(tmp_path / "voc" / "Annotations" / folder / "a.xml", voc(word))
    files = [PurePosixPath(below, folder, "a.jpg") for folder in ("x", "y")]
    assert list(tags(tmp_path / source, files, images).values()) == [["cat"], ["dog"]]


@pytest.mark.parametrize("declared", ["utf-8", "UTF-16", "iso-8859-1", "cp1252", "ascii", "koi8-r"])
@pytest.mark.parametrize("also", ["gb2312", "GBK", "gb18030", "big5", "shift_jis", "euc-kr"])
def test_xml_may_declare_any_encoding_that_python_knows(
    declared: str, also: str, tmp_path: Path
) -> None:
    for encoding in (declared, also):
        head = f'<?xml version="1.0" encoding="{encoding}"?>\n'
        (tmp_path / "a.xml").write_bytes((head + voc("cat")).encode(encoding))
        assert tags(tmp_path / "a.xml") == {"a.jpg": ["cat"]}


def test_xml_in_another_encoding_than_it_declares_is_read_where_it_is_plain_what_is_meant(
    tmp_path: Path,
) -> None:
    """As GB2312 with later letters, UTF-8 with a mark before its old head, and .NET's UTF-16."""
    head = '<?xml version="1.0" encoding="{}"?>'
    for declared, encoding in (("gb2312", "gbk"), ("gb2312", "utf-8-sig"), ("utf-16", "utf-8")):
        text = head.format(declared) + f"<!-- \u9555 -->{voc('cat')}"
        (tmp_path / "a.xml").write_bytes(text.encode(encoding))
        assert tags(tmp_path / "a.xml") == {"a.jpg": ["cat"]}
    for declared in ("shift_jis", "zip", "klingon"):
        (tmp_path / "a.xml").write_bytes(head.format(declared).encode() + b"<annotation>\xff\xff")
        with pytest.raises(UserError, match="a.xml cannot be read in the encoding that it"):
            tags(tmp_path / "a.xml")
