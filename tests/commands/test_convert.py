"""Label maps written for other tools are read back by the rules of these tools, as the same
labels.
"""

import csv
import json
import os
import shutil
import sys
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from helpers import run
from PIL import Image, ImageDraw
from pycocotools.coco import COCO as Instances

from datasets.classes import read_classes
from datasets.exporting.options import FORMATS, MASKS, ExportOptions
from datasets.exporting.write import _whole_folder
from datasets.layouts import items
from datasets.lists import Item
from datasets.own_pictures import pictures
from datasets.pictures import load_image, load_mask
from datasets.predictions import FILE
from datasets.prepare import __main__ as prepare
from datasets.specs import COCO, COCO_IDS, IGNORE, palette
from utils.common.entry import command
from utils.common.errors import UserError
from utils.run_folder.journal import Journal
from utils.tools import convert

convert_main, prepare_main = command(convert.main), command(prepare.main)
CLASSES = ("cat", "traffic light", "größe 2")
Maps = dict[str, np.ndarray]

TWIN = "two.v2 of it.png"  # of another photo that differs by suffix alone

# file names of photos; their size as stored, and how EXIF turns them
PHOTOS = {
    "plain.jpg": (40, 30, 1),
    "turned.jpg": (40, 30, 6),
    TWIN: (17, 23, 1),
    "two.v2 of it.jpg": (23, 17, 1),
    "ein Ordner/schöne größe.png": (31, 9, 1),
    "train/images/thin.png": (1, 25, 1),
    "日本/one.png": (1, 1, 1),
}


def drawn(height: int, width: int, seed: int) -> np.ndarray:
    """Labels with regions that touch, with holes in holes, of one pixel and one pixel wide."""
    rng = np.random.default_rng(seed)
    blocks = rng.choice([0, 1, 2, 3, IGNORE], (height // 6 + 1, width // 6 + 1))
    labels = np.kron(blocks, np.ones((6, 6), int))[:height, :width].astype(np.uint8)
    for depth in range(min(height, width) // 4):
        labels[3 + depth : 14 - depth, 3 + depth : 14 - depth] = depth % 4
    labels[:, width // 2] = 1
    labels[rng.random(labels.shape) < 0.1] = rng.integers(4)
    return labels


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Maps]:
    """A folder with photos/ and prediction/, and its label maps by the names of their photos."""
    folder = tmp_path_factory.mktemp("maps")
    for place, (name, (width, height, orientation)) in enumerate(PHOTOS.items()):
        path = folder / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        exif[274] = orientation
        Image.new("RGB", (width, height), (place, 0, 0)).save(path, exif=exif)

    found = {}
    for seed, item in enumerate(pictures([folder / "photos"])):
        labels = drawn(*load_image(item.image).shape[:2], seed)
        path = folder / "prediction" / f"{item.name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(labels).save(path)
        found[item.name] = labels
    return folder, found


def converted(folder: Path, out: Path, *flags: object, labels: str = "prediction") -> int:
    given = ["--labels", folder / labels, "--images", folder / "photos", "--out", out]
    return run(convert_main, *given, "--classes", ", ".join(CLASSES), "--workers", 0, *flags)


def names_of(folder: Path, kind: str) -> dict[str, Path]:
    files = sorted(path for path in folder.rglob(f"*{kind}") if path.is_file())
    return {path.relative_to(folder).as_posix().removesuffix(kind): path for path in files}


def read_voc(out: Path) -> Maps:
    folder = out / "SegmentationClass"
    listed = (out / "ImageSets/Segmentation/default.txt").read_text(encoding="utf-8").splitlines()
    assert listed == sorted(names_of(folder, ".png"))
    colours = dict(line.split(":")[:2] for line in (out / "labelmap.txt").open(encoding="utf-8"))
    assert colours["größe 2"] == "128,128,0" and colours["ignored"] == "224,224,192"
    for path in names_of(folder, ".png").values():
        with Image.open(path) as image:
            assert image.mode == "P" and image.getpalette() == palette().ravel().tolist()
    return read_png(folder)


def read_png(out: Path) -> Maps:
    return {name: load_mask(path) for name, path in names_of(out, ".png").items()}


def read_coco(out: Path) -> Maps:
    content = Instances(out / "instances.json")
    found = {}
    for image in content.loadImgs(content.getImgIds()):
        labels = np.zeros((image["height"], image["width"]), np.uint8)
        for entry in content.loadAnns(content.getAnnIds(image["id"])):
            pixels = content.annToMask(entry) > 0
            rows, columns = np.nonzero(pixels)
            assert not labels[pixels].any() and entry["area"] == pixels.sum() > 0
            left, top = columns.min(), rows.min()
            assert entry["bbox"] == [left, top, np.ptp(columns) + 1, np.ptp(rows) + 1]
            labels[pixels] = entry["category_id"]
        found[image["file_name"]] = labels
    return found


def read_labelme(out: Path) -> Maps:
    """As LabelMe does: Pillow draws polygons with their outlines."""
    found = {}
    for name, path in names_of(out, ".json").items():
        content = json.loads(path.read_text(encoding="utf-8"))
        size = content["imageWidth"], content["imageHeight"]
        assert load_image(path.parent / content["imagePath"]).shape[1::-1] == size
        mask = Image.new("L", size)
        for shape in content["shapes"]:
            label = CLASSES.index(shape["label"]) + 1
            points = [tuple(point) for point in shape["points"]]
            ImageDraw.Draw(mask).polygon(points, outline=label, fill=label)
        found[name] = np.array(mask)
    return found


def read_yolo(out: Path) -> Maps:
    """As Ultralytics does: OpenCV draws polygons of coordinates rounded down."""
    names = yaml.safe_load((out / "data.yaml").read_text(encoding="utf-8"))["names"]
    assert names == dict(enumerate(CLASSES))
    found = {}
    for path in (path for path in (out / "images").rglob("*.*") if path.suffix in (".jpg", ".png")):
        head, _, tail = str(path).rpartition("/images/")
        labels = np.zeros(load_image(path).shape[:2], np.uint8)
        for line in Path(f"{head}/labels/{tail}").with_suffix(".txt").read_text().splitlines():
            number, *shares = map(float, line.split())
            points = np.reshape(shares, (-1, 2)) * labels.shape[::-1]
            cv2.fillPoly(labels, [points.astype(np.int32)], number + 1)
        found[path.relative_to(out / "images").as_posix()] = labels
    return found


READ: dict[str, Callable[[Path], Maps]] = {
    "voc": read_voc,
    "png": read_png,
    "coco": read_coco,
    "labelme": read_labelme,
    "yolo": read_yolo,
}
EXACT = {
    "voc": ["--format", "voc", "--copy_images"],
    "png": ["--format", "png"],
    "runs": ["--format", "coco"],
    "runs per class": ["--format", "coco", "--objects", "classes"],
    "polygons": ["--format", "coco", "--polygons"],
    "polygons per class": ["--format", "coco", "--polygons", "--objects", "classes"],
    "labelme": ["--format", "labelme"],
    "labelme per class": ["--format", "labelme", "--objects", "classes", "--copy_images"],
    "yolo": ["--format", "yolo"],
    "yolo copies": ["--format", "yolo", "--copy_images"],
}
WITHOUT_CORNERS = ("voc", "png", "runs", "runs per class")


def named_as(format: str, item: Item, photos: Path) -> str:
    """What a form calls a photo."""
    names = {
        "coco": item.image.relative_to(photos).as_posix(),
        "yolo": item.name + item.image.suffix,
    }
    return names.get(format, item.name)


@pytest.mark.parametrize("case", EXACT)
def test_what_is_read_back_is_the_same(
    case: str, maps: tuple[Path, Maps], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, labels = maps
    flags = EXACT[case]
    exact = [] if case in WITHOUT_CORNERS else ["--tolerance", 0]
    assert converted(folder, tmp_path / "out", *flags, *exact) == 0
    found = READ[flags[1]](tmp_path / "out")
    photos = folder / "photos"
    called = {item.name: named_as(flags[1], item, photos) for item in pictures([photos])}

    assert sorted(found) == sorted(called.values())
    ignored = {name: int((each == IGNORE).sum()) for name, each in labels.items()}
    for name, each in labels.items():
        expected = each if flags[1] in MASKS else np.where(each == IGNORE, 0, each)
        np.testing.assert_array_equal(found[called[name]], expected, err_msg=name)

    said = capsys.readouterr().out
    if flags[1] in MASKS:
        assert read_classes(tmp_path / "out" / "classes.yaml").classes == CLASSES
        return
    assert f"{sum(ignored.values())} ignored pixels" in said
    with (tmp_path / "out" / "ignored.csv").open(encoding="utf-8") as file:
        rows = {row["image"]: int(row["ignored"]) for row in csv.DictReader(file)}
    assert rows == {name: count for name, count in ignored.items() if count}


@pytest.mark.parametrize("case", ["voc", "runs", "polygons", "labelme", "yolo"])
def test_prepare_custom_draws_the_same_masks_of_it(
    case: str, maps: tuple[Path, Maps], tmp_path: Path
) -> None:
    folder = tmp_path / "maps"
    shutil.copytree(maps[0], folder)
    wanted = set(maps[1])
    if EXACT[case][1] != "coco":  # the only form that tells photos with their suffix
        (folder / "photos" / TWIN).unlink()
        (folder / "prediction" / f"{TWIN}.png").unlink()
        wanted -= {TWIN}
    (tmp_path / "classes.yaml").write_text(f"classes: [{', '.join(CLASSES)}]", encoding="utf-8")

    flags = EXACT[case]
    exact = [] if case in WITHOUT_CORNERS else ["--tolerance", 0]
    assert converted(folder, tmp_path / "out", *flags, *exact) == 0
    export = tmp_path / "out" / "instances.json" if flags[1] == "coco" else tmp_path / "out"
    given = ["--images", folder / "photos", "--classes", tmp_path / "classes.yaml"]
    given += ["--tags", export, "--masks", export, "--out", tmp_path / "own"]
    assert run(prepare_main, "custom", *given) == 0

    splits = [items("custom", tmp_path / "own", split) for split in ("train", "val")]
    found = {item.name: item.mask for item in chain(*splits)}
    assert set(found) == wanted
    for name, mask in found.items():
        each = maps[1][name]
        expected = each if flags[1] in MASKS else np.where(each == IGNORE, 0, each)
        np.testing.assert_array_equal(load_mask(mask), expected, err_msg=name)


def test_one_object_per_class_or_per_region(maps: tuple[Path, Maps], tmp_path: Path) -> None:
    counts = {}
    for kind in ("regions", "classes"):
        assert converted(maps[0], tmp_path / kind, "--format", "coco", "--objects", kind) == 0
        counts[kind] = len(Instances(tmp_path / kind / "instances.json").anns)
    classes = sum(len(set(each.ravel()) - {0, IGNORE}) for each in maps[1].values())
    assert counts["classes"] == classes < counts["regions"]


def test_processes_write_the_same_bytes(maps: tuple[Path, Maps], tmp_path: Path) -> None:
    for workers in (0, 2):
        flags = ["--format", "coco", "--polygons", "--workers", workers]
        assert converted(maps[0], tmp_path / str(workers), *flags) == 0
    alone, together = (tmp_path / name / "instances.json" for name in "02")
    assert alone.read_bytes() == together.read_bytes()


@pytest.mark.skipif(sys.platform != "linux", reason="names are text there")
@pytest.mark.parametrize("form", READ)
def test_photos_may_lie_in_a_folder_whose_name_is_no_text(
    form: str, maps: tuple[Path, Maps], tmp_path: Path
) -> None:
    folder = tmp_path / os.fsdecode(b"K\xfcche")
    shutil.copytree(maps[0], folder)
    assert converted(folder, tmp_path / "out", "--format", form) == 0
    assert len(READ[form](tmp_path / "out")) == len(maps[1])


@pytest.mark.parametrize("case", EXACT)
def test_photos_of_several_folders_and_suffixes_are_never_called_alike(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = [tmp_path / file for file in ("one/a.jpg", "one/a.png", "one/b.jpg", "two/a.jpg")]
    for photo in photos:
        photo.parent.mkdir(exist_ok=True)
        Image.new("RGB", (5, 4)).save(photo)
    for item in pictures([tmp_path / "one", tmp_path / "two"]):
        path = tmp_path / "labels" / f"{item.name}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.array([[1] * 4 + [IGNORE]] * 4, np.uint8)).save(path)

    given = ["--labels", tmp_path / "labels", "--images", tmp_path / "one", tmp_path / "two"]
    given += ["--classes", ", ".join(CLASSES), "--out", tmp_path / "out", *EXACT[case]]
    if "coco" in EXACT[case]:
        assert run(convert_main, *given) == 2
        said = f"calls both {photos[0]} and {photos[3]} 'a.jpg'; add --copy_images, which names"
        assert said in capsys.readouterr().err and not (tmp_path / "out").exists()
        given.append("--copy_images")
    assert run(convert_main, *given) == 0
    assert len(READ[EXACT[case][1]](tmp_path / "out")) == len(photos)


def test_the_classes_of_coco_have_its_own_numbers(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    Image.new("RGB", (5, 4)).save(tmp_path / "a.jpg")
    Image.fromarray(np.full((4, 5), 80, np.uint8)).save(tmp_path / "labels" / "a.jpg.png")
    given = ["--labels", tmp_path / "labels", "--images", tmp_path / "a.jpg", "--classes", "coco"]
    assert run(convert_main, *given, "--format", "coco", "--out", tmp_path / "out") == 0
    content = Instances(tmp_path / "out" / "instances.json")
    assert [entry["category_id"] for entry in content.anns.values()] == [COCO_IDS[-1]]
    assert content.cats[COCO_IDS[-1]]["name"] == COCO.classes[-1]


def spoilt(folder: Path, labels: np.ndarray, name: str = "plain") -> None:
    """Add a folder `spoilt` with one label map."""
    (folder / "spoilt").mkdir(exist_ok=True)
    Image.fromarray(labels).save(folder / "spoilt" / f"{name}.png")


BAD: dict[str, tuple[Callable[[Path], object], list[object], str]] = {
    "no map": (lambda folder: (folder / "spoilt").mkdir(), [], "holds no PNG"),
    "size": (lambda folder: spoilt(folder, np.ones((30, 41), np.uint8)), [], "is 41 x 30 but its"),
    "size as stored": (
        lambda folder: spoilt(folder, np.ones((30, 40), np.uint8), "turned"),
        [],
        "is 40 x 30 but its photo",
    ),
    "class": (
        lambda folder: spoilt(folder, np.full((30, 40), 4, np.uint8)),
        [],
        "holds label 4, the classes are 0..3",
    ),
    "colours": (lambda folder: spoilt(folder, np.zeros((30, 40, 3), np.uint8)), [], "mode RGB"),
    "no photo": (
        lambda folder: spoilt(folder, np.ones((30, 40), np.uint8), "other"),
        [],
        "has no photo of its name",
    ),
    "ignored": (
        lambda folder: spoilt(folder, np.full((30, 40), IGNORE, np.uint8)),
        ["--ignored", "refuse"],
        "has 1200 pixels of 255, which --format coco cannot hold; use --format voc or png",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_written_is_named_and_nothing_is_left(
    case: str, maps: tuple[Path, Maps], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, flags, said = BAD[case]
    (tmp_path / "photos").symlink_to(maps[0] / "photos")
    spoil(tmp_path)
    out = tmp_path / "out"
    assert converted(tmp_path, out, "--format", "coco", *flags, labels="spoilt") == 2
    assert said in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "spoilt"]


def test_other_processes_leave_nothing_either(tmp_path: Path) -> None:
    for name in ("photos", "labels"):
        (tmp_path / name).mkdir()
    for number in range(64):
        size = 2 if number == 0 else 500  # the first label map does not fit
        Image.new("RGB", (500, 500)).save(tmp_path / "photos" / f"{number:02}.png")
        Image.fromarray(np.eye(size, dtype=np.uint8)).save(tmp_path / f"labels/{number:02}.png")
    flags = ["--format", "voc", "--workers", 2]
    assert converted(tmp_path, tmp_path / "out", *flags, labels="labels") == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels", "photos"]


def test_a_folder_that_is_there_is_kept(
    maps: tuple[Path, Maps], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").write_text("kept")
    assert converted(maps[0], tmp_path, "--format", "png") == 2
    assert "is there already; name a new folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_the_photos_need_a_name_or_a_run_folder(
    maps: tuple[Path, Maps], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, labels = maps
    flags = ["--labels", folder, "--format", "png", "--classes", ",".join(CLASSES)]
    assert run(convert_main, *flags, "--out", tmp_path / "a") == 2
    assert "does not tell its photos; name them" in capsys.readouterr().err

    flags[1] = tmp_path / "run"
    write_run(flags[1], folder, list(pictures([folder / "photos"])))
    assert run(convert_main, *flags, "--out", tmp_path / "b") == 0
    assert sorted(read_png(tmp_path / "b")) == sorted(labels)


def write_run(run_folder: Path, maps: Path, photos: list[Item], bad: int = -1) -> None:
    """Write a run folder with all label maps and a journal of some; the one at `bad` was not
    read.
    """
    run_folder.mkdir()
    (run_folder / "prediction").symlink_to(maps / "prediction")
    empty = {"size": [0, 0], "results": {}, "pixels": {}, "files": [], "changed": [0]}
    with Journal(run_folder) as journal:
        for place, item in enumerate(photos):
            error = {"error": "cut short"} if place == bad else {}
            journal.add(
                {"name": item.name, "image": str(item.image), "mask": None, **empty, **error}
            )


@pytest.mark.parametrize("named", [False, True])
def test_label_maps_that_the_last_run_did_not_make_are_left_out(
    named: bool, maps: tuple[Path, Maps], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, labels = maps
    first, *told = pictures([folder / "photos"])
    write_run(tmp_path / "run", folder, told, bad=0)
    flags = ["--labels", tmp_path / "run", "--format", "png", "--classes", ",".join(CLASSES)]
    flags += ["--images", folder / "photos"] if named else []
    assert run(convert_main, *flags, "--out", tmp_path / "out") == 0
    assert sorted(read_png(tmp_path / "out")) == sorted(set(labels) - {first.name, told[0].name})
    assert f"2 of {len(labels)} label maps in" in capsys.readouterr().out


def test_classes_in_another_order_than_they_were_predicted_in_are_refused(
    maps: tuple[Path, Maps], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = pictures([maps[0] / "photos"])
    write_run(tmp_path / "run", maps[0], list(photos))
    lines = (tmp_path / "run" / FILE).read_text()
    header = {"format": 1, "checkpoint": "", "options": {}, "classes": ["background", *CLASSES]}
    (tmp_path / "run" / FILE).write_text(json.dumps(header) + "\n" + lines)

    flags = ["--labels", tmp_path / "run", "--format", "png", "--out", tmp_path / "out"]
    for names in ("traffic light, cat, größe 2", "traffic light, größe 2, CAT"):
        assert run(convert_main, *flags, "--classes", names) == 2
        error = capsys.readouterr().err
        assert "was made with 'cat' as label 1, and here it is label" in error
        assert error.endswith("name the classes in this order: cat, traffic light, größe 2\n")
    renamed = "Cat, semaphore, größe_2, bus"
    assert run(convert_main, *flags, "--classes", renamed) == 0


@pytest.mark.parametrize("name", ["a", "a/b"])
def test_a_place_below_a_file_is_one_sentence(
    name: str, maps: tuple[Path, Maps], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    out = tmp_path / "file" / name
    assert converted(maps[0], out, "--format", "png") == 2
    said = f"error: the folder {out} cannot be made (Not a directory); name another\n"
    assert capsys.readouterr().err == said


def test_fewer_than_no_process_are_refused(
    maps: tuple[Path, Maps], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--format", "png", "--workers", -3]
    assert converted(maps[0], tmp_path / "out", *flags) == 2
    assert "--workers -3 must not be negative" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"format": "coc"}, "did you mean 'coco'"),
        ({"format": "pascal"}, "use voc, png, coco, labelme, yolo"),
        ({"format": "yolo", "polygons": True}, "--polygons is of --format coco"),
        ({"format": "yolo", "objects": "classes"}, "--objects classes is of"),
        ({"format": "coco", "tolerance": 1.0}, "add --polygons"),
        ({"format": "voc", "tolerance": 1.0}, "leave it out"),
        ({"format": "labelme", "tolerance": float("nan")}, "is not between 0 and 100 px"),
        ({"format": "png", "copy_images": True}, "no place for photos"),
    ],
)
def test_choices_that_a_form_does_not_have_are_refused(choices: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        ExportOptions(**choices)


def test_every_format_has_a_reader_here() -> None:
    assert set(READ) == set(FORMATS)


def test_a_folder_of_the_users_beside_it_is_left_alone(tmp_path: Path) -> None:
    bystander = tmp_path / "coco.partial" / "mine.txt"
    bystander.parent.mkdir()
    bystander.write_text("mine")
    with _whole_folder(tmp_path / "coco") as folder:
        (folder / "a.json").write_text("{}")
    assert bystander.read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir() if path.name != "coco.partial"] == ["coco"]


def test_what_a_killed_conversion_left_is_told_and_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("coco.123.partial", "coco.mine.partial", "coco2.5.partial"):
        (tmp_path / name).mkdir()
    with _whole_folder(tmp_path / "coco") as folder:
        (folder / "a.json").write_text("{}")
    said = capsys.readouterr().err
    assert "coco.123.partial is of a process that was killed" in said and said.count("note:") == 1
    assert len(list(tmp_path.iterdir())) == 4


def test_of_two_that_write_one_folder_the_first_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "coco"
    with pytest.raises(UserError, match="was made meanwhile"), _whole_folder(out) as folder:
        (folder / "a.json").write_text("{}")
        out.mkdir()
        (out / "first.json").write_text("{}")
    assert [path.name for path in tmp_path.rglob("*")] == ["coco", "first.json"]
