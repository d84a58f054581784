"""Scoring any folder of label PNGs, and packing predictions for the VOC server."""

import itertools
import json
import os
import shutil
import tarfile
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import run
from PIL import Image

import test_msc_flip_voc
from datasets import scored_files
from datasets.layouts import items
from datasets.predictions import FILE
from datasets.prepare import __main__ as prepare
from datasets.specs import VOC, palette
from utils.common.entry import command
from utils.metrics import MULTI, ConfusionMatrix, format_table
from utils.run_folder.results import read_results
from utils.tools import score

prepare_main, score_main = command(prepare.main), command(score.main)


@pytest.fixture
def predicted(toy_voc: Path, tmp_path: Path) -> Path:
    """Run folder whose prediction/ holds the masks of the toy val split, shifted by a row, with the
    VOC palette.
    """
    (tmp_path / "run" / "prediction").mkdir(parents=True)
    for item in items("voc", toy_voc, "val"):
        with Image.open(item.mask) as mask:
            labels = np.roll(np.array(mask), 3, 0)
        image = Image.fromarray(np.where(labels == 255, 0, labels).astype(np.uint8))
        image.putpalette(palette().ravel().tolist())
        image.save(tmp_path / "run" / "prediction" / f"{item.name}.png")
    return tmp_path / "run"


def pairs_of(
    predictions: Path, masks: Path, listed: str | Path | None = None
) -> list[tuple[Path, Path]]:
    """The files that are scored of two folders."""
    folders = scored_files.predictions_in(predictions), scored_files.masks_in(masks)
    return scored_files.files_to_score(*folders, listed)


def test_counts_and_table_are_those_of_testing(
    trained: Path, toy_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [
        "--data_root",
        toy_voc,
        "--work_dir",
        tmp_path,
        "--device",
        "cpu",
        "--no_crf",
        "--workers",
        0,
    ]
    assert (
        run(test_msc_flip_voc.main, "--model_path", trained / "checkpoints" / "final.pt", *flags)
        == 0
    )
    capsys.readouterr()
    folders = tmp_path / "prediction", toy_voc / "SegmentationClass"
    assert run(score_main, "--predictions", folders[0], "--masks", folders[1]) == 0
    matrix = ConfusionMatrix.from_counts(read_results(tmp_path)[MULTI]["counts"])
    assert capsys.readouterr().out.startswith(
        format_table([("prediction (4)", matrix)], VOC.label_names)
    )
    named = ("--predictions", folders[0], "--masks", folders[1], "--classes", "voc")
    assert run(score_main, *named) == 0 and f"{matrix.miou():.2f}" in capsys.readouterr().out
    named = ("--predictions", tmp_path, "--masks", folders[1])  # the run folder
    assert run(score_main, *named) == 0 and f"{matrix.miou():.2f}" in capsys.readouterr().out
    assert run(score_main, *named, "--json", tmp_path / "score.json") == 0
    written = json.loads((tmp_path / "score.json").read_text())["prediction"]
    tested = read_results(tmp_path)[MULTI]
    assert written == {**tested, "split": str(folders[1]), "mIoU": 100 * matrix.miou()}
    scored = score.score(pairs_of(*folders), classes=21)
    assert scored.counts.equal(matrix.counts)


def tell_of_one(folder: Path) -> None:
    """Write the journal of a run that predicted toy_val_000001 alone."""
    empty = {"size": [0, 0], "results": {}, "pixels": {}, "files": [], "changed": [0]}
    entry = {"name": "toy_val_000001", "image": "", "mask": None, **empty}
    (folder / FILE).write_text(json.dumps(entry))


def test_predictions_that_the_last_run_did_not_make_are_not_scored(
    predicted: Path, toy_voc: Path
) -> None:
    tell_of_one(predicted)
    pairs = pairs_of(predicted / "prediction", toy_voc / "SegmentationClass")
    assert [path.stem for path, _ in pairs] == ["toy_val_000001"]


def test_masks_without_a_prediction_are_counted(
    predicted: Path, toy_voc: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = "--predictions", predicted, "--masks", toy_voc / "SegmentationClass"
    unpredicted = [item.name for item in items("voc", toy_voc, "val")][1:]
    masks = list((toy_voc / "SegmentationClass").iterdir())
    for name in unpredicted:
        (predicted / "prediction" / f"{name}.png").unlink()
    assert run(score_main, *flags) == 0
    said = capsys.readouterr().out
    assert "prediction (1)" in said and f"{len(masks) - 1} of {len(masks)} masks in " in said
    assert said.endswith(
        "have no prediction, first toy_train_000000.png: the score is of the other 1\n"
    )
    (predicted / "list").write_text("toy_val_000000\n")
    assert run(score_main, *flags, "--list", predicted / "list") == 0
    assert "have no" not in capsys.readouterr().out


def test_masks_named_after_the_whole_picture_are_found(
    predicted: Path, toy_voc: Path, tmp_path: Path
) -> None:
    (tmp_path / "masks").mkdir()
    for name in ("toy_val_000000", "toy_val_000001"):
        mask = (toy_voc / "SegmentationClass" / f"{name}.png").read_bytes()
        (tmp_path / "masks" / f"{name}.JPG.png").write_bytes(mask)
    (tmp_path / "list").write_text("toy_val_000000\ntoy_val_000001\n")
    listed = [predicted / "prediction", toy_voc / "SegmentationClass", tmp_path / "list"]
    expected = score.score(pairs_of(*listed), classes=21)
    for text in (None, "toy_val_000000.JPG\ntoy_val_000001.JPG\n"):  # or lists with suffixes
        if text:
            (tmp_path / "list").write_text(text)
        for masks in (toy_voc / "SegmentationClass", tmp_path / "masks"):
            listed[1] = masks
            assert score.score(pairs_of(*listed), classes=21).counts.equal(expected.counts)


def test_letters_with_marks_are_the_same_composed_and_apart(tmp_path: Path) -> None:
    forms = ("NFC", "NFD")
    name = "Küche/é"
    for form in forms:
        path = tmp_path / form / f"{unicodedata.normalize(form, name)}.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(np.eye(4, dtype=np.uint8)).save(path)
    for form, other in itertools.permutations(forms):
        listed = tmp_path / "list"
        listed.write_text(unicodedata.normalize(form, name), encoding="utf-8")
        for names in (None, str(listed)):
            pairs = pairs_of(tmp_path / form, tmp_path / other, names)
            assert score.score(pairs, classes=2).miou() == 1

    twins = tmp_path / "twins"
    for form in forms:
        shutil.copytree(tmp_path / form, twins, dirs_exist_ok=True)
    assert len(pairs_of(twins, twins)) == 2


def changed(folder: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    path = folder / "prediction" / "toy_val_000001.png"
    with Image.open(path) as image:
        labels = np.array(image)
    Image.fromarray(change(labels)).save(path)


BAD_SCORES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no predictions": (
        lambda folder: [path.unlink() for path in folder.glob("prediction/*")],
        "holds no PNG",
    ),
    "missing": (
        lambda folder: (folder / "list").write_text("toy_val_000000\nother\n"),
        "lacks 1 of 2 images, first other.png",
    ),
    "twice": (
        lambda folder: (folder / "list").write_text("toy_val_000000\ntoy_val_000000.jpg\n"),
        "list lists 'toy_val_000000' twice; remove the second line",
    ),
    "elsewhere": (
        lambda folder: (folder / "list").write_text("../toy_val_000000\n"),
        "list lists '../toy_val_000000'; list plain image names",
    ),
    "size": (
        lambda folder: changed(folder, lambda labels: labels[:2, :3]),
        "toy_val_000001.png is 3 x 2 but ",
    ),
    "label": (
        lambda folder: changed(folder, lambda labels: labels + 21),
        "toy_val_000001.png holds label ",
    ),
    "unsure": (
        lambda folder: changed(folder, lambda labels: np.full_like(labels, 255)),
        "at 255, not labelled, and a score counts all that the mask labels; make it anew with",
    ),
    "colours": (
        lambda folder: changed(folder, lambda labels: np.stack([labels] * 3, -1)),
        "has mode RGB",
    ),
}


@pytest.mark.parametrize("case", BAD_SCORES)
def test_what_cannot_be_scored_is_named(
    case: str, predicted: Path, toy_voc: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, said = BAD_SCORES[case]
    spoil(predicted)
    flags = ["--predictions", predicted / "prediction", "--masks", toy_voc / "SegmentationClass"]
    flags += ["--list", predicted / "list"] if (predicted / "list").exists() else []
    assert run(score_main, *flags) == 2
    assert said in capsys.readouterr().err


def submitted(root: Path, folder: Path, *more: object) -> int:
    return run(
        prepare_main, "submit", "voc", "--root", root, "--work_dir", folder, "--split", "val", *more
    )


@pytest.mark.parametrize("comp", ["comp5", "comp6"])
def test_the_archive_is_what_the_server_asks_for(
    comp: str, predicted: Path, toy_voc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert submitted(toy_voc, predicted, "--comp", comp) == 0
    path, images = predicted / f"{comp}_val_cls.tgz", items("voc", toy_voc, "val")
    with tarfile.open(path) as archive:
        assert archive.getnames() == [
            f"results/VOC2012/Segmentation/{comp}_val_cls/{item.name}.png" for item in images
        ]
        for member, item in zip(archive.getnames(), images):
            source = predicted / "prediction" / f"{item.name}.png"
            with Image.open(archive.extractfile(member)) as packed, Image.open(source) as label:
                assert (
                    packed.mode == "P"
                    and packed.getpalette()[: 21 * 3] == palette()[:21].ravel().tolist()
                )
                np.testing.assert_array_equal(np.array(packed), np.array(label))
    first = path.read_bytes()
    monkeypatch.setattr(os, "getpid", lambda: 1)  # as in another process
    assert submitted(toy_voc, predicted, "--comp", comp) == 0 and path.read_bytes() == first


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (None, "does not exist, or is of an earlier run; predict the whole list"),
        (lambda labels: labels[:4, :5], "is 5 x 4 but its image is"),
        (lambda labels: labels + 21, "holds label"),
    ],
)
def test_what_the_server_would_refuse_is_not_packed(
    change: Callable | None,
    said: str,
    predicted: Path,
    toy_voc: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if change:
        changed(predicted, change)
    else:
        (predicted / "prediction" / "toy_val_000001.png").unlink()
    assert submitted(toy_voc, predicted / "absent") == 2
    assert (
        "absent has no folder prediction; predict --eval_set val first" in capsys.readouterr().err
    )
    assert submitted(toy_voc, predicted) == 2
    error = capsys.readouterr().err
    assert said in error and "toy_val_000001.png" in error and not list(predicted.glob("*.tgz*"))


def test_what_the_last_run_did_not_make_is_not_packed(
    predicted: Path, toy_voc: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tell_of_one(predicted)
    assert submitted(toy_voc, predicted) == 2
    error = capsys.readouterr().err
    assert "toy_val_000000.png does not exist, or is of an earlier run" in error
    assert not list(predicted.glob("*.tgz*"))
