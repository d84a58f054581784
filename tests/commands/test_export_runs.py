"""Exports of a whole command: from what, by several processes, stopped and begun again."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ROOT, TRAIN, run

import test_msc_flip_voc
import train_voc
from utils.common import device
from utils.common.entry import command
from utils.inference import seed_export
from utils.metrics import ConfusionMatrix
from utils.run_folder.results import read_results
from utils.tools import export

FEW = 5  # images


def content(folder: Path) -> dict[str, bytes]:
    """Content of all files of an export but its journals and lock."""
    files = (file for file in folder.rglob("*") if file.suffix in (".npz", ".npy", ".png"))
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


@pytest.fixture
def flags(trained: Path, tmp_path: Path) -> list[object]:
    """Export the first images of a training into `tmp_path / "out"`."""
    checkpoint = trained / "checkpoints" / "final.pt"
    split = f"train_aug[:{FEW}]"
    return ["--model_path", checkpoint, "--out", tmp_path / "out", "--split", split]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows with every image whose seeds are made."""
    seen: list[int] = []
    real = seed_export.image_seeds

    def noted(*given: object) -> object:
        seen.append(len(seen))
        return real(*given)

    monkeypatch.setattr(seed_export, "image_seeds", noted)
    return seen


def test_a_stopped_export_goes_on_to_the_same_bytes(
    flags: list[object], made: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command(export.main), *flags) == 0
    assert "s per image, about" in capsys.readouterr().out
    whole = content(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    made.clear()

    mask_png = seed_export.mask_png

    def stopped(*given: object) -> bytes:
        if len(made) == 3:
            raise KeyboardInterrupt
        return mask_png(*given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seed_export, "mask_png", stopped)
        assert run(command(export.main), *flags) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert not (tmp_path / "out" / "export.json").exists()

    made.clear()
    assert run(command(export.main), *flags) == 0
    assert "2 of 5 images are finished already" in capsys.readouterr().out
    assert len(made) == 3 and content(tmp_path / "out") == whole

    (tmp_path / "out" / next(iter(whole))).unlink()
    assert run(command(export.main), *flags) == 0
    assert len(made) == 4 and content(tmp_path / "out") == whole


def test_what_would_be_made_otherwise_is_made_anew(
    flags: list[object], made: list[int], tmp_path: Path
) -> None:
    assert run(command(export.main), *flags) == 0
    for other in (["--kind", "vit"], ["--layout", "irn"], ["--sweep"]):
        made.clear()
        assert run(command(export.main), *flags, *other) == 0
        assert len(made) == FEW, other

    made.clear()
    assert run(command(export.main), *flags) == 0  # kept of the sweep
    assert made == []


def test_a_stopped_sweep_goes_on_to_the_same_scores(
    flags: list[object], made: list[int], tmp_path: Path
) -> None:
    about = tmp_path / "out" / "export.json"
    assert run(command(export.main), *flags, "--sweep") == 0
    whole = about.read_bytes()

    journal = about.with_name("images.jsonl")
    lines = journal.read_text().splitlines(keepends=True)
    counts = json.loads(lines[1])["sweep"]
    others = ({}, {**counts, "mask": "other.png"}, {**counts, "changed": [0, 0]})
    spoilt = [json.dumps({**json.loads(lines[1]), "sweep": sweep}) + "\n" for sweep in others]
    torn = lines[3][:-40]
    for kept in (lines[:3], *([lines[0], line, lines[4], torn] for line in spoilt)):
        journal.write_text("".join(kept))
        made.clear()
        assert run(command(export.main), *flags, "--sweep") == 0
        assert len(made) == FEW - len({*kept} & {*lines[1:]})
        assert about.read_bytes() == whole


def test_nothing_of_another_checkpoint_is_kept(
    flags: list[object],
    made: list[int],
    toy_voc: Path,
    clip_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(command(export.main), *flags) == 0
    whole = torch.load(flags[1], weights_only=True)
    bent = {name: tensor + (name == "vit.cls_token") for name, tensor in whole["model"].items()}
    flags[1] = tmp_path / "other.pt"
    torch.save({**whole, "model": bent}, flags[1])

    made.clear()
    places = ("--data_root", toy_voc, "--clip_path", clip_file)
    assert run(command(export.main), *flags, *places) == 0
    assert "was made with another checkpoint" in capsys.readouterr().out
    assert len(made) == FEW


def test_the_vit_of_stage_1_gives_what_its_training_scored(
    toy_voc: Path,
    quick: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(device, "_cpu_has_bf16", lambda: False)  # fp32, as the training has it
    folder = tmp_path / "run"
    settings = (*quick, "--data_root", toy_voc, "--work_dir", folder, "--mct_batch_size", 12)
    scored = ("--eval_seeds", "--seeds_split", "train_aug", "--seeds_images", TRAIN)
    recipe = ("--config", "toy_voc", "mctformer_plus", "--mct_epochs", 1)
    assert run(train_voc.main, *recipe, *settings, *scored) == 0

    checkpoint = ("--model_path", folder / "checkpoints" / "classifier.pt")
    where = ("--out", tmp_path / "out", "--device", "cpu", "--sweep")
    assert run(command(export.main), *checkpoint, *where) == 0
    about = json.loads((tmp_path / "out" / "export.json").read_text())
    assert about["kind"] == "vit" and about["images"] == TRAIN
    counts = read_results(folder)["pseudo label"]["counts"]
    expected = 100 * ConfusionMatrix.from_counts(counts).miou()
    assert about["mIoU"]["pseudo label"] == pytest.approx(expected)

    assert run(test_msc_flip_voc.main, *checkpoint) == 2
    said = capsys.readouterr().err
    assert "is the class-token ViT of stage 1 alone" in said and "beside" not in said


def test_a_recipe_that_trains_nothing_exports_the_labels_of_its_run(
    toy_voc: Path, quick: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    few = ("--train_split", f"train_aug[:{FEW}]", "--par_iterations", 0)
    settings = (*quick, "--data_root", toy_voc, "--work_dir", folder)
    assert run(train_voc.main, "--config", "toy_voc", "clip_es", *settings, *few) == 0

    out = ("--out", tmp_path / "out")
    assert run(command(export.main), "--config", folder / "config.yaml", *out) == 0
    labels = content(folder / "pseudo_labels")
    assert len(labels) == FEW and content(tmp_path / "out" / "pseudo_labels") == labels
    for file in (tmp_path / "out" / "seeds").iterdir():
        seeds = np.load(file)
        assert len(seeds["keys"]) == len(seeds["scores"]) and seeds["scores"].max() <= 1


def test_what_cannot_be_exported_is_one_sentence(
    flags: list[object], trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", tmp_path / "out"]
    for given, said in (
        (["--config", "voc", *out], "--config voc trains a network (stages: all); give the"),
        ([*flags[:3], trained, *flags[4:]], f"--out {trained} is the folder of a run or of"),
        (out, "--model_path --config"),
        ([*flags, "--split", "tset"], "tset.txt does not exist"),
    ):
        assert run(command(export.main), *given) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.heavy
def test_two_processes_export_and_count_what_one_does(flags: list[object], tmp_path: Path) -> None:
    assert run(command(export.main), *flags, "--sweep") == 0
    whole = content(tmp_path / "out")
    about = (tmp_path / "out" / "export.json").read_bytes()
    shutil.rmtree(tmp_path / "out")

    launch = ("-m", "utils.tools.launch", "--processes", "2", "-m", "utils.tools.export")
    words = [sys.executable, *launch, *map(str, flags), "--sweep", "--device", "cpu"]
    ran = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True)
    assert ran.stdout.count("images of train_aug") == 1
    assert content(tmp_path / "out") == whole
    assert (tmp_path / "out" / "export.json").read_bytes() == about
    journals = [tmp_path / "out" / name for name in ("images.jsonl", "images-1.jsonl")]
    lines = [len(file.read_text().splitlines()) for file in journals]
    assert lines == [1 + 3, 2]  # a header, and every second image
