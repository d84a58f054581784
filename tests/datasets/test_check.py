"""The check finds each planted fault and nothing else, and its lists leave out what is wrong."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import run
from PIL import Image

from datasets.layouts import items
from datasets.list_files import read_list
from datasets.prepare import __main__ as prepare
from datasets.prepare import check
from utils.common.entry import command

main = command(prepare.main)


def saved(
    change: Callable[[Image.Image], Image.Image], **options: object
) -> Callable[[Path], None]:
    """Replaces the image by a changed one, under the same name whatever its format."""

    def plant(image: Path, mask: Path) -> None:
        with Image.open(image) as picture:
            changed = change(picture.convert("RGB"))
        changed.save(image, **{"format": "PNG", **options})

    return plant


def cut(image: Path, mask: Path) -> None:
    image.write_bytes(image.read_bytes()[:-100])


def repaint(value: int, everywhere: bool = False) -> Callable[[Path, Path], None]:
    def plant(image: Path, mask: Path) -> None:
        with Image.open(mask) as old:
            labels = np.array(old)
        labels[slice(None) if everywhere else 0, slice(None) if everywhere else 0] = value
        Image.fromarray(labels).save(mask)

    return plant


def shrink(image: Path, mask: Path) -> None:
    with Image.open(mask) as old:
        old.resize((old.width // 2, old.height // 2), Image.Resampling.NEAREST).save(mask)


def colour(image: Path, mask: Path) -> None:
    with Image.open(mask) as old:
        old.convert("RGB").save(mask)


def turned() -> Callable[[Path, Path], None]:
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down: the size stays
    return saved(lambda picture: picture, format="JPEG", exif=exif)


def deep(picture: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)


FAULTS = {
    check.BROKEN: cut,
    check.MISSING: lambda image, mask: image.unlink(),
    check.BAD_MASK: colour,
    check.SIZE: shrink,
    check.VALUES: repaint(77),
    check.TAGS: repaint(0, everywhere=True),
    check.TWICE: None,  # needs a second image
    check.GREY: saved(lambda picture: picture.convert("L"), format="JPEG"),
    check.CMYK: saved(lambda picture: picture.convert("CMYK"), format="JPEG"),
    check.PALETTE: saved(lambda picture: picture.quantize(16)),
    check.ALPHA: saved(lambda picture: picture.convert("RGBA")),
    check.DEEP: saved(deep),
    check.TURNED: turned(),
}


@pytest.fixture
def planted(toy_voc: Path, tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A copy of the toy VOC with one fault of each kind in its training images, and the image of
    each.
    """
    root = shutil.copytree(toy_voc, tmp_path / "voc")
    shutil.rmtree(root / "SegmentationClassAug")
    train, val = items("voc", root, "train_aug"), items("voc", root, "val")
    where = {kind: item.name for kind, item in zip(FAULTS, train)}
    for plant, item in zip(FAULTS.values(), train):
        if plant:
            plant(item.image, item.mask)
        else:
            for name in ("image", "mask"):
                shutil.copy(getattr(val[0], name), getattr(item, name))
            shutil.copy(
                root / "Annotations" / f"{val[0].name}.xml",
                root / "Annotations" / f"{item.name}.xml",
            )
    return root, where


@pytest.mark.parametrize("workers", [0, 2])
def test_every_planted_fault_is_found_and_nothing_else(
    planted: tuple[Path, dict[str, str]],
    workers: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root, where = planted
    assert (
        run(main, "check", "--root", root, "--workers", workers, "--fix_list", tmp_path / "fixed")
        == 1
    )
    with (tmp_path / "fixed" / "faults.csv").open(newline="", encoding="utf-8") as stream:
        found = {(row["kind"], row["image"]) for row in csv.DictReader(stream)}
    assert found == set(where.items())
    said = capsys.readouterr().out
    assert all(f"  {kind} " in said for kind in where)
    wrong = {where[kind] for kind in check.WRONG}
    before = read_list(root / "ImageSets" / "Segmentation" / "train_aug.txt")
    assert read_list(tmp_path / "fixed" / "train_aug.txt") == [
        name for name in before if name not in wrong
    ]
    fixed = ["--splits", tmp_path / "fixed" / "train_aug.txt", tmp_path / "fixed" / "val.txt"]
    assert run(main, "check", "--root", root, "--workers", 0, *fixed) == 0


@pytest.mark.parametrize("layout", ["voc", "coco"])
def test_sound_data_passes_and_its_layout_is_recognised(
    layout: str, toy_voc: Path, toy_coco: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = {"voc": toy_voc, "coco": toy_coco}[layout]
    assert run(main, "check", "--root", root, "--workers", 0) == 0
    assert capsys.readouterr().out.count("  nothing\n") == 2


def test_without_annotations_tags_are_not_compared(
    planted: tuple[Path, dict[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    root, _ = planted
    (root / "Annotations").rename(root / "elsewhere")
    assert run(main, "check", "--root", root, "--workers", 0) == 1
    said = capsys.readouterr().out
    assert "tags of val are not compared" in said and check.TAGS not in said
