"""Tags in every form that spreadsheets, people and annotation tools write."""

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
import pytest
from helpers import ROOT, run
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import test_msc_flip_voc
from datasets.annotations import tags_of_file
from datasets.classes import given_classes
from datasets.coco_json import read_instances
from datasets.lists import Item
from datasets.own_pictures import picture_names
from datasets.specs import COCO, DatasetSpec
from datasets.tag_sources import find_tags, tags_from_coco_json, tags_of_images
from datasets.tags import Tags, write_tags
from utils.common.console import begin_notices
from utils.common.errors import UserError
from utils.common.files import decoded_text, is_set, read_json

SPEC = DatasetSpec("custom", ("cat", "dog", "traffic light"), ("",) * 3, ())
FILES = [PurePosixPath(name) for name in ("sub/a.jpg", "sub/b.JPG", "Küche/c.png", "d.jfif")]
EXPECTED = {"sub/a.jpg": {"cat"}, "sub/b.JPG": {"cat", "traffic light"}, "Küche/c.png": set()}
HEADER, ROWS = (
    ("image", "tags"),
    (
        ("sub/a.jpg", "cat"),
        ("sub/b.JPG", "cat;traffic light"),
        ("Küche/c.png", ""),
    ),
)


def read(path: Path, content: str | bytes, encoding: str = "utf-8", **options: object) -> dict:
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    found = tags_of_file(path, FILES, SPEC, [Path("/data/photos")], **options)
    return {str(file): classes for file, classes in found.items()}


def table(delimiter: str, ending: str = "\n", header: tuple[str, ...] = HEADER) -> str:
    rows = [delimiter.join(f'"{c}"' if delimiter in c else c for c in row) for row in ROWS]
    return ending.join([delimiter.join(header), *rows, ""])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_any_delimiter_line_ending_and_encoding(
    delimiter: str, ending: str, encoding: str, tmp_path: Path
) -> None:
    assert read(tmp_path / "t.csv", table(delimiter, ending), encoding) == EXPECTED


def test_tables_of_western_windows_and_of_excel(tmp_path: Path) -> None:
    assert read(tmp_path / "t.csv", table(";"), "cp1252") == EXPECTED
    assert read(tmp_path / "t.csv", "sep=;\r\n" + table(";", "\r\n"), "utf-8-sig") == EXPECTED
    blank = table(";").replace("\n", "\n;\n\n ; \n")
    assert read(tmp_path / "t.csv", blank) == EXPECTED
    wide = table(";").replace("\n", ";;;\n")
    assert read(tmp_path / "t.csv", wide) == EXPECTED


@pytest.mark.parametrize(
    "header",
    [
        *(("Image", "Tags"), ("FILENAME", "Label"), ("file_name", "labels"), (" path ", "class")),
        *(("name", "classes"), ("Picture", "category"), ("img", "tag"), ("image id", "categories")),
        *(("File Name", "tags"), ("photo", "Labels"), ("ImageID", "LabelName"), ("imgpath", "tag")),
        *(("image_filename", "class_names"), ("img_name", "Class-Name"), ("ImageFile", "label_1")),
    ],
)
def test_columns_under_their_usual_names(header: tuple[str, str], tmp_path: Path) -> None:
    assert read(tmp_path / "t.csv", table(",", header=header)) == EXPECTED


@pytest.mark.parametrize(
    "titles",
    [
        *("file_name,image_id", "Filename,image,name", "path,filename", "img_path,photo,id"),
        *("image,name,imageId", "image_file,image", "picture id,Name"),
    ],
)
def test_of_several_columns_or_keys_the_one_that_names_files_counts_wherever_it_stands(
    titles: str, tmp_path: Path
) -> None:
    first, *others = titles.split(",")
    columns = {first: ("sub/a.jpg", "d"), **{title: ("d", "sub/a.jpg") for title in others}}
    columns["label"] = ("cat", "dog")
    for order in (list(columns), list(columns)[::-1]):
        rows = [[columns[title][n] for title in order] for n in (0, 1)]
        text = "\n".join(",".join(row) for row in (order, *rows))
        expected = {"sub/a.jpg": {"cat"}, "d.jfif": {"dog"}}
        assert read(tmp_path / "t.csv", text) == expected
        records = [dict(zip(order, row)) for row in rows]
        assert read(tmp_path / "t.json", json.dumps(records)) == expected


@pytest.mark.parametrize("image", [7, "d", "https://host/d", "", None, {"id": "d"}, ["d"]])
def test_an_image_that_is_no_file_name_gives_way_to_one_that_is(
    image: object, tmp_path: Path
) -> None:
    for key in ("file_name", "filename", "path", "image_path"):
        for record in ({"image": image, key: "a.jpg"}, {key: "a.jpg", "image": image}):
            text = json.dumps([{**record, "tags": ["cat"]}])
            assert read(tmp_path / "t.json", text) == {"sub/a.jpg": {"cat"}}
            assert read(tmp_path / "t.jsonl", text[1:-1]) == {"sub/a.jpg": {"cat"}}


def test_of_keys_without_a_text_the_next_names_the_picture(tmp_path: Path) -> None:
    for unnamed in (None, " ", 3):
        record = {"file_name": unnamed, "image": "a.jpg", "tags": ["cat"]}
        assert read(tmp_path / "t.json", json.dumps([record])) == {"sub/a.jpg": {"cat"}}
        with pytest.raises(UserError, match='entry 1 names no image; write it as "image": "a.jpg"'):
            read(tmp_path / "t.json", json.dumps([{"image": unnamed, "tags": ["cat"]}]))


BOTH = {"cat", "dog"}


@pytest.mark.parametrize(
    ("cell", "classes"),
    [
        ("cat;dog", {"cat", "dog"}),
        ("cat, dog", {"cat", "dog"}),
        ("cat|traffic light", {"cat", "traffic light"}),
        ("['cat', 'dog']", {"cat", "dog"}),
        ('["cat"]', {"cat"}),
        ("[]", set()),
        ("cat dog", {"cat", "dog"}),
        ("traffic light", {"traffic light"}),
        ("Traffic_Light; CAT", {"cat", "traffic light"}),
        ("{cat,dog}", {"cat", "dog"}),
        ("background", set()),
        (" cat ;; ", {"cat"}),
        ("cat\ndog", {"cat", "dog"}),
        ('["women\'s shoe"]', {"women's shoe"}),
        ("""['cat', "women's shoe"]""", {"cat", "women's shoe"}),
        ("{cat,women's shoe}", {"cat", "women's shoe"}),
        ('["caf\\u00e9", "dog"]', {"café", "dog"}),
        ("['cat' 'dog']", BOTH),  # as NumPy has lists
        ("['cat' 'dog'\n 'traffic light']", {*BOTH, "traffic light"}),
        ("""["women's shoe" 'cat']""", {"cat", "women's shoe"}),
        ("[np.str_('cat'), np.str_('dog')]", BOTH),
        ("['traffic light']", {"traffic light"}),
        ("['']", set()),
        ('{"choices": ["cat", "dog"]}', {"cat", "dog"}),
        ('[{"x": 1, "rectanglelabels": ["cat"]}, {"x": 2, "rectanglelabels": ["dog"]}]', BOTH),
    ],
)
def test_lists_of_tags_in_a_cell(cell: str, classes: set[str], tmp_path: Path) -> None:
    quoted = cell.replace('"', '""')
    (tmp_path / "t.csv").write_text(f'image,tags\nd.jfif,"{quoted}"\n', encoding="utf-8")
    spec = given_classes("cat, dog, traffic light, women's shoe, café")
    assert tags_of_file(tmp_path / "t.csv", FILES, spec) == {FILES[-1]: classes}


@pytest.mark.parametrize(
    ("yes", "no"),
    [
        ("1", "0"),
        ("1.0", "0.0"),
        ("x", ""),
        ("TRUE", "FALSE"),
        ("Yes", "no"),
        ("y", "n"),
        ("1", "-1"),
        ("X", "-"),
    ],
)
def test_a_column_per_class(yes: str, no: str, tmp_path: Path) -> None:
    text = f"file;Cat;dog;traffic_light\nsub/a;{yes};{no};{no}\nb;{yes};{no};{yes}\nc;{no};{no}\n"
    assert read(tmp_path / "t.csv", text) == EXPECTED


@pytest.mark.parametrize("title", ["", " ", "Unnamed: 0", "Unnamed: 0.1"])
def test_numbers_of_rows_are_no_class(title: str, tmp_path: Path) -> None:
    assert read(tmp_path / "t.csv", f"{title},image,cat,dog\n0,d,1,0\n1,c,0,0\n") == {
        "d.jfif": {"cat"},
        "Küche/c.png": set(),
    }


def test_several_columns_of_tags(tmp_path: Path) -> None:
    text = "image,tag1,tag2,comment\nsub/a,cat,,seen\nb,traffic light,cat,\nc,,,\n"
    assert read(tmp_path / "t.csv", text) == EXPECTED


@pytest.mark.parametrize("cell", ['[{"name": "cat"}]', '{"cat": 1}', "[1]", '["cat", null]'])
def test_json_in_a_cell_that_names_no_class_is_refused(cell: str, tmp_path: Path) -> None:
    quoted = cell.replace('"', '""')
    with pytest.raises(UserError, match="line 2 has the tag .*, which is no class"):
        read(tmp_path / "t.csv", f'image,tags\nd.jfif,"{quoted}"\n')


def test_a_cell_may_be_long(tmp_path: Path) -> None:
    outline = [{"points": [[1.5, 2.5]] * 50_000, "polygonlabels": ["cat"]}]
    cell = json.dumps(outline).replace('"', '""')
    assert read(tmp_path / "t.csv", f'image,label\nd.jfif,"{cell}"\n') == {"d.jfif": {"cat"}}


DETECTIONS = {  # one row per object, as of Roboflow's, MakeSense's and other tools' tables
    "filename,width,height,class,xmin,ymin,xmax,ymax\n"
    "sub/a.jpg,9,9,cat,1,1,2,2\nb.JPG,9,9,cat,1,1,2,2\nsub/b.JPG,9,9,traffic light,1,1,2,2\n"
    "sub/a.jpg,9,9,cat,3,3,4,4\nc.png,9,9,,,,,\n": 2,
    "label_name,bbox_x,image_name,image_width\n"
    "cat,1,a.jpg,9\ncat,1,b.JPG,9\ntraffic light,1,b.JPG,9\n,,c.png,9\n": 1,
    "image;label;score\na;cat;1,0\nb;cat;1\nb;traffic light;\nc;;0\n": 1,
}


@pytest.mark.parametrize("text", DETECTIONS)
def test_rows_of_one_picture_are_its_objects(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin_notices()
    path = tmp_path / "t.csv"
    assert read(path, text) == EXPECTED
    said = f"{DETECTIONS[text]} pictures of {path} have several rows, and the classes of all"
    assert said in capsys.readouterr().err


def test_records_of_one_picture_are_its_objects_and_two_rows_of_marks_are_none(
    tmp_path: Path,
) -> None:
    objects = [{"image": n, "label": c, "score": 1} for n, v in LISTS.items() for c in v]
    found = {name: classes for name, classes in EXPECTED.items() if classes}
    assert read(tmp_path / "t.json", json.dumps(objects)) == found
    with pytest.raises(UserError, match="line 3 lists 'a.jpg' a second time, after .*line 2"):
        read(tmp_path / "t.csv", "image,cat,dog\na,1,0\na.jpg,0,1\n")


@pytest.mark.parametrize("score", ["0", "0.9", ".0", "97", "high"])
def test_rows_of_unsure_classes_are_refused(score: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"line 3 has 'dog' with a score of '{score}'; keep"):
        read(tmp_path / "t.csv", f"image,label,confidence\na,cat,1\nb,dog,{score}\n")
    with pytest.raises(UserError, match=f"entry 1 has 'dog' with a score of '{score}'; keep"):
        read(tmp_path / "t.json", json.dumps([{"image": "b", "label": "dog", "score": score}]))


@pytest.mark.parametrize(
    "called",
    [
        *("sub/a.jpg", "./sub/a.jpg", "sub\\a.jpg", ".\\sub\\a.jpg", "sub//a.jpg", "sub/a", "a"),
        *("a.jpg", "A.JPG", "SUB/A.jpg", " sub/a.jpg ", "photos/sub/a.jpg", "images/sub/a.jpg"),
        *("/home/x/photos/sub/a.jpg", "C:\\Users\\x\\sub\\a.jpg", "//server/share/sub/a.jpg"),
        *("https://host/data/sub/a.jpg", "file:///data/sub/a.jpg", "data/photos/sub/a.jpg"),
        *("/data/upload/3/a.jpg", "/x/sub%2Fa.jpg", "s3://bucket/sub/a.jpg", "photos%5Ca.jpg"),
        *("https://host/a.jpg?raw=true", "https://host/sub/a.jpg?sv=1&sig=b%2Fd%3D", "a.jpg?12"),
        *("/data/local-files/?d=a.jpg", "/data/local-files/?d=sub/a.jpg", "http://x/b?c=1&d=a.jpg"),
        *("/data/local-files/?d=photos%5Csub%5Ca.jpg", "/data/local-files/?d=sub%2Fa.jpg"),
        *("/data/local-files/?d=C%3A%5Cx%5Ca.jpg", "/data/upload/1a2b3c4d-a.jpg?x=1"),
    ],
)
def test_paths_of_any_system(called: str, tmp_path: Path) -> None:
    expected = {"sub/a.jpg": {"cat"}}
    assert read(tmp_path / "t.csv", f'image,tags\n"{called}",cat\n') == expected
    assert read(tmp_path / "t.json", json.dumps({called: ["cat"]})) == expected
    content = {**INSTANCES, "images": [{"id": 1, "file_name": called}]}
    content["annotations"] = INSTANCES["annotations"][:1]
    assert read(tmp_path / "t.json", json.dumps(content)) == expected


@pytest.mark.parametrize(
    "called",
    [
        *("../sub/a.jpg", "other/a.jpg", "sub", "", "sub/", "/", "b.png", "a?.jpg", "a?"),
        *("https://x/other.jpg?w=a", "?d=a"),
    ],
)
def test_paths_that_lead_elsewhere_are_no_pictures(called: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"t.csv, line 2: .* is no picture below --images"):
        read(tmp_path / "t.csv", f'image,tags\n"{called}",cat\n')


@pytest.mark.parametrize("encoding", ["cp1251", "gbk"])
def test_names_in_another_encoding_are_told_as_such(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes("image,tags\nв.jpg,cat\n".encode(encoding))
    for partial in (False, True):
        with pytest.raises(UserError, match="not the letters that you wrote, save the file as UTF"):
            tags_of_file(path, [PurePosixPath("в.jpg")], SPEC, partial=partial)


INSTANCES = {
    "images": [
        {"id": 1, "file_name": "sub\\a.jpg", "height": 4, "width": 5},
        {"id": 2, "file_name": "/data/b.JPG", "height": "4", "width": 5.0},
        {"id": 3, "file_name": "c.png"},
        {"id": 4, "file_name": "elsewhere.png"},
    ],
    "categories": [{"id": 7, "name": "Cat"}, {"id": 8, "name": "traffic light"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 7, "iscrowd": "0", "segmentation": None},
        {"id": 2, "image_id": 2, "category_id": 7, "iscrowd": False, "bbox": []},
        {"id": 3, "image_id": 2, "category_id": 8, "iscrowd": "1"},
    ],
}
LISTS = {name: sorted(classes) for name, classes in EXPECTED.items()}
JSONS: dict[str, object] = {
    "instances": INSTANCES,
    "mapping": LISTS,
    "texts": {name: ";".join(classes) for name, classes in LISTS.items()},
    "under tags": {"tags": LISTS, "note": "hand-made"},
    "records": [{"image": name, "tags": classes} for name, classes in LISTS.items()],
    "labels": [{"file_name": n, "labels": [{"label": c} for c in v]} for n, v in LISTS.items()],
    "text records": [{"path": n, "label": ",".join(v)} for n, v in LISTS.items()],
    "marks": {n: {c: int(c in v) for c in SPEC.classes} for n, v in LISTS.items()},
    "nulls": {n: v or None for n, v in LISTS.items()},
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le"])
@pytest.mark.parametrize("form", JSONS)
def test_json_of_any_form_and_encoding(form: str, encoding: str, tmp_path: Path) -> None:
    begin_notices()
    text = json.dumps(JSONS[form], ensure_ascii=False)
    assert read(tmp_path / "t.json", text, encoding) == EXPECTED


def test_json_lines(tmp_path: Path) -> None:
    lines = [json.dumps({"image": name, "tags": classes}) for name, classes in LISTS.items()]
    assert read(tmp_path / "t.jsonl", "\n\n".join(lines), "utf-8-sig") == EXPECTED
    with pytest.raises(UserError, match=r"t.jsonl, line 2 is not JSON"):
        read(tmp_path / "t.jsonl", lines[0] + "\n{")


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"objects": {"categories": [0]}}, "of image, objects; write them as"),
        ({"cat": 1, "dog": 0}, "says nothing of tags"),
        ({}, "says nothing of tags"),
        ({"tags": [{"label": "cat", "score": 0.9}]}, "'cat' with a score of 0.9; keep the"),
        ({"tags": [{"label": "cat", "confidence": 0}]}, "'cat' with a score of 0; keep the"),
    ],
)
def test_a_record_that_says_no_tags_or_unsure_ones_is_refused(
    entry: dict, reason: str, tmp_path: Path
) -> None:
    name = next(iter(LISTS))
    for file, text in (
        ("t.json", json.dumps([{"image": name, **entry}])),
        ("t.jsonl", json.dumps({"image": name, **entry})),
    ):
        with pytest.raises(UserError, match=rf"{file}, entry 1 .*{reason}"):
            read(tmp_path / file, text)
    for empty in (None, [], ""):
        told = json.dumps([{"image": name, "tags": empty, "note": 1}])
        assert read(tmp_path / "t.json", told) == {name: set()}


@pytest.mark.parametrize("value", ["1", 1, True, "true", 1.0, " Yes ", "TRUE"])
def test_marks_that_say_yes(value: object) -> None:
    assert is_set(value)


@pytest.mark.parametrize("value", ["0", 0, False, "false", None, "", 0.0, "no", [], {}, "none"])
def test_marks_that_say_no(value: object) -> None:
    assert not is_set(value)


@pytest.mark.parametrize("kind", [int, str, float, lambda number: f" {number} "])
def test_instances_of_odd_types_are_what_they_mean(
    kind: Callable[[int], object], tmp_path: Path
) -> None:
    content = json.loads(json.dumps(INSTANCES))
    for annotation in content["annotations"]:
        annotation["image_id"] = kind(annotation["image_id"])
    for category in content["categories"]:
        category["id"] = kind(category["id"])
    (tmp_path / "t.json").write_text(json.dumps(content), encoding="utf-8-sig")
    found = {image.name: image for image in read_instances(tmp_path / "t.json", outlines=True)}
    assert [shape.crowd for shape in found["/data/b"].shapes] == [False, True]
    assert not found["sub/a"].shapes[0].crowd and found["/data/b"].height == 4


ANNOTATION = (
    "<annotation><filename>{}</filename>"
    "<object><name>cat</name><difficult>1</difficult></object>"
    "<object><name> traffic light </name></object></annotation>"
)


def test_voc_xml_of_own_classes(tmp_path: Path) -> None:
    folder = tmp_path / "Annotations"
    for place, filename in (("sub/a.xml", "other.jpg"), ("x/1.xml", "b.JPG"), ("c.xml", "")):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_text(ANNOTATION.format(filename), encoding="utf-8-sig")
    found = tags_of_file(folder, FILES, SPEC)
    assert {str(file) for file in found} == {"sub/a.jpg", "sub/b.JPG", "Küche/c.png"}
    assert all(classes == {"cat", "traffic light"} for classes in found.values())
    one = tags_of_file(folder / "c.xml", FILES, SPEC)
    assert list(one) == [PurePosixPath("Küche/c.png")]
    (folder / "empty").mkdir()
    with pytest.raises(UserError, match="holds no XML file"):
        tags_of_file(folder / "empty", FILES, SPEC)


def test_an_own_class_gets_a_hint_that_leads_somewhere(tmp_path: Path) -> None:
    text = "image,tags\na,forklift\n"
    with pytest.raises(UserError, match="which is no class; add it to the class list"):
        read(tmp_path / "t.csv", text)
    content = {**INSTANCES, "categories": [{"id": 7, "name": "forklift"}, {"id": 8, "name": "dog"}]}
    (tmp_path / "annotations").mkdir()
    file = tmp_path / "annotations" / "instances_val2014.json"
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match="use `python -m datasets.prepare custom`"):
        tags_from_coco_json(tmp_path, "val", ["sub/a"], COCO)


@pytest.mark.parametrize("listed", ["NFC", "NFD"])
@pytest.mark.parametrize("written", ["NFC", "NFD"])
def test_letters_with_marks_are_the_same_composed_and_apart(
    listed: Literal["NFC", "NFD"], written: Literal["NFC", "NFD"], tmp_path: Path
) -> None:
    name = "Café au lait"
    spec = given_classes(f"{unicodedata.normalize(listed, name)}, dog")
    place = tmp_path / "t.csv"
    for text in ("image,tags\na,{}\n", "image,{}\na,1\n"):
        place.write_text(text.format(unicodedata.normalize(written, name)), encoding="utf-8")
        found = tags_of_file(place, FILES, spec)
        assert list(found.values()) == [{spec.classes[0]}]
    with pytest.raises(UserError, match="each once whatever its case"):
        given_classes("Café, " + unicodedata.normalize("NFD", "café"))


@pytest.fixture
def images(tmp_path: Path) -> list[Item]:
    return [Item(str(file.with_suffix("")), tmp_path / file, None) for file in FILES]


@pytest.mark.parametrize("form", ["table", "windows", *JSONS])
def test_prediction_and_training_take_every_form(
    form: str, images: list[Item], tmp_path: Path
) -> None:
    begin_notices()
    content = {"table": table(","), "windows": table(";").replace("/", "\\")}.get(form)
    path = tmp_path / "tags.any"
    path.write_text(content or json.dumps(JSONS[form]), encoding="utf-8-sig")
    expected = {image.name: LISTS[str(f)] for image, f in zip(images, FILES) if str(f) in LISTS}
    assert tags_of_images(path, SPEC, images) == expected
    names = list(expected)
    matrix = find_tags("voc", tmp_path, "train", names, SPEC, path)
    assert matrix.tolist() == [[c in expected[name] for c in SPEC.classes] for name in names]
    with pytest.raises(UserError, match=r"no tags for 1 of 4 images, first d"):
        find_tags("voc", tmp_path, "train", [*names, "d"], SPEC, path)
    with pytest.raises(UserError):
        tags_of_images(path, SPEC, [Item("z", tmp_path / "z.png", None)])


def test_photos_are_found_by_the_names_that_they_have_though_results_are_called_otherwise(
    tmp_path: Path,
) -> None:
    wanted = {"12:30.jpg": "cat", "sub/who?.jpg": "dog", "a.jpg": "cat", "a.png": "dog"}
    rows = "".join(f"{name},{word}\n" for name, word in wanted.items())
    (tmp_path / "tags.csv").write_text(f"image,tags\n{rows}")
    names = picture_names([PurePosixPath(name) for name in wanted])
    items = [Item(own, tmp_path / name, None) for own, name in zip(names, wanted)]
    found = tags_of_images(tmp_path / "tags.csv", SPEC, items)
    assert found == {"12_30": ["cat"], "sub/who_": ["dog"], "a": ["cat"], "a.png": ["dog"]}


def test_a_table_restricts_predictions(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)).save(folder / name)
    (tmp_path / "tags.csv").write_text("image;tags\r\nphotos\\a.png;cat\r\nelsewhere;dog\r\n")
    flags = ["--model_path", ROOT / "model" / "toy_voc.pt", "--images", folder, "--no_crf"]
    flags += ["--work_dir", tmp_path / "out", "--resize_long", 64, "--device", "cpu"]
    assert run(test_msc_flip_voc.main, *flags, "--tags", tmp_path / "tags.csv") == 0
    entries = (tmp_path / "out" / "images.jsonl").read_text().splitlines()[1:]
    tagged = {e["name"]: e.get("tags") for e in map(json.loads, entries)}
    assert tagged == {"a": ["cat"], "b": None}


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["a", "cat", "", "1"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["image", "tags", "a", "id", "images"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)


@settings(max_examples=80, deadline=None)
@given(value=JSON_VALUES)
def test_any_json_is_tags_or_one_sentence(
    value: object, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    try:
        assert read(path, json.dumps(value))
    except UserError as error:
        assert "any.json" in str(error) and "\n" not in str(error)


KEYS = [
    (part, key)
    for part, entries in INSTANCES.items()
    for key in sorted({key for entry in entries for key in entry})
]


@settings(max_examples=120, deadline=None)
@given(value=JSON_VALUES, place=st.sampled_from(KEYS))
def test_any_type_in_instances_is_read_or_one_sentence(
    value: object, place: tuple[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = json.loads(json.dumps(INSTANCES))
    part, key = place
    content[part][0][key] = value
    path = tmp_path_factory.getbasetemp() / "instances.json"
    for outlines in (True, False):
        path.write_text(json.dumps(content))
        try:
            assert read_instances(path, outlines)
        except UserError as error:
            assert "instances.json" in str(error) and "\n" not in str(error)


@settings(max_examples=150, deadline=None)
@given(
    text=st.text(st.sampled_from("image,tgs;\"\n\r\t\0 é\\|[]'{}01"), max_size=40),
    delimiter=st.sampled_from(",;\t|"),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"]),
)
def test_any_text_is_a_table_or_one_sentence(
    text: str, delimiter: str, encoding: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    try:
        assert read(path, f"image{delimiter}tags\n{text}", encoding)
    except UserError as error:
        assert "any.csv" in str(error) and "\n" not in str(error)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=80))
def test_any_bytes_are_text_or_one_sentence(content: bytes) -> None:
    try:
        assert isinstance(decoded_text("some.csv", content), str)
    except UserError as error:
        assert "some.csv" in str(error)


def test_a_json_of_another_kind_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[1]", encoding="utf-8-sig")
    assert read_json(tmp_path / "a.json", kinds=(list,)) == [1]
    with pytest.raises(UserError, match="holds a JSON list, not an object"):
        read_json(tmp_path / "a.json")


# As cameras and phones name pictures: again in each folder, and twice with other suffixes.
ALIKE = [PurePosixPath(name) for name in ("x.jpg", "x.png", "i.webp", "a/i.jpg", "a/b/i.jpg")]


def classes_of(folder: Path, files: list[PurePosixPath]) -> dict[str, set[str]]:
    return {str(file): found for file, found in tags_of_file(folder, files, SPEC).items()}


@pytest.mark.parametrize("form", ["ours", "xml", "yolo"])
def test_exports_of_pictures_with_like_names_are_read_back(form: str, tmp_path: Path) -> None:
    names = dict(zip(picture_names(ALIKE), [["cat"], ["dog"], ["dog"], ["cat"], []]))
    if form == "ours":
        write_tags(tmp_path / "tags.json", SPEC, Tags(tuple(names), matrix(names), ""))
    for name, classes in names.items():
        if form == "xml":
            objects = "".join(f"<object><name>{each}</name></object>" for each in classes)
            written = tmp_path / "Annotations" / f"{name}.xml"
            text = f"<annotation>{objects}</annotation>"
        elif form == "yolo":
            written = tmp_path / "labels" / f"{name}.txt"
            numbers = (SPEC.classes.index(each) for each in classes)
            text = "".join(f"{number} 0.5 0.5 0.1 0.1\n" for number in numbers)
        else:
            continue
        written.parent.mkdir(parents=True, exist_ok=True)
        written.write_text(text)
    if form == "yolo":
        (tmp_path / "data.yaml").write_text("names: [cat, dog, traffic light]\n")

    source = tmp_path / "tags.json" if form == "ours" else tmp_path
    wanted = {str(file): set(classes) for file, classes in zip(ALIKE, names.values())}
    assert classes_of(source, ALIKE) == wanted


def matrix(names: dict[str, list[str]]) -> np.ndarray:
    return np.array([[each in tags for each in SPEC.classes] for tags in names.values()])


def test_a_name_of_two_pictures_is_refused_where_neither_is_named_in_full(tmp_path: Path) -> None:
    file = tmp_path / "Annotations" / "x.xml"
    file.parent.mkdir()
    file.write_text("<annotation><object><name>cat</name></object></annotation>")
    with pytest.raises(UserError, match=r"'x' may be x.jpg or x.png; write the path"):
        classes_of(tmp_path, ALIKE)


def test_a_name_in_another_folder_is_not_that_of_a_picture_above_it(tmp_path: Path) -> None:
    file = tmp_path / "Annotations" / "other" / "i.xml"
    file.parent.mkdir(parents=True)
    file.write_text("<annotation><object><name>cat</name></object></annotation>")
    with pytest.raises(UserError, match="'i' may be i.webp or a/i.jpg"):
        classes_of(tmp_path, ALIKE)
