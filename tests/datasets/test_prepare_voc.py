"""VOC's lists, tags and SBD's masks: what `datasets.prepare voc` writes, keeps and refuses."""

import contextlib
import os
import shutil
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest
from helpers import TRAIN, VAL, run
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.io import savemat

from datasets import tag_sources
from datasets.layouts import items
from datasets.list_files import read_list
from datasets.pictures import load_mask
from datasets.prepare import __main__ as prepare
from datasets.prepare import sbd
from datasets.prepare import voc as converter
from datasets.prepare.sbd import read_sbd
from datasets.specs import VOC, palette
from datasets.tag_sources import find_tags, tags_from_masks, tags_from_voc_xml
from datasets.tags import read_all_tags
from datasets.voc_xml import read_xml
from utils.common.entry import command
from utils.common.errors import UserError

EXTRA = 5  # training images that only SBD has a mask of


def prepare_voc(root: Path, *flags: object) -> int:
    return run(command(prepare.main), "voc", "--root", root, "--workers", 0, *flags)


def save_sbd(path: Path, labels: np.ndarray) -> None:
    """One of SBD's cls/*.mat."""
    categories = np.unique(labels[labels > 0])[:, None]
    empty = np.empty((20, 1), object)
    empty[:] = [[np.zeros((1, 1), np.uint8)]]
    savemat(
        path,
        {"GTcls": {"Boundaries": empty, "Segmentation": labels, "CategoriesPresent": categories}},
    )


@pytest.fixture
def voc(toy_voc: Path, tmp_path: Path) -> Path:
    """The toy VOC as VOC itself comes: no augmented masks or list, masks for all but the first
    EXTRA of train.
    """
    root = shutil.copytree(
        toy_voc, tmp_path / "VOC2012", ignore=shutil.ignore_patterns("SegmentationClassAug")
    )
    lists = root / "ImageSets/Segmentation"
    (lists / "train_aug.txt").unlink()
    names = read_list(lists / "train.txt")
    for name in names[:EXTRA]:
        (root / f"SegmentationClass/{name}.png").unlink()
    (lists / "train.txt").write_text("\n".join(names[EXTRA:]))
    return root


@pytest.fixture
def sbd_folder(toy_voc: Path, voc: Path, tmp_path: Path) -> Path:
    """SBD's masks of all toy pictures: exact for those VOC lacks, all background where VOC's must
    win.
    """
    folder = tmp_path / "SBD"
    (folder / "dataset/cls").mkdir(parents=True)
    for split in ("train", "val"):
        names = [item.name for item in items("voc", toy_voc, split)]
        (folder / f"dataset/{split}.txt").write_text("\n".join(names))
        for name in names:
            labels = load_mask(toy_voc / f"SegmentationClass/{name}.png")
            known = (voc / f"SegmentationClass/{name}.png").is_file()
            save_sbd(folder / f"dataset/cls/{name}.mat", labels * 0 if known else labels)
    return folder


def contents(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


def test_sbd_gives_the_augmented_masks_and_list(toy_voc: Path, voc: Path, sbd_folder: Path) -> None:
    assert prepare_voc(voc, "--sbd", sbd_folder) == 0
    train, val = items("voc", toy_voc, "train"), items("voc", toy_voc, "val")
    assert read_list(voc / "ImageSets/Segmentation/train_aug.txt") == sorted(
        item.name for item in train
    )
    for item in (*train, *val):
        with Image.open(voc / f"SegmentationClassAug/{item.name}.png") as mask:
            assert mask.mode == "P" and mask.getpalette()[:63] == palette()[:21].ravel().tolist()
            np.testing.assert_array_equal(np.array(mask), load_mask(item.mask))


def test_the_list_is_made_from_the_masks_where_sbd_is_not_at_hand(
    toy_voc: Path, voc: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lists = voc / "ImageSets/Segmentation"
    with pytest.raises(UserError, match=r"VOC itself has none; `python -m datasets.prepare voc"):
        items("voc", voc, "train_aug")
    shutil.copytree(toy_voc / "SegmentationClassAug", voc / "SegmentationClassAug")
    (voc / "SegmentationClassAug/._toy_train_000001.png").touch()  # as macOS packs
    assert prepare_voc(voc) == 0
    train = [item.name for item in items("voc", toy_voc, "train")]
    assert read_list(lists / "train_aug.txt") == sorted(train)
    said = capsys.readouterr().out
    assert f"train_aug.txt: {TRAIN} images, those of train and of the {TRAIN + VAL} masks" in said
    (lists / "train_aug.txt").write_text("one\n")  # somebody's own list stays
    (voc / "JPEGImages/one.jpg").touch()
    (voc / "Annotations/one.xml").write_text("<annotation></annotation>")
    assert prepare_voc(voc, "--out", voc / "tags") == 0
    assert read_list(lists / "train_aug.txt") == ["one"]


def test_masks_of_sbd_alone_lack_some_of_train_and_are_no_truth_of_val(
    toy_voc: Path, voc: Path
) -> None:
    """As MMSegmentation makes SegmentationClassAug: of all of SBD, whichever list an image is in,
    but not of the images of VOC that SBD lacks.
    """
    own = {path.stem for path in (voc / "SegmentationClass").iterdir()}
    train = [item.name for item in items("voc", toy_voc, "train")]
    lacking = next(name for name in train if name in own)
    aug = shutil.copytree(toy_voc / "SegmentationClassAug", voc / "SegmentationClassAug")
    (aug / f"{lacking}.png").unlink()
    assert prepare_voc(voc) == 0

    found = items("voc", voc, "train_aug")
    assert [item.name for item in found] == sorted(train)
    for item in (*found, *items("voc", voc, "val")):
        folder = "SegmentationClass" if item.name in own else "SegmentationClassAug"
        assert item.mask == voc / folder / f"{item.name}.png"


def test_the_packed_masks_are_pointed_to(voc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare_voc(voc) == 0
    assert "train_aug is made from masks in" in capsys.readouterr().out
    (voc / "SegmentationClassAug.zip").touch()
    assert prepare_voc(voc) == 0
    assert "unpack SegmentationClassAug.zip in" in capsys.readouterr().out


def test_masks_that_were_unpacked_too_deep_are_pointed_to(
    voc: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inner = voc / "SegmentationClassAug" / "SegmentationClassAug"
    inner.mkdir(parents=True)
    assert prepare_voc(voc) == 0
    assert f"but the folder {inner} is, whose files may belong one level" in capsys.readouterr().out


def test_a_second_run_writes_nothing(
    voc: Path, sbd_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare_voc(voc, "--sbd", sbd_folder)
    before = {path: path.stat().st_mtime_ns for path in voc.rglob("*")}
    capsys.readouterr()
    assert prepare_voc(voc, "--sbd", sbd_folder) == 0
    said = capsys.readouterr().out
    assert "nothing to do" in said and "were there" in said and "compared before" in said
    assert {path: path.stat().st_mtime_ns for path in voc.rglob("*")} == before


def test_an_interrupted_run_is_completed(voc: Path, sbd_folder: Path, tmp_path: Path) -> None:
    whole = shutil.copytree(voc, tmp_path / "whole")
    prepare_voc(whole, "--sbd", sbd_folder)
    done, convert = [], sbd._convert
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            sbd,
            "_convert",
            lambda *job: convert(*job) if not done.append(job) and len(done) < 3 else stop(),
        )
        with pytest.raises(KeyboardInterrupt):
            sbd.augment(voc, sbd_folder, lambda function, jobs, _: map(function, jobs))
    assert len(list((voc / "SegmentationClassAug").iterdir())) < TRAIN + VAL
    assert prepare_voc(voc, "--sbd", sbd_folder) == 0
    assert contents(voc) == contents(whole)


def stop() -> None:
    raise KeyboardInterrupt


def test_tags_of_the_lists_there_are(
    toy_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare_voc(toy_voc, "--out", tmp_path / "tags") == 0
    for split, count in (("train_aug", TRAIN), ("val", VAL)):
        names = [item.name for item in items("voc", toy_voc, split)]
        found = read_all_tags(tmp_path / f"tags/tags_{split}.json", VOC)
        assert found.names == tuple(names) and len(names) == count
        np.testing.assert_array_equal(found.matrix, tags_from_voc_xml(toy_voc, names, VOC).matrix)
    said = capsys.readouterr().out
    assert (
        f"train_aug {TRAIN}, train {TRAIN}, val {VAL}: not the whole of VOC 2012, which has "
        "train_aug 10582" in said
    )


def test_the_whole_set_is_told_by_its_counts(
    toy_voc: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert converter.FULL == {"train_aug": 10582, "train": 1464, "val": 1449}
    monkeypatch.setattr(converter, "FULL", {"train_aug": TRAIN, "train": TRAIN, "val": VAL})
    assert prepare_voc(toy_voc, "--out", tmp_path) == 0
    assert (
        f"train_aug {TRAIN}, train {TRAIN}, val {VAL}: the whole of VOC 2012"
        in capsys.readouterr().out
    )


def test_xml_equals_masks_but_for_the_listed(
    voc: Path, sbd_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = next(iter(sorted((voc / "Annotations").glob("toy_val*"))))
    found = tags_from_voc_xml(voc, [path.stem], VOC).matrix[0]
    other = next(name for name, there in zip(VOC.classes, found) if not there)
    annotation = (
        f"<annotation><object><name>{other}</name><difficult>1</difficult></object></annotation>"
    )
    path.write_text(annotation)
    assert prepare_voc(voc, "--sbd", sbd_folder) == 0
    listed = (voc / "tags_val_differences.txt").read_text().splitlines()
    assert (
        listed[0]
        == f"{VAL} of {VAL} images have masks, 1 of them show other classes than their XML"
    )
    assert len(listed) == 2 and listed[1].startswith(f"{path.stem}: {other} only in XML; ")
    assert listed[0] in capsys.readouterr().out
    assert prepare_voc(voc, "--difficult", "false", "--out", voc / "easy") == 0
    assert not read_all_tags(voc / "easy/tags_val.json", VOC).matrix[0].any()


def test_prepared_tags_stand_for_the_xml_until_one_of_it_changes(
    voc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = read_list(voc / "ImageSets/Segmentation/val.txt")
    expected = find_tags("voc", voc, "val", names, VOC)
    assert prepare_voc(voc) == 0
    opened: list[Path] = []
    monkeypatch.setattr(tag_sources, "read_xml", lambda path: opened.append(path) or read_xml(path))
    assert (find_tags("voc", voc, "val", names, VOC) == expected).all() and not opened

    later = (voc / "tags_val.json").stat().st_mtime_ns + 1
    os.utime(voc / f"Annotations/{names[0]}.xml", ns=(later, later))
    find_tags("voc", voc, "val", names, VOC)
    assert len(opened) == len(names)


@pytest.mark.parametrize("flags", [("--difficult", "false"), ("--tags_from", "masks")])
def test_tags_of_another_kind_are_used_only_where_they_are_named(
    voc: Path, flags: tuple[str, str]
) -> None:
    names = read_list(voc / "ImageSets/Segmentation/val.txt")
    assert prepare_voc(voc, *flags) == 0
    file = voc / f"Annotations/{names[0]}.xml"
    file.write_text("<annotation></annotation>")
    os.utime(file, (1, 1))
    assert not find_tags("voc", voc, "val", names, VOC)[0].any()
    assert find_tags("voc", voc, "val", names, VOC, voc / "tags_val.json")[0].any()


def test_tags_from_masks_need_no_xml(voc: Path, sbd_folder: Path) -> None:
    shutil.rmtree(voc / "Annotations")
    assert prepare_voc(voc, "--sbd", sbd_folder, "--tags_from", "masks") == 0
    tags = read_all_tags(voc / "tags_train_aug.json", VOC)
    assert tags.source == "segmentation masks"
    np.testing.assert_array_equal(
        tags.matrix, tags_from_masks(items("voc", voc, "train_aug"), VOC).matrix
    )


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda root, _: shutil.rmtree(root / "JPEGImages"), "has no folder JPEGImages"),
        (lambda root, _: (root / "VOC2012").mkdir(), "is the folder around VOC 2012; give --root"),
        (
            lambda root, _: (root / "ImageSets/Segmentation/train_aug.txt").write_text("x\n"),
            "lists other images than",
        ),
        (lambda root, folder: shutil.rmtree(folder / "dataset"), "has no folder cls"),
        (lambda root, folder: (folder / "dataset/val.txt").unlink(), "val.txt does not exist"),
        (
            lambda root, folder: next((folder / "dataset/cls").glob("*train_000001*")).unlink(),
            "1 of the 24 images",
        ),
        (
            lambda root, folder: (folder / "dataset/cls/toy_train_000001.mat").write_text("MATLAB"),
            "toy_train_000001.mat is no MATLAB file",
        ),
        (
            lambda root, folder: save_sbd(
                folder / "dataset/cls/toy_train_000001.mat", np.full((2, 2), 21, np.uint8)
            ),
            "toy_train_000001.mat holds other values than labels 0..20",
        ),
        (
            lambda root, folder: (folder / "dataset/train.txt").write_text("../../evil\n"),
            "images of train_aug have no",
        ),
    ],
)
def test_what_is_wrong_is_named(
    voc: Path, sbd_folder: Path, spoil: object, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(voc, sbd_folder)
    assert prepare_voc(voc, "--sbd", sbd_folder) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and said in lines[0]


def outcome(path: Path) -> str:
    """What reading gives: the kind of the labels, or the sentence that refuses the file."""
    try:
        return str(read_sbd(path).dtype)
    except UserError as error:
        return str(error)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_damaged_mat_files_are_refused_or_read(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """In a working process, as SciPy's reader may crash on such bytes; `prepare` says so of its own
    in one sentence.
    """
    path = tmp_path_factory.mktemp("mat") / "a.mat"
    labels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    save_sbd(path, labels)
    content = bytearray(path.read_bytes())
    for place, value in data.draw(
        st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)))
    ):
        content[place] = value
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with ProcessPoolExecutor(1) as pool, contextlib.suppress(BrokenProcessPool):
        said = pool.submit(outcome, path).result()
        assert said == "uint8" or str(path) in said
