"""One's own data: the class list, the CSV, folders as tags, the split, and a run from odd names to
predictions.
"""

import json
import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest
from helpers import run
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import test_msc_flip_coco
import test_msc_flip_voc
import train_voc
from datasets.annotations import tags_of_file
from datasets.classes import given_classes, read_classes, spec_of
from datasets.folders import MASK_MARKS
from datasets.layouts import items
from datasets.own_pictures import pictures
from datasets.predictions import FILE
from datasets.prepare import __main__ as prepare
from datasets.prepare.custom import draw
from datasets.prepare.own_masks import masks_of
from datasets.specs import BACKGROUND, TEMPLATE, VOC
from datasets.tags import read_all_tags, read_tags
from datasets.toy.write import write_custom
from utils.common.console import begin_notices
from utils.common.entry import command
from utils.common.errors import UserError
from utils.config import Config, load_config

prepare_main = command(prepare.main)
ODD = (
    "Küche/IMG 01.JPG",
    "Küche/IMG 01.jpeg",
    "sub dir/深い/写真.png",
    "a;b/c (1).JPEG",
    "com,ma/'q'.webp",
    "dots.v2.final.bmp",
    "x:y?.tif",
    " _ .jpg",
)
CLASSES = (
    "classes: [cat, dog, traffic light]\nbackground: [grass, Dog]\nprompts: {cat: 'cat, kitten'}\n"
)


def written(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Folder `photos` of pictures under odd names, beside classes.yaml and tags.csv, which leaves
    the last one out.
    """
    for number, name in enumerate(ODD):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 32), (20 * number, 0, 0)).save(tmp_path / "photos" / name)
    written(tmp_path / "classes.yaml", CLASSES)
    rows = [
        f'"{name}",{("cat", "dog;cat", "", "traffic light")[n % 4]}'
        for n, name in enumerate(ODD[:-1])
    ]
    written(tmp_path / "tags.csv", "\n".join(["image,tags", *rows, ""]))
    return tmp_path


def prepared(folder: Path, *more: object) -> int:
    flags = [
        "--images",
        folder / "photos",
        "--classes",
        folder / "classes.yaml",
        "--out",
        folder / "out",
    ]
    return run(prepare_main, "custom", *flags, *more)


def test_a_class_list_says_what_it_means(tmp_path: Path) -> None:
    spec = read_classes(written(tmp_path / "c.yaml", CLASSES))
    assert (spec.name, spec.classes, spec.prompts) == (
        "custom",
        ("cat", "dog", "traffic light"),
        ("cat, kitten", "dog", "traffic light"),
    )
    assert (spec.background, spec.dropped, spec.template) == (("grass",), ("Dog",), TEMPLATE)
    short = read_classes(
        written(tmp_path / "c.yaml", "classes:\n- no\n- 7\n- sky\ntemplate: 'a photo of {}'")
    )
    assert short.classes == ("no", "7", "sky") and short.dropped == ("sky",)
    assert (
        set(short.background) == set(BACKGROUND) - {"sky"} and short.texts()[0] == "a photo of no"
    )
    assert (
        spec_of("voc", tmp_path) is VOC
        and spec_of("custom", "nowhere", tmp_path / "c.yaml") == short
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("classes: [a, b\nprompts: {}", "line 2 is not YAML"),
        ("- a\n- b\n", "must hold `classes"),
        ("- a\n- b\n- c\n- d\n", "write `classes: [a, b, c, ...]`"),
        ("cat\ndog\n", "write `classes: [cat, dog]`"),
        ("path: x\nnc: 2\nnames:\n  0: cat\n  1: dog\n", "write `classes: [cat, dog]` alone"),
        ("train: x\nnames: [cat, dog]\n", "write `classes: [cat, dog]` alone"),
        ("", "must hold `classes"),
        ("background: [sky]\n", "has no list `classes`"),
        ("clases: [a]\n", "line 1 has the key 'clases', did you mean 'classes'?"),
        ("classes: [a]\nclasses: [b]\n", "line 2 has the key 'classes' a second time"),
        (
            "classes: [cat]\nprompts:\n  cat: x\n  'cat ': y\n",
            "line 4 has the key 'cat' a second time; keep one",
        ),
        ("classes: a\n", "line 1 should be a list"),
        ("classes:\n- a\n- [b]\n", "line 3 should be a name"),
        ("classes:\n- a\n-\n", "line 3 should be a name"),
        ("classes:\n- Cat\n- cat\n", "line 3 has the class 'cat'"),
        ("classes: [background]", "line 1 has the class 'background'"),
        ("classes: ['a;b']", "line 1 has the class 'a;b'"),
        ("classes: []", "lists 0 classes; give 1 to 254"),
        (
            "classes: [cat]\nprompts:\n  cta: x\n",
            "line 3 words the class 'cta', which is not listed, did you mean",
        ),
        ("classes: [cat]\ntemplate: a photo\n", "line 2 has the template 'a photo'"),
        ("classes: [cat]\ntemplate: '{} {0.__class__}'\n", "line 2 has the template"),
        (b"classes: [\xff]\n", "is not YAML ('utf-8' codec can't decode"),
        ("[" * 1200, "c.yaml"),
    ],
)
def test_a_malformed_class_list_is_one_sentence_with_its_line(
    text: str | bytes, said: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as caught:
        read_classes(written(tmp_path / "c.yaml", text))
    assert (
        said in str(caught.value)
        and "c.yaml" in str(caught.value)
        and "\n" not in str(caught.value)
    )


def test_a_yaml_tag_is_never_obeyed(tmp_path: Path) -> None:
    text = f"classes: !!python/object/apply:os.mkdir [{tmp_path / 'made'}]"
    assert read_classes(written(tmp_path / "c.yaml", text)).classes == (str(tmp_path / "made"),)
    assert not (tmp_path / "made").exists()


@settings(max_examples=100, deadline=None)
@given(st.text(st.sampled_from("classes: [ab]{}\n-&*!'\"|>#%@,\t\0é7"), max_size=60))
def test_any_text_is_a_class_list_or_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = written(tmp_path_factory.getbasetemp() / "fuzz.yaml", text)
    try:
        assert read_classes(path).classes
    except UserError as error:
        assert "fuzz.yaml" in str(error)


def test_odd_names_are_indexed_split_and_tagged(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepared(photos, "--tags", photos / "tags.csv", "--val_share", 0.3) == 0
    said = capsys.readouterr().out
    assert "5 training and 2 validation pictures, 0 masks" in said
    assert "1 pictures below" in said and "left out" in said
    assert "'Dog' names a class and is left out of the background words" in said
    found = [item for split in ("train", "val") for item in items("custom", photos / "out", split)]
    assert {item.image for item in found} == {photos / "photos" / name for name in ODD[:-1]}
    assert {item.name for item in found} >= {
        "Küche/IMG 01",
        "Küche/IMG 01.jpeg",
        "dots.v2.final",
        "x_y_",
    }
    spec = spec_of("custom", photos / "out")
    names = ["Küche/IMG 01", "Küche/IMG 01.jpeg", "a;b/c (1)", "sub dir/深い/写真"]
    matrix = read_tags(photos / "out" / "tags.json", spec, names)
    assert matrix.tolist() == [
        [True, False, False],
        [True, True, False],
        [False, False, True],
        [False, False, False],
    ]
    shutil.move(photos, photos.with_name("moved"))
    assert len(items("custom", photos.with_name("moved") / "out", "train")) == 5
    config = load_config(photos.with_name("moved") / "out" / "config.yaml")
    assert (config.dataset, config.data_root) == ("custom", str(photos / "out"))
    # the length suits the pictures, and what follows it keeps its share of the default's
    usual = Config()
    for name in ("warmup_iters", "eval_every"):
        share = getattr(usual, name) / usual.max_iters
        assert getattr(config, name) == round(share * config.max_iters)
    assert not config.after_switch(config.max_iters)  # as by default


@pytest.mark.skipif(sys.platform != "linux", reason="names are text there")
def test_a_folder_whose_name_is_no_text_is_prepared(photos: Path) -> None:
    folder = photos.rename(photos.with_name(os.fsdecode(b"K\xfcche")))
    assert prepared(folder, "--tags", folder / "tags.csv", "--val_share", 0.3) == 0
    out = (folder / "out").rename(folder / os.fsdecode(b"\xfc"))
    (out / "config.yaml").unlink()
    flags = "--images", folder / "photos", "--classes", folder / "classes.yaml", "--out", out
    assert run(prepare_main, "custom", *flags, "--tags", folder / "tags.csv") == 0
    config = load_config(out / "config.yaml")
    assert (config.data_root, config.work_dir) == (str(out), "runs/_")
    assert len(items("custom", out, "train")) == 6


def test_a_second_run_gives_the_same_and_keeps_an_edited_configuration(photos: Path) -> None:
    out = photos / "out"
    assert prepared(photos, "--tags", photos / "tags.csv") == 0
    first = {path.name: path.read_bytes() for path in out.iterdir()}
    written(out / "config.yaml", "dataset: custom\nlr: 0.1\n")
    assert prepared(photos, "--tags", photos / "tags.csv") == 0
    again = {path.name: path.read_bytes() for path in out.iterdir()}
    assert again == {**first, "config.yaml": b"dataset: custom\nlr: 0.1\n"}


def test_masks_are_found_by_path_and_are_no_pictures(photos: Path) -> None:
    masks = photos / "photos" / "masks"
    for name in ("Küche/IMG 01.JPG.png", "sub dir/深い/写真.png"):
        (masks / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (40, 32)).save(masks / name)
    assert (
        prepared(photos, "--tags", photos / "tags.csv", "--masks", masks, "--val_share", 0.2) == 0
    )
    found = {
        item.name: item.mask
        for split in ("train", "val")
        for item in items("custom", photos / "out", split)
    }
    assert (
        found["Küche/IMG 01"] == masks / "Küche/IMG 01.JPG.png"
        and found["Küche/IMG 01.jpeg"] is None
    )
    assert (
        found["sub dir/深い/写真"] == masks / "sub dir/深い/写真.png" and len(found) == len(ODD) - 1
    )
    assert {item.name for item in items("custom", photos / "out", "val")} <= {
        "Küche/IMG 01",
        "sub dir/深い/写真",
    }
    assert prepared(photos, "--tags", photos / "tags.csv", "--out", photos / "tags.csv") == 2


def test_masks_that_the_last_run_did_not_make_are_left_out(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = {"dots.v2.final", "sub dir/深い/写真"}
    run_folder = photos / "run"
    for item in pictures([photos / "photos"]):
        file = run_folder / "prediction" / f"{item.name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (40, 32)).save(file)
    empty = {"size": [0, 0], "results": {}, "pixels": {}, "files": [], "changed": [0]}
    lines = [json.dumps({"name": name, "image": "", "mask": None, **empty}) for name in told]
    (run_folder / FILE).write_text("\n".join(lines))

    flags = ["--tags", photos / "tags.csv", "--masks", run_folder / "prediction"]
    assert prepared(photos, *flags) == 0
    said = capsys.readouterr().out
    assert f"{len(ODD) - 2} of {len(ODD)} label maps in {flags[-1]} are left out" in said
    found = [item for split in ("train", "val") for item in items("custom", photos / "out", split)]
    assert {item.name for item in found if item.mask} == told


def test_a_mask_that_two_pictures_share_is_given_to_neither(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [PurePosixPath(name) for name in ("a.jpg", "a.png", "b.jpg")]
    masks = tmp_path / "masks"
    masks.mkdir()
    for name in ("a.png", "b.png"):
        Image.new("L", (4, 3)).save(masks / name)

    begin_notices()
    assert masks_of(files, masks, tmp_path) == [None, None, "b.png"]
    assert "call it a.jpg.png if it is of a.jpg" in capsys.readouterr().err
    Image.new("L", (4, 3)).save(masks / "a.png.png")
    assert masks_of(files, masks, tmp_path) == ["a.png", "a.png.png", "b.png"]


@pytest.mark.parametrize(
    "told_by", ["run folder", "its label maps", "export", "labels without training", "class list"]
)
def test_masks_that_number_the_classes_otherwise_are_refused(
    told_by: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = photos / "run"
    places = {
        "class list": ".",
        "export": "pseudo_labels",
        "labels without training": "pseudo_labels",
    }
    maps = folder / places.get(told_by, "prediction")
    for item in pictures([photos / "photos"]):
        file = maps / f"{item.name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(item.image) as photo:
            Image.new("L", photo.size).save(file)

    names = ["dog", "cat", "traffic light"]
    written(folder / "classes.yaml", f"classes: {names}\n")
    if told_by != "class list":
        header = {"format": 1, "checkpoint": "", "options": {}, "classes": ["background", *names]}
        journal = "labelled" if told_by == "labels without training" else "."
        (folder / journal).mkdir(exist_ok=True)
        written(folder / journal / FILE, json.dumps(header) + "\n")

    given = maps if told_by == "its label maps" else folder
    flags = ["--tags", photos / "tags.csv", "--masks", given]
    assert prepared(photos, *flags, "--classes", "cat, dog, traffic light") == 2
    assert (
        f"{maps} was made with 'dog' as label 1, and here it is label 2" in capsys.readouterr().err
    )
    assert prepared(photos, *flags, "--classes", ", ".join(names)) == 0


@pytest.mark.parametrize("named", ["cat, dog,traffic light", "voc", "coco", "Ü: 'x', #y, no, 7"])
def test_classes_are_named_as_every_command_takes_them(named: str, photos: Path) -> None:
    spec = given_classes(named)
    rows = [f'"{name}",{spec.classes[n % 3]}\n' for n, name in enumerate(ODD)]
    written(photos / "tags.csv", "".join(["image,tags\n", *rows]))
    assert prepared(photos, "--classes", named, "--tags", photos / "tags.csv") == 0
    found = spec_of("custom", photos / "out")
    assert found == replace(spec, name="custom", dropped=found.dropped)
    tagged = read_all_tags(photos / "out" / "tags.json", found).matrix
    assert tagged[:, :3].sum(0).tolist() == [3, 3, 2] and tagged.sum() == len(ODD)

    again = photos / "out" / "classes.yaml"
    kept = again.read_bytes()
    assert prepared(photos, "--classes", again, "--tags", photos / "tags.csv") == 0
    assert again.read_bytes() == kept


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("cat, Cat", "--classes cat, Cat has the class 'Cat'; use names"),
        (", ", "--classes ', ' lists 0 classes; give 1 to 254 names separated by commas"),
        ("absent.yaml", "absent.yaml"),
    ],
)
def test_names_that_are_no_classes_are_refused(
    named: str, said: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepared(photos, "--classes", named, "--tags", photos / "tags.csv") == 2
    error = capsys.readouterr().err
    assert said in error and len(error.splitlines()) == 1 and not (photos / "out").exists()


def test_folders_are_tags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = ("cat/1.jpg", "set/cat/dog/2.jpg", "background/3.jpg", "set/dog/4.jpg")
    for place in places:
        (tmp_path / "photos" / place).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "photos" / place)
    written(tmp_path / "classes.yaml", "classes: [cat, dog]")
    written(tmp_path / "val.txt", "cat/1.jpg\n4\n")
    assert prepared(tmp_path, "--val_list", tmp_path / "val.txt") == 0
    assert [item.name for item in items("custom", tmp_path / "out", "val")] == [
        "cat/1",
        "set/dog/4",
    ]
    names = [place.removesuffix(".jpg") for place in places]
    matrix = read_tags(tmp_path / "out" / "tags.json", spec_of("custom", tmp_path / "out"), names)
    assert matrix.tolist() == [[True, False], [True, True], [False, False], [False, True]]
    (tmp_path / "photos" / "5.jpg").touch()
    assert prepared(tmp_path) == 2
    assert "5.jpg lies in no folder named after a class" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("picture", "masks", "expected"),
    [
        ("sub/a.jpg", ("sub/a.png", "a.png"), "sub/a.png"),
        ("a.jpg", ("a.jpg.png", "a.png"), "a.jpg.png"),
        ("IMG_1.JPG", ("img_1.png",), "img_1.png"),
        ("Sub/IMG_1.JPG", ("sub/img_1.jpg.png",), "sub/img_1.jpg.png"),
        ("é.jpg", (unicodedata.normalize("NFD", "é.png"),), unicodedata.normalize("NFD", "é.png")),
        (unicodedata.normalize("NFD", "é.jpg"), ("é.png",), "é.png"),
        ("b.c.jpeg", ("b.c.PNG",), "b.c.PNG"),
        *(("a.jpg", (f"a{mark}.png", "b.png"), f"a{mark}.png") for mark in MASK_MARKS),
        ("sub/A.jpg", ("sub/a_Mask.png",), "sub/a_Mask.png"),
        ("a.jpg", ("a.jpg_gt.png", "c_gt.png"), "a.jpg_gt.png"),
        ("a.jpg", ("a.png", "a_mask.png"), "a.png"),
        ("a.jpg", ("a_mask.png", "a_label.png"), None),
        ("a.png", ("a_mask.png",), "a_mask.png"),
        ("other_gt.jpg", ("other_gt.png",), "other_gt.png"),
        ("Two.jpg", ("two.png", "TWO.png"), None),  # either may be meant
        ("OTHER.jpg", ("other.png",), None),  # that of other.jpg
        ("a.jpg", ("b.png",), None),
    ],
)
def test_a_mask_is_found_as_systems_spell_its_name(
    picture: str, masks: tuple[str, ...], expected: str | None, tmp_path: Path
) -> None:
    files = [PurePosixPath("other.jpg"), PurePosixPath("fits.jpg"), PurePosixPath(picture)]
    for name in (*masks, "fits.png", *map(str, files)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    if len(list(tmp_path.rglob("*.*"))) < len(masks) + 1 + len({*files}):
        pytest.skip("this file system takes the names for one")
    assert masks_of(files, tmp_path, tmp_path)[1:] == ["fits.png", expected]


NO_MASKS = {  # what is said of them, and the folder that it names at its end
    ("b.png", "c_mask.png"): ("has 2 PNGs, first ", "b.png"),
    ("a_.png", "mask_a.png", "sub/b.v2.png"): (
        "with tags (a.png for a.jpg); rename them, or name the folder that holds",
        None,
    ),
    ("SegmentationClass/a.png",): (
        "with tags (a.png for a.jpg); give --masks ",
        "SegmentationClass",
    ),
    ("x/y/sub/B_gt.png", "z.png"): ("with tags (a.png for a.jpg); give --masks ", "x/y"),
    ("a_mask.png", "a_seg.png", "z.png"): ("several PNGs in ", ""),
    ("a_gt.png", "a_seg.png"): ("their masks, a_gt.png and a_seg.png; keep one for each", None),
}


@pytest.mark.parametrize("masks", NO_MASKS)
def test_masks_of_which_none_fits_are_refused(masks: tuple[str, ...], tmp_path: Path) -> None:
    folder = tmp_path / "m"
    for mask in masks:
        (folder / mask).parent.mkdir(parents=True, exist_ok=True)
        (folder / mask).touch()

    said, named = NO_MASKS[masks]
    if named is not None:
        said += str(folder / named)
    with pytest.raises(UserError, match=re.escape(said)):
        masks_of([PurePosixPath("a.jpg"), PurePosixPath("sub/b.jpg")], folder, tmp_path)


def test_what_is_left_of_a_folder_of_masks_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin_notices()
    for mask in ("a.png", "b_gt.png", "b_seg.png", "c.png", "d.png"):
        (tmp_path / mask).touch()
    files = [PurePosixPath("a.jpg"), PurePosixPath("b.jpg")]
    assert masks_of(files, tmp_path, tmp_path) == ["a.png", None]
    said = capsys.readouterr().err
    assert f"2 of 5 PNGs in {tmp_path}, first c.png, are masks of no picture with tags" in said
    assert "1 pictures, first b.jpg, have several PNGs" in said and "and get none" in said

    with pytest.raises(UserError, match="holds no PNG but the pictures; give a folder of label"):
        masks_of([PurePosixPath(file.name) for file in tmp_path.iterdir()], tmp_path, tmp_path)


BAD_TABLES: dict[str, tuple[str | bytes, str]] = {
    "header": ("who,tags\n", "line 1 is 'who,tags'; the header must be image,tags"),
    "no tags": ("image,size\n", "line 1 is 'image,size'; the header must be image,tags"),
    "no class": ("image,cat,size\n写真,1,3\n", "line 1 has the column 'size', which is no class"),
    "no mark": ("image,cat,dog\n写真,1,maybe\n", "line 2 has 'maybe' for 'dog'; write 1 or 0"),
    "workbook": (b"PK\3\4\0\0", "is a workbook, not text; save its sheet as CSV"),
    "old workbook": (b"\xd0\xcf\x11\xe0\xa1\xb1", "is a workbook"),
    "JSON": ("{", "is not valid JSON at line 1"),
    "records": ('[{"image": "写真", "tags": 3}]', "entry 1 has 3 where a list of class names"),
    "no image": ('[{"tags": ["cat"]}]', "entry 1 names no image"),
    "XML": ("<annotation><object>", "is not valid XML"),
    "other XML": ("<svg/>", "holds <svg> where VOC has <annotation>"),
    "empty": ("", "is empty; write the header image,tags and a line per picture"),
    "no rows": ("image,tags\n\n", "lists no picture"),
    "cells": ("image,tags\na;b/c (1).JPEG,cat,dog\n", "line 2 has 3 cells"),
    "unknown class": (
        "image,tags\n写真,cat\nx:y?,caat\n",
        "line 3 has the tag 'caat', which is no class, did you mean 'cat'?",
    ),
    "unknown picture": (
        "image,tags\ndots.v2.finla.bmp,cat\n",
        "line 2: 'dots.v2.finla.bmp' is no picture below --images, did you mean "
        "'dots.v2.final.bmp'?",
    ),
    "two pictures": (
        "image,tags\nKüche/IMG 01,cat\n",
        "line 2: 'Küche/IMG 01' may be Küche/IMG 01.JPG or Küche/IMG 01.jpeg",
    ),
    "twice": ("image,cat,dog\n写真,1,0\n写真.png,0,1\n", "line 3 lists '写真.png' a second time"),
    "outside": (
        "image,tags\n../classes.yaml,cat\n",
        "line 2: '../classes.yaml' is no picture below",
    ),
    "absolute": ("image,tags\n/etc/passwd,cat\n", "line 2: '/etc/passwd' is no picture below"),
    "quotes": ('image,tags\n"a"b,cat\n', "line 2 is not CSV"),
    "no encoding": (
        b"image,tags\nK\x81che/IMG 01.JPG,cat\n",
        "cannot be read as text; save it as plain UTF-8",
    ),
}


@pytest.mark.parametrize("case", BAD_TABLES)
def test_a_malformed_table_is_one_sentence_with_its_line(
    case: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, said = BAD_TABLES[case]
    assert prepared(photos, "--tags", written(photos / "bad.csv", text)) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "bad.csv" in lines[0] and said in lines[0], lines
    assert not (photos / "out").exists()


@settings(max_examples=100, deadline=None)
@given(st.text(st.sampled_from('image,tgs;"\n\r\t\0 é\\'), max_size=40))
def test_any_text_is_a_table_or_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = written(tmp_path_factory.getbasetemp() / "fuzz.csv", "image,tags\n" + text)
    try:
        assert tags_of_file(path, [Path("a.jpg")], VOC)
    except UserError as error:
        assert "fuzz.csv" in str(error) and "\n" not in str(error)


def test_the_drawn_split_depends_on_paths_and_seed_alone() -> None:
    files = [Path(f"{number}.jpg") for number in range(50)]
    chosen = draw(files, 0.2, 50, seed=0)
    assert len(chosen) == 10 and chosen == draw(files[::-1], 0.2, 50, seed=0) != draw(
        files, 0.2, 50, seed=1
    )
    assert len(draw(files, 0.001, 50, 0)) == 1
    with pytest.raises(UserError, match="--val_share 1.5"):
        draw(files, 1.5, 50, 0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: written(folder / "val.txt", "../x\n"), "lists '../x'"),
        (lambda folder: written(folder / "val.txt", "other\n"), "lists 'other', which"),
        (lambda folder: written(folder / "index.json", "{}"), "is no index of format 1"),
        (
            lambda folder: written(
                folder / "index.json",
                (folder / "index.json").read_text().replace("dots.v2.final.bmp", "../c.bmp"),
            ),
            "has no plain file names at 'dots.v2.final'",
        ),
    ],
)
def test_an_index_that_leads_elsewhere_is_refused(
    change: Callable[[Path], Path], said: str, photos: Path
) -> None:
    assert (
        prepared(
            photos,
            "--tags",
            photos / "tags.csv",
            "--val_list",
            written(photos / "v", "dots.v2.final.bmp"),
        )
        == 0
    )
    change(photos / "out")
    with pytest.raises(UserError, match=said):
        items("custom", photos / "out", "val")


@pytest.mark.drawn
def test_odd_names_train_and_predict(quick: list[str], tmp_path: Path) -> None:
    """The README's example, made small; the second script runs without the prepared folder."""
    write_custom(tmp_path, train=10, val=2, size=96, seed=0)
    flags = ["--tags", tmp_path / "tags.csv", "--masks", tmp_path / "masks"]
    assert prepared(tmp_path, *flags) == 0
    assert (
        run(
            prepare_main, "check", "--dataset", "custom", "--root", tmp_path / "out", "--workers", 0
        )
        == 0
    )
    config, work = tmp_path / "out" / "config.yaml", tmp_path / "run"
    assert run(train_voc.main, "--config", config, "--work_dir", work, *quick) == 0
    shutil.rmtree(tmp_path / "out")
    flags = [
        "--model_path",
        work / "checkpoints" / "final.pt",
        "--images",
        tmp_path / "photos",
        "--device",
        "cpu",
    ]
    assert run(test_msc_flip_voc.main, *flags, "--workers", 0, "--no_crf") == 0
    photos, work = (
        [path for path in (tmp_path / "photos").rglob("*") if path.is_file()],
        work / "pictures",
    )
    labels = {
        path.relative_to(work / "prediction").as_posix()
        for path in (work / "prediction").rglob("*.png")
    }
    assert len(labels) == len(photos) == 12 and "a;b, c/深い train 2.png" in labels
    for path in photos:
        label = path.relative_to(tmp_path / "photos").with_suffix(".png")
        with Image.open(path) as photo, Image.open(work / "prediction" / label) as image:
            assert image.size == photo.size
    assert run(test_msc_flip_coco.main, *flags) == 2
