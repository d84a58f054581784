"""The toy data set: deterministic pictures, exact masks, words that cover the prompts, layouts that
agree.
"""

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from helpers import run
from PIL import Image

from datasets.prepare.__main__ import main
from datasets.specs import COCO_IDS, IGNORE, SPECS, VOC, palette
from datasets.toy.backdrop import STUFF
from datasets.toy.layouts import coco_classes
from datasets.toy.scene import picture, random_classes, render
from datasets.toy.words import SYNONYMS, UNDRAWN, wordings
from datasets.toy.write import write_coco, write_voc
from utils.common.entry import command
from utils.common.errors import UserError

TRAIN, VAL, SIZE, SEED = 24, 6, 96, 5


@pytest.fixture(scope="module")
def voc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("toy") / "voc"
    write_voc(root, TRAIN, VAL, SIZE, SEED)
    return root


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("toy") / "coco"
    write_coco(root, TRAIN, VAL, SIZE, SEED)
    return root


def _lines(root: Path, split: str) -> list[str]:
    return (root / "ImageSets" / "Segmentation" / f"{split}.txt").read_text().split()


def _foreground(labels: np.ndarray) -> set[int]:
    return {int(label) - 1 for label in np.unique(labels)} - {-1, IGNORE - 1}


def test_same_generator_gives_same_bytes_and_another_does_not() -> None:
    first, second, other = (render(np.random.default_rng(s), 96, 128, (3, 7)) for s in (1, 1, 2))
    assert first.image.tobytes() == second.image.tobytes()
    assert first.labels.tobytes() == second.labels.tobytes()
    assert first.image.tobytes() != other.image.tobytes()


def test_labels_hold_exactly_the_shown_classes_and_the_rim() -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        classes = random_classes(rng)
        scene = render(rng, 96, 72, classes)
        assert scene.image.shape == (96, 72, 3) and scene.labels.shape == (96, 72)
        assert _foreground(scene.labels) == set(scene.classes) <= set(classes)
        assert all(np.count_nonzero(scene.labels == k + 1) >= 40 for k in scene.classes)
        assert (
            scene.labels[(scene.labels > 0) & (scene.labels < IGNORE)]
            == [
                scene.objects[n - 1] + 1
                for n in scene.instances[(scene.labels > 0) & (scene.labels < IGNORE)]
            ]
        ).all()
        assert set(scene.stuff) <= set(STUFF)


def test_background_never_touches_an_object_without_a_rim() -> None:
    labels = render(np.random.default_rng(4), 128, 128, (5, 11)).labels.astype(int)
    for a, b in ((labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1])):
        assert not ((a != b) & (a != IGNORE) & (b != IGNORE)).any()


@pytest.mark.parametrize("size", [64, 256])
@pytest.mark.parametrize("k", range(len(VOC.classes)), ids=VOC.classes)
def test_every_class_covers_a_sane_area(k: int, size: int) -> None:
    rng = np.random.default_rng(k)
    areas = [
        np.mean(render(rng, size, size, (k,), scale=(0.8, 0.8)).labels == k + 1) for _ in range(6)
    ]
    assert 0.1 < np.mean(areas) < 0.64  # at most the square of the scale


def test_scale_is_the_longer_side_over_the_shorter_side_of_the_picture() -> None:
    rng = np.random.default_rng(9)
    for k in range(len(VOC.classes)):
        rows, columns = np.nonzero(render(rng, 128, 200, (k,), scale=(0.5, 0.5)).instances)
        longer = max(np.ptp(rows), np.ptp(columns)) + 1
        assert 0.88 * 64 - 3 <= longer <= 64 + 2  # the frame may cut off 6% on each side


def test_objects_differ_from_what_they_cover() -> None:
    rng = np.random.default_rng(2)
    for k in range(len(VOC.classes)):
        scene = render(rng, 128, 128, (k,), scale=(0.7, 0.7))
        inside, outside = (
            scene.image[mask].astype(float) for mask in (scene.labels == k + 1, scene.labels == 0)
        )
        assert np.abs(inside[:, None] - outside.mean(axis=0)).mean() > 15


def test_random_classes_are_distinct_and_start_with_the_main_one() -> None:
    rng = np.random.default_rng(0)
    drawn = [random_classes(rng, main=4) for _ in range(200)]
    assert {len(classes) for classes in drawn} == {1, 2, 3}
    assert all(classes[0] == 4 and len(set(classes)) == len(classes) for classes in drawn)


@pytest.mark.parametrize(("size", "classes"), [(47, (0,)), (64, (len(VOC.classes),)), (64, (-1,))])
def test_impossible_pictures_are_refused(size: int, classes: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="below 48|not all in"):
        render(np.random.default_rng(0), size, 64, classes)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_words_cover_the_prompts_and_backgrounds_of(spec) -> None:
    known = {word for name in SYNONYMS for word in wordings(name)}
    places = range(len(VOC.classes)) if spec is VOC else coco_classes()
    for name, place in zip(VOC.classes, places):
        assert {spec.prompts[place], spec.classes[place]} <= set(wordings(name))
    assert set(spec.background) <= known | set(UNDRAWN)
    assert set(SYNONYMS) == set(VOC.classes) | set(STUFF)


def test_no_wording_means_two_things() -> None:
    words = [word for name in SYNONYMS for word in wordings(name)]
    assert len(words) == len(set(words)) and not set(words) & set(UNDRAWN)


def test_voc_layout_lists_masks_and_annotations_agree(voc: Path) -> None:
    train, val = _lines(voc, "train"), _lines(voc, "val")
    assert (len(train), len(val)) == (TRAIN, VAL)
    assert _lines(voc, "train_aug") == train and _lines(voc, "trainval") == train + val
    for name in train + val:
        image, mask = (
            Image.open(voc / f"JPEGImages/{name}.jpg"),
            Image.open(voc / f"SegmentationClassAug/{name}.png"),
        )
        assert image.size == mask.size and mask.mode == "P"
        assert mask.getpalette() == palette().ravel().tolist()
        objects = ElementTree.parse(voc / f"Annotations/{name}.xml").findall("object")
        assert {VOC.classes.index(item.findtext("name")) for item in objects} == _foreground(
            np.array(mask)
        )


def test_masks_on_disk_are_those_of_the_picture_function(voc: Path) -> None:
    for number in (0, 7):
        on_disk = np.array(
            Image.open(voc / "SegmentationClass" / f"{_lines(voc, 'val')[number % VAL]}.png")
        )
        assert np.array_equal(on_disk, picture(SEED, "val", number % VAL, SIZE).labels)


def test_coco_holds_the_same_pictures_with_labels_of_the_same_names(voc: Path, coco: Path) -> None:
    names = {0: "background"} | {k + 1: name for k, name in zip(coco_classes(), VOC.classes)}
    for split in ("train", "val"):
        whole = json.loads((coco / "annotations" / f"instances_{split}2014.json").read_text())
        assert [c["id"] for c in whole["categories"]] == list(COCO_IDS)
        for entry, name in zip(whole["images"], _lines(voc, split), strict=True):
            picture_path = coco / "coco2014" / f"{split}2014" / entry["file_name"]
            assert picture_path.read_bytes() == (voc / "JPEGImages" / f"{name}.jpg").read_bytes()
            mask = np.array(Image.open(coco / "mask" / f"{split}2014" / f"{picture_path.stem}.png"))
            ours = np.array(Image.open(voc / "SegmentationClass" / f"{name}.png"))
            assert mask.shape == (entry["height"], entry["width"])
            for label in np.unique(mask):
                wanted = IGNORE if label == IGNORE else VOC.label_names.index(names[label])
                assert np.array_equal(mask == label, ours == wanted)
            tagged = {
                COCO_IDS.index(a["category_id"])
                for a in whole["annotations"]
                if a["image_id"] == entry["id"]
            }
            assert tagged == _foreground(mask)


def test_coco_annotations_have_boxes_and_polygons_in_the_picture(coco: Path) -> None:
    whole = json.loads((coco / "annotations" / "instances_train2014.json").read_text())
    sides = {entry["id"]: (entry["width"], entry["height"]) for entry in whole["images"]}
    assert len({a["id"] for a in whole["annotations"]}) == len(whole["annotations"])
    for annotation in whole["annotations"]:
        (width, height), (x, y, w, h) = sides[annotation["image_id"]], annotation["bbox"]
        assert (
            x >= 0
            and y >= 0
            and x + w <= width
            and y + h <= height
            and 0 < annotation["area"] <= w * h
        )
        assert annotation["segmentation"] and all(
            len(p) >= 6 and len(p) % 2 == 0 for p in annotation["segmentation"]
        )
        corners = np.concatenate([np.reshape(p, (-1, 2)) for p in annotation["segmentation"]])
        assert (corners >= (x, y)).all() and (corners <= (x + w, y + h)).all()


@pytest.mark.parametrize("layout", ["voc", "coco", "custom"])
def test_several_processes_write_the_same_files(layout: str, tmp_path: Path) -> None:
    found = []
    for workers in (0, 2):
        root = tmp_path / str(workers)
        flags = ("--layout", layout, "--train", 90, "--val", 10, "--size", 64)
        assert run(command(main), "toy", "--root", root, *flags, "--workers", workers) == 0
        files = [path for path in root.rglob("*") if path.is_file()]
        found.append({str(path.relative_to(root)): path.read_bytes() for path in files})
    assert len(found[0]) > 200 and found[0] == found[1]


def test_main_classes_are_balanced(voc: Path) -> None:
    missing = [
        n
        for n in range(TRAIN)
        if n % len(VOC.classes) not in picture(SEED, "train", n, SIZE).classes
    ]
    assert len(missing) <= 1  # one may hide behind another object


def test_writing_again_does_nothing_and_other_contents_are_refused(
    voc: Path, tmp_path: Path
) -> None:
    mask = voc / "SegmentationClass" / f"{_lines(voc, 'val')[0]}.png"
    before = mask.stat().st_mtime_ns
    write_voc(voc, TRAIN, VAL, SIZE, SEED)
    assert mask.stat().st_mtime_ns == before
    with pytest.raises(UserError, match=f"another toy data set, of seed {SEED}, not {SEED + 1}"):
        write_voc(voc, TRAIN, VAL, SIZE, SEED + 1)
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(UserError, match="holds no toy data set; name a new folder"):
        write_coco(tmp_path, TRAIN, VAL, SIZE, SEED)
    assert not list(voc.parent.glob(".*"))
