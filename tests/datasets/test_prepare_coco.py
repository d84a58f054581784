"""COCO's annotations become masks and tags: right labels, made once, whole after any
interruption.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from helpers import run
from PIL import Image, ImageDraw
from pycocotools import mask as coder

from datasets import coco_json
from datasets.coco_json import AnnotatedImage, Shape, coco_classes, read_instances
from datasets.coco_masks import MARKER, RULES, rule_of
from datasets.layouts import items
from datasets.prepare import __main__ as prepare
from datasets.prepare import coco
from datasets.prepare.parallel import crew
from datasets.specs import COCO, COCO_IDS, IGNORE
from datasets.tags import read_all_tags, read_tags
from utils.common import claim, progress
from utils.common.entry import command
from utils.common.errors import UserError
from utils.common.startup import ROOT

WIDTH, HEIGHT = 60, 40
PERSON, DOG, CUP = (COCO.classes.index(name) + 1 for name in ("person", "dog", "cup"))


def box(left: int, top: int, right: int, bottom: int) -> list[list[float]]:
    return [[left, top, right, top, right, bottom, left, bottom]]


def annotation(image: int, category: str, outline: object, **more: object) -> dict:
    number = COCO_IDS[COCO.classes.index(category)]
    return {
        "id": 7,
        "image_id": image,
        "category_id": number,
        "iscrowd": 0,
        "segmentation": outline,
        **more,
    }


def write_split(
    root: Path, split: str, annotations: list[dict], count: int = 3, year: str = "2014"
) -> None:
    """`count` images of WIDTH x HEIGHT px, numbered from 0, with these annotations."""
    folder = root / f"coco{year}" / f"{split}{year}"
    folder.mkdir(parents=True)
    (root / "annotations").mkdir(exist_ok=True)
    entries = [
        {"id": i, "file_name": f"{split}_{i:03d}.jpg", "height": HEIGHT, "width": WIDTH}
        for i in range(count)
    ]
    for entry in entries:
        Image.new("RGB", (WIDTH, HEIGHT)).save(folder / entry["file_name"])
    categories = [{"id": i, "name": name} for i, name in zip(COCO_IDS, COCO.classes)]
    content = {"images": entries[::-1], "annotations": annotations, "categories": categories}
    (root / "annotations" / f"instances_{split}{year}.json").write_text(json.dumps(content))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """train: a person with a dog in front, a crowd of people, nothing. val: one cup."""
    crowd = {"size": [HEIGHT, WIDTH], "counts": [0, HEIGHT * 20, HEIGHT * 40]}
    train = [
        annotation(0, "dog", box(10, 10, 20, 20)),
        annotation(0, "person", box(5, 5, 40, 30)),
        annotation(1, "person", crowd, iscrowd=1),
    ]
    write_split(tmp_path / "coco", "train", train)
    write_split(tmp_path / "coco", "val", [annotation(0, "cup", box(0, 0, 30, 20))], count=1)
    return tmp_path / "coco"


def prepare_coco(root: Path, *flags: object) -> int:
    return run(command(prepare.main), "coco", "--root", root, "--workers", 0, *flags)


def contents(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


def mask_of(root: Path, name: str) -> np.ndarray:
    image = Image.open(root / "mask" / f"{name.split('_')[0]}2014" / f"{name}.png")
    assert image.mode == "L"
    return np.array(image)


def test_masks_and_tags_of_a_split(root: Path) -> None:
    assert prepare_coco(root) == 0
    first = mask_of(root, "train_000")
    assert (first[10:20, 10:20] == DOG).all() and (
        first == DOG
    ).sum() == 100  # the smaller in front
    assert (first == PERSON).sum() == 35 * 25 - 100
    crowd = mask_of(root, "train_001")
    assert (crowd[:, :20] == PERSON).all() and not crowd[:, 20:].any()
    assert not (root / "mask/train2014/train_002.png").exists()  # it shows no object
    assert [item.name for item in items("coco", root, "train")] == ["train_000", "train_001"]
    assert (mask_of(root, "val_000")[:20, :30] == CUP).all()
    names = ["train_002", "train_000", "train_001"]
    tags = read_tags(root / "annotations/tags_train2014.json", COCO, names)
    assert [[COCO.classes[k] for k in row.nonzero()[0]] for row in tags] == [
        [],
        ["person", "dog"],
        ["person"],
    ]


def test_a_second_run_does_nothing_and_says_so(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare_coco(root)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    monkeypatch.setattr(
        coco, "read_instances", lambda *_, **__: pytest.fail("the annotations were read again")
    )
    capsys.readouterr()
    assert prepare_coco(root) == 0
    assert capsys.readouterr().out.splitlines() == [
        "train2014: tags and masks of all 2 images with objects are there (smaller areas over "
        "larger ones, crowds as their class), nothing to do",
        "val2014: tags and masks of all 1 images with objects are there (smaller areas over "
        "larger ones, crowds as their class), nothing to do",
    ]
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_a_root_that_takes_nothing_is_read_from_another_folder(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(root)
    out = tmp_path / "new" / "out"
    assert prepare_coco(root, "--out", out) == 0
    assert contents(root) == before
    assert "nothing to do" not in capsys.readouterr().out

    assert prepare_coco(root, "--out", out) == 0
    assert capsys.readouterr().out.count("nothing to do") == 2
    here = items("coco", out, "train")
    assert [(item.name, item.image.read_bytes()) for item in here] == [
        (item.name, item.image.read_bytes()) for item in items("coco", root, "train")
    ]
    assert all(item.mask and item.mask.is_relative_to(out) for item in here)

    assert prepare_coco(root) == 0
    for item, same in zip(here, items("coco", root, "train"), strict=True):
        assert item.mask.read_bytes() == same.mask.read_bytes()
    (tmp_path / "file").write_text("")
    assert prepare_coco(root, "--out", tmp_path / "file") == 2
    assert "file takes no links to" in capsys.readouterr().err


def prepare_until_killed(root: Path, writes: int) -> None:
    """In a process of its own: SIGKILL comes when a file is written but does not bear its name
    yet.
    """
    replace, left = os.replace, iter(range(writes))

    def count_down(part: Path, path: Path) -> None:
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(part, path)

    os.replace = count_down
    prepare_coco(root)


def test_killed_while_it_writes_and_run_again_gives_the_same_bytes(
    root: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(root, tmp_path / "other")
    process = get_context("fork").Process(target=prepare_until_killed, args=(root, 3))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert {path.suffix for path in (root / "mask/train2014").iterdir()} == {
        ".json",
        ".png",
        ".partial",
    }
    assert not (root / "mask/val2014").exists()
    assert prepare_coco(root) == prepare_coco(other) == 0
    assert contents(root) == contents(other)


def test_processes_write_the_same_bytes(root: Path, tmp_path: Path) -> None:
    other = shutil.copytree(root, tmp_path / "other")
    assert prepare_coco(root) == 0
    assert run(command(prepare.main), "coco", "--root", other, "--workers", 2) == 0
    assert contents(root) == contents(other)


def test_changed_annotations_are_noticed(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare_coco(root)
    path = root / "annotations/instances_val2014.json"
    path.write_text(path.read_text().replace('"id": 7', '"id": 8'))
    with pytest.raises(
        UserError, match="tags_val2014.json was made from another instances_val2014.json; .*again"
    ):
        items("coco", root, "val")
    assert prepare_coco(root) == 2
    assert (
        "val2014 was made from another instances_val2014.json; remove that folder"
        in capsys.readouterr().err
    )
    shutil.rmtree(root / "mask/val2014")
    assert prepare_coco(root) == 0
    assert len(items("coco", root, "val")) == 1


def test_crowds_may_be_ignored_and_the_choice_is_kept(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare_coco(root, "--crowds", "ignore") == 0
    crowd = mask_of(root, "train_001")
    assert (crowd[:, :20] == IGNORE).all() and not crowd[:, 20:].any()
    assert prepare_coco(root, "--splits", "train") == 2
    said = capsys.readouterr().err
    assert "over crowds, which are 255), not by this one (smaller areas over larger ones" in said
    command_again = f"python -m datasets.prepare coco --root {root} --splits train --crowds class`"
    assert said.rstrip().endswith(f"remove that folder and run `{command_again}")
    assert rule_of(root / "mask/val2014") == RULES["ignore"]


def test_masks_of_an_earlier_rule_are_refused(root: Path) -> None:
    prepare_coco(root)
    marker = root / "mask/val2014" / MARKER
    marker.write_text(json.dumps({**json.loads(marker.read_text()), "rule": "objects first"}))
    with pytest.raises(UserError, match=r"another rule \(objects first\); remove .* --splits val"):
        rule_of(root / "mask/val2014")
    assert prepare_coco(root, "--splits", "val") == 2
    assert "not made here" in rule_of(root / "mask")


def field_mask(shapes: list[Shape], height: int, width: int) -> np.ndarray:
    """Labels by coco2voc's rule, written as it is said: from the smallest area on, each annotation
    takes the pixels that no other has.
    """
    labels = np.zeros((height, width), np.uint8)
    for shape in sorted(shapes, key=lambda shape: shape.area):
        pixels = coco._pixels(shape, height, width)
        labels[pixels & (labels == 0)] = COCO.classes.index(shape.category) + 1
    return labels


def test_overlaps_are_drawn_as_in_the_masks_of_the_field() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        shapes = []
        for number in range(6):
            left, top = rng.integers(0, WIDTH // 2), rng.integers(0, HEIGHT // 2)
            outline = [np.array(box(left, top, left + 25, top + 18)[0], float)]
            area = float(rng.integers(1, 4))  # many are equal, none is the number of pixels
            shapes.append(Shape(number, COCO.classes[number], number % 3 == 0, outline, area))
        found = coco.paint(AnnotatedImage("a", HEIGHT, WIDTH, shapes))
        np.testing.assert_array_equal(found, field_mask(shapes, HEIGHT, WIDTH))


def test_without_areas_pixels_are_counted() -> None:
    shapes = [
        Shape(1, "dog", False, [np.array(box(5, 5, 15, 15)[0], float)]),
        Shape(2, "person", False, [np.array(box(0, 0, 40, 30)[0], float)]),
    ]
    labels = coco.paint(AnnotatedImage("a", HEIGHT, WIDTH, shapes))
    assert (labels[5:15, 5:15] == DOG).all() and (labels == PERSON).sum() == 1200 - 100


def test_masks_of_another_origin_are_kept(
    toy_coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = shutil.copytree(toy_coco, tmp_path / "coco")
    assert prepare_coco(root) == 0
    assert "masks that this command has not made, they are kept" in capsys.readouterr().out
    assert contents(root / "mask") == contents(toy_coco / "mask")
    assert read_all_tags(root / "annotations/tags_val2014.json", COCO).matrix.any(1).all()


def test_2017_names_and_one_split(tmp_path: Path) -> None:
    write_split(tmp_path, "val", [annotation(0, "cup", box(0, 0, 30, 20))], count=1, year="2017")
    assert prepare_coco(tmp_path, "--splits", "val") == 0
    assert items("coco", tmp_path, "val")[0].mask == tmp_path / "mask/val2017/val_000.png"
    assert (tmp_path / "annotations/tags_val2017.json").is_file()


def test_annotations_are_read_once_and_not_at_all_when_prepared(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []
    original = coco_json.read_json
    monkeypatch.setattr(
        coco_json, "read_json", lambda path, *more: reads.append(path.name) or original(path, *more)
    )
    for _ in range(2):
        unprepared = (items("coco", root, "train"), coco_classes(root, "train"))
    assert reads == ["instances_train2014.json"]
    prepare_coco(root, "--splits", "train")
    coco_json._classes.cache_clear()
    reads.clear()
    prepared = (items("coco", root, "train"), coco_classes(root, "train"))
    assert reads == ["tags_train2014.json"]
    assert [item.name for item in prepared[0]] == [item.name for item in unprepared[0]]
    assert [(name, set(classes)) for name, classes in prepared[1].items()] == [
        (name, set(classes)) for name, classes in unprepared[1].items()
    ]
    (root / "annotations/instances_train2014.json").unlink()
    assert coco_classes(root, "train") == prepared[1]  # the small file is enough


def test_polygons_agree_with_another_rasteriser() -> None:
    rng = np.random.default_rng(0)
    height, width = 120, 160
    shapes, truth, edges = [], Image.new("L", (width, height)), Image.new("L", (width, height))
    corners = [rng.integers(3, 9) for _ in range(6)]
    sizes = (70, 50, 40, 30, 20, 12)  # falling, so that each is in front of those before it
    for number, (size, n) in enumerate(zip(sizes, corners)):
        angles = np.linspace(0, 2 * np.pi, n, endpoint=False) + rng.random()
        centre = rng.uniform(0.3, 0.7, 2) * (width, height)
        points = (centre + size * np.stack([np.cos(angles), np.sin(angles)], 1)).clip(
            0, (width, height)
        )
        shapes.insert(0, Shape(number, COCO.classes[number], False, [points.ravel()]))
        ImageDraw.Draw(truth).polygon([tuple(p) for p in points], fill=number + 1)
        ImageDraw.Draw(edges).line([tuple(p) for p in [*points, points[0]]], fill=1, width=3)
    labels = coco.paint(AnnotatedImage("a", height, width, shapes))
    away = np.array(edges) == 0
    assert len(np.unique(labels)) == 7
    np.testing.assert_array_equal(labels[away], np.array(truth)[away])


def test_objects_show_over_crowds_and_both_kinds_of_runs_are_read() -> None:
    area = np.zeros((HEIGHT, WIDTH), bool)
    area[3:30, 7:50] = True
    borders = np.flatnonzero(np.diff(area.T.ravel()))
    runs = np.diff(borders, prepend=-1, append=area.size - 1)
    plain = {"size": [HEIGHT, WIDTH], "counts": runs.tolist()}
    coded = coder.encode(np.asfortranarray(area.astype(np.uint8)))
    for outline in (plain, {"size": [HEIGHT, WIDTH], "counts": coded["counts"].decode()}):
        shapes = [
            Shape(1, "person", True, outline),
            Shape(2, "dog", False, [np.array(box(10, 10, 60, 40)[0], float)]),
        ]
        labels = coco.paint(AnnotatedImage("a", HEIGHT, WIDTH, shapes), "ignore")
        expected = np.where(area, IGNORE, 0)
        expected[10:, 10:] = DOG
        np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize(
    ("outline", "said"),
    [
        ([[1, 2, 3]], "annotation 7: a polygon is no list"),
        ([["a", 2, 3, 4]], "annotation 7: a polygon is no list"),
        ([[0, 0, 1e9, 0, 5, 5]], "annotation 7 reaches to 1e+09 px in an image of 60 x 40"),
        ([[0, 0, float("nan"), 0, 5, 5]], "annotation 7 reaches to nan px"),
        (None, "annotation 7 has no `segmentation`"),
        (
            {"size": [HEIGHT, WIDTH], "counts": [1, 10**9]},
            "annotation 7 has no run lengths of 40 x 60",
        ),
        ({"size": [1, 1], "counts": [1]}, "annotation 7 has no run lengths"),
        ({"size": [HEIGHT, WIDTH], "counts": "0" + 99 * "T2"}, "annotation 7 has no run lengths"),
        ({"counts": 3}, "annotation 7 has no run lengths"),
    ],
)
def test_malformed_outlines_name_file_and_annotation(
    tmp_path: Path, outline: object, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_split(tmp_path, "val", [annotation(0, "cup", outline)], count=1)
    assert prepare_coco(tmp_path, "--splits", "val") == 2
    error = capsys.readouterr().err
    assert "instances_val2014.json" in error and said in error and len(error.splitlines()) == 1


def test_what_is_missing_or_unknown_is_named(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare_coco(root, "--splits", "test") == 2
    assert "instances_test2014.json does not exist" in capsys.readouterr().err
    (root / "coco2014/val2014/val_000.jpg").unlink()
    assert prepare_coco(root, "--splits", "val") == 2
    assert "1 of the 1 images listed" in capsys.readouterr().err
    path = root / "annotations/instances_train2014.json"
    path.write_text(path.read_text().replace('"name": "dog"', '"name": "hound"'))
    assert prepare_coco(root, "--splits", "train") == 2
    assert "has class 'hound', which coco has not" in capsys.readouterr().err
    whole = path.read_text()
    path.write_text(whole.replace("train_001", "train_000"))
    with pytest.raises(UserError, match="lists an image train_000.jpg twice"):
        read_instances(path, outlines=False)
    path.write_text(whole.replace("train_001.jpg", "train_000.png"))
    assert prepare_coco(root, "--splits", "train") == 2
    assert "lists two images called train_000, which differ by suffix" in capsys.readouterr().err


def test_a_killed_worker_is_told() -> None:
    with pytest.raises(UserError, match="fewer --workers"), crew(1) as each:
        list(each(os._exit, [1]))


def test_workers_end_with_a_killed_parent() -> None:
    code = (
        "import os; from datasets.prepare.parallel import crew\nwith crew(2): "
        "os.kill(os.getpid(), 9)"
    )
    # The workers hold the output open, so that this returns when they have ended.
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, timeout=60, check=False
    )
    assert ran.returncode == -signal.SIGKILL


def test_keypoints_of_people_are_no_instances(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = root / "annotations/instances_train2014.json"
    content = json.loads(file.read_text())
    content["categories"] = [{"id": 1, "name": "person", "keypoints": ["nose"], "skeleton": []}]
    content["annotations"] = content["annotations"][1:]
    file.write_text(json.dumps(content))

    assert prepare_coco(root) == 2
    assert "holds keypoints of people" in capsys.readouterr().err
    assert not (root / "mask").exists() and not list(root.rglob("tags_*"))
    with pytest.raises(UserError, match="holds keypoints of people"):
        coco_classes(root, "train")


def test_two_preparations_of_a_folder_are_kept_apart(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(claim, "PATIENCE", 0.1)
    with claim.claimed(root):
        assert prepare_coco(root) == 2
    assert "is in use by another process" in capsys.readouterr().err
    assert not (root / "mask").exists()
    assert prepare_coco(root) == 0


def test_what_many_processes_do_is_told_in_a_log(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(progress.SECONDS, False, 0)
    with crew(0) as each:
        assert list(each(abs, [-1, -2, -3], "masks")) == [1, 2, 3]
    assert "masks: 2/3 [" in capsys.readouterr().err
