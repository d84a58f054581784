"""Which images are scored, and what is said of masks that are there, missing or named otherwise."""

import shutil
from pathlib import Path

import pytest
from helpers import TRAIN, VAL

from datasets.coco_masks import MARKER
from datasets.layouts import items
from datasets.lists import Item
from datasets.scoring import mask_rule, masks_found, scored_images
from utils.common.errors import UserError


def images(masks: str) -> list[Item]:
    """An image for each letter, with a mask where it is an m."""
    return [
        Item(str(k), Path(f"{k}.jpg"), Path(f"{k}.png") if letter == "m" else None)
        for k, letter in enumerate(masks)
    ]


@pytest.mark.parametrize(
    ("masks", "most", "places", "label"),
    [
        ("mmmmmmmmmm", 0, (0, 1, 2, 3, 4, 5, 6, 7, 8, 9), "val"),
        ("mmmmmmmmmm", 4, (0, 2, 5, 7), "val, spread over 10"),
        ("mmmmmmmmmm", 10, (0, 1, 2, 3, 4, 5, 6, 7, 8, 9), "val"),
        ("mmm", 99, (0, 1, 2), "val"),
        ("m.m.m.m", 0, (0, 2, 4, 6), "val, those of 7 with masks"),
        ("m.m.m.m", 2, (0, 4), "val, spread over those of 7 with masks"),
        ("...", 2, (), "val, those of 3 with masks"),
    ],
)
def test_what_is_scored_is_spread_over_the_images_with_masks_and_named(
    masks: str, most: int, places: tuple[int, ...], label: str
) -> None:
    chosen = scored_images("val", images(masks), most)
    assert chosen.places == places and len(chosen) == len(places)
    assert chosen.label == label


def test_masks_of_voc_are_counted(toy_voc: Path, tmp_path: Path) -> None:
    root = shutil.copytree(toy_voc, tmp_path / "voc")
    found = items("voc", root, "val")
    assert masks_found("voc", root, "val", found) == f"{VAL} of {VAL} images have masks"

    shutil.rmtree(root / "SegmentationClass")
    (root / f"SegmentationClassAug/{found[1].name}.png").unlink()
    said = masks_found("voc", root, "val", items("voc", root, "val"))
    assert said == (
        f"{VAL - 1} of {VAL} images have masks (not {found[1].name}, for one): scores are over "
        "those with masks alone"
    )


def test_where_no_mask_fits_the_names_found_are_told(toy_voc: Path, tmp_path: Path) -> None:
    root = shutil.copytree(toy_voc, tmp_path / "voc")
    shutil.rmtree(root / "SegmentationClass")
    masks = root / "SegmentationClassAug"
    for path in list(masks.iterdir()):
        path.rename(masks / f"mask_{path.name}")
    (masks / ".hidden.png").touch()
    said = masks_found("voc", root, "val", items("voc", root, "val"))
    assert said == (
        f"0 of {VAL} images have masks; found names like mask_toy_train_000000.png in {masks}, "
        "expected toy_val_000000.png"
    )

    shutil.rmtree(masks)
    said = masks_found("voc", root, "val", items("voc", root, "val"))
    assert said.endswith(f"expected toy_val_000000.png in {root / 'SegmentationClass'} or {masks}")


def test_masks_of_coco_are_found_under_short_names_and_their_rule_is_told(
    toy_coco: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(toy_coco, tmp_path / "coco")
    folder = root / "mask/val2014"
    theirs = root / "SegmentationClass/val"  # as WeCLIP has them
    theirs.parent.mkdir()
    folder.rename(theirs)
    for path in list(theirs.iterdir()):
        path.rename(theirs / f"wrong_{path.name[len('COCO_val2014_') :]}")
    said = masks_found("coco", root, "val", items("coco", root, "val"))
    name = f"COCO_val2014_{TRAIN + 1:012d}.png or {TRAIN + 1:012d}.png"
    assert f"found names like wrong_{TRAIN + 1:012d}.png in {theirs}, expected {name}" in said

    for path in list(theirs.iterdir()):
        path.rename(theirs / path.name.removeprefix("wrong_"))
    found = items("coco", root, "val")
    drawn = "drawn with the toy's pictures: smaller objects over larger ones, rims 255, no crowds"
    assert mask_rule("coco", found) == f"masks of COCO: {drawn}"

    elsewhere = root.rename(tmp_path / "elsewhere")
    (elsewhere / "toy.json").unlink()
    theirs = elsewhere / "SegmentationClass/val"
    found = items("coco", elsewhere, "val")
    said = masks_found("coco", elsewhere, "val", found)
    assert said == (
        f"{VAL} of {VAL} images have masks; masks of COCO: not made here, so how crowds and "
        "overlaps were drawn is not known"
    )
    (theirs / MARKER).write_text('{"rule": "objects first"}')
    with pytest.raises(UserError, match="made by another rule"):
        mask_rule("coco", found)
    assert mask_rule("voc", found) == ""


def test_own_data_prepared_without_masks_say_how_to_add_them() -> None:
    said = masks_found("custom", "data", "val", images(".."))
    assert said.startswith("0 of 2 images have masks; ") and "custom --masks DIR" in said
