"""Whole runs from the entry scripts on tiny data: training, testing, going on after an
interrupt.
"""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import (
    VAL,
    clip_tensors,
    counted,
    crash,
    final_weights,
    run,
    same_weights,
    signalled,
    tiny_clip,
)
from PIL import Image
from safetensors.torch import save_file

import test_msc_flip_coco
import test_msc_flip_voc
import train_coco
import train_voc
from datasets.specs import palette
from utils.metrics import CRF, MULTI, SINGLE

STEPS = {"classifier": 2, "segmenter": 4}  # iterations of a run with the flags `quick`


def test_training_leaves_what_it_promises(trained: Path) -> None:
    files = {path.relative_to(trained).as_posix() for path in trained.rglob("*") if path.is_file()}
    checkpoints = {f"checkpoints/{name}.pt" for name in (*STEPS, "final")}
    assert {"config.yaml", "environment.txt", "train.log", "metrics.csv", *checkpoints} <= files
    assert any(name.startswith("tensorboard/events") for name in files)
    assert not any(name.endswith(".partial") for name in files)
    with (trained / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for stage, steps in STEPS.items():
        assert [
            int(r["iteration"]) for r in rows if (r["stage"], r["name"]) == (stage, "loss")
        ] == [*range(1, steps + 1)]
    assert [r["iteration"] for r in rows if r["name"] == "pseudo label"] == ["3", "4"]
    assert all(np.isfinite(float(row["value"])) for row in rows)
    said = (trained / "train.log").read_text().splitlines()[-1]
    assert (
        said
        == f"test: python test_msc_flip_voc.py --model_path {trained / 'checkpoints' / 'final.pt'}"
    )


def test_a_training_draws_its_losses_rates_and_scores(trained: Path) -> None:
    # texts of axes and legends: two plots of losses, one of rates, one of scores
    page = (trained / "report.html").read_text(encoding="utf-8")
    labels = (">loss<", ">learning rate<", ">mIoU, %<")
    assert [page.count(label) for label in labels] == [4, 1, 1]


def test_a_checkpoint_holds_no_absolute_path(trained: Path) -> None:
    for path in (trained / "checkpoints").iterdir():
        assert str(trained.parent).encode() not in path.read_bytes()
        config = torch.load(path, weights_only=True)["config"]
        assert not [
            value for value in config.values() if isinstance(value, str) and value.startswith("/")
        ]


def test_testing_writes_label_pictures_and_their_scores(
    trained: Path, toy_voc: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        run(
            test_msc_flip_voc.main,
            "--model_path",
            trained / "checkpoints" / "final.pt",
            "--save_logits",
        )
        == 0
    )
    names = (toy_voc / "ImageSets" / "Segmentation" / "val.txt").read_text().split()
    assert (
        sorted(path.stem for path in (trained / "prediction").iterdir()) == sorted(names)
        and len(names) == VAL
    )
    counts = np.zeros((21, 21), int)
    for name in names:
        labels, colours = (
            Image.open(trained / kind / f"{name}.png") for kind in ("prediction", "prediction_cmap")
        )
        truth = np.array(Image.open(toy_voc / "SegmentationClassAug" / f"{name}.png"))
        assert labels.mode == "P" and labels.getpalette() == palette().ravel().tolist()
        assert np.array_equal(np.array(colours), palette()[np.array(labels)])
        assert np.array(labels).shape == truth.shape
        np.add.at(counts, (truth[truth != 255], np.array(labels)[truth != 255]), 1)
        logits = np.load(trained / "logits" / f"{name}.npy")
        assert logits.dtype == np.float16 and len(logits) == 21
    results = json.loads((trained / "results.json").read_text())
    assert set(results) == {
        "CLIP seed",
        "ViT seed",
        "fused seed",
        "pseudo label",
        SINGLE,
        MULTI,
        CRF,
    }
    assert results[CRF]["counts"] == counts.tolist() and results[CRF]["images"] == VAL
    printed = capsys.readouterr().out
    assert all(f"{title} (val, {VAL})" in printed for title in (SINGLE, MULTI, CRF))


def test_a_moved_checkpoint_asks_for_what_it_lacks(
    trained: Path,
    toy_voc: Path,
    clip_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(trained / "checkpoints" / "final.pt", "moved.pt")
    save_file(clip_tensors(tiny_clip(seed=1)), "other.safetensors")
    given = ["--model_path", "moved.pt", "--data_root", toy_voc, "--no_crf"]
    for flags, said in (
        ([], f"CLIP file {clip_file.name} does not exist"),
        (["--clip_path", "other.safetensors"], "is not the CLIP this checkpoint was trained with"),
    ):
        assert run(test_msc_flip_voc.main, *given, *flags) == 2 and said in capsys.readouterr().err
    assert run(test_msc_flip_voc.main, *given, "--clip_path", clip_file) == 0
    assert len(list(Path("runs/test_moved/prediction").iterdir())) == VAL
    assert set(json.loads(Path("runs/test_moved/results.json").read_text())) == {SINGLE, MULTI}


def test_the_same_command_gives_the_same_weights(
    trained: Path, start: list[str], tmp_path: Path
) -> None:
    assert run(train_voc.main, *start, "--eval_seeds") == 0
    assert same_weights(tmp_path / "run", trained)


def test_masks_evaluation_and_loading_processes_change_no_weight(
    trained: Path,
    start: list[str],
    without_masks: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(train_voc.main, *start, "--data_root", without_masks, "--workers", "1") == 0
    assert same_weights(tmp_path / "run", trained)
    assert (
        run(
            test_msc_flip_voc.main,
            "--model_path",
            tmp_path / "run" / "checkpoints" / "final.pt",
            "--no_crf",
        )
        == 0
    )
    # without masks: pictures, no scores, said first
    said = capsys.readouterr().out
    assert "\nthis test will give label maps and no score, for want of masks\n" in said
    assert len(list((tmp_path / "run" / "prediction").iterdir())) == VAL
    assert not (tmp_path / "run" / "results.json").exists()


@pytest.mark.parametrize(
    ("event", "at", "left"),
    [
        (crash, 1, 6),  # within stage 1, before its first checkpoint
        (crash, 2, 4),  # between the stages
        (crash, 5, 2),  # within stage 2, an iteration after a checkpoint
        (signalled, 4, 1),  # the iteration is finished and kept
    ],
)
def test_resuming_gives_the_weights_of_the_uninterrupted_run(
    event: Callable[[], None],
    at: int,
    left: int,
    trained: Path,
    start: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        counted(patch, at, event)
        assert run(train_voc.main, *start) == 130
    assert "--resume" in capsys.readouterr().err
    with pytest.MonkeyPatch.context() as patch:
        seen = counted(patch)
        assert run(train_voc.main, *start, "--resume") == 0
    assert len(seen) == left
    assert same_weights(tmp_path / "run", trained)


def test_a_trained_class_token_vit_skips_stage_1(
    trained: Path, start: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = counted(monkeypatch)
    assert run(train_voc.main, *start, "--mct_path", trained / "checkpoints" / "classifier.pt") == 0
    assert seen == ["segmenter"] * 4
    assert same_weights(tmp_path / "run", trained)


@pytest.mark.parametrize("branches", ["clip", "vit"])
def test_each_branch_trains_alone(branches: str, start: list[str], tmp_path: Path) -> None:
    assert run(train_voc.main, *start, "--branches", branches, "--eval_seeds") == 0
    assert any(name.startswith("vit.") for name in final_weights(tmp_path / "run")) == (
        branches == "vit"
    )
    assert (
        run(
            test_msc_flip_voc.main,
            "--model_path",
            tmp_path / "run" / "checkpoints" / "final.pt",
            "--no_crf",
        )
        == 0
    )
    seeds = {"clip": "CLIP seed", "vit": "ViT seed"}[branches]
    assert set(json.loads((tmp_path / "run" / "results.json").read_text())) == {
        seeds,
        "pseudo label",
        SINGLE,
        MULTI,
    }


def test_coco_form_and_a_checkpoint_of_other_classes(
    toy_coco: Path, quick: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, checkpoint = tmp_path / "run", tmp_path / "run" / "checkpoints" / "final.pt"
    assert run(train_coco.main, "--data_root", toy_coco, "--work_dir", folder, *quick) == 0
    assert run(test_msc_flip_coco.main, "--model_path", checkpoint) == 0
    assert len(list((folder / "prediction").glob("COCO_val2014_*.png"))) == VAL
    assert len(json.loads((folder / "results.json").read_text())[CRF]["counts"]) == 81
    assert run(test_msc_flip_voc.main, "--model_path", checkpoint) == 2
    assert "trained on coco; test it with test_msc_flip_coco.py" in capsys.readouterr().err
