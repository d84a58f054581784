"""The ablation: what it trains, what it scores, and the table it prints."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from helpers import counted, run

from datasets.layouts import items
from utils.tools import ablation
from utils.tools.ablation import CEILING, MaskedCrops, print_table

ROWS = ["ViT only", "fusion", CEILING]


@pytest.fixture
def settings(toy_voc: Path, quick: list[str], tmp_path: Path) -> Path:
    """A configuration file of the quick training."""
    values = {
        flag.removeprefix("--"): yaml.safe_load(value)
        for flag, value in zip(quick[::2], quick[1::2])
    }
    values |= {"data_root": str(toy_voc), "train_split": "train", "eval_seeds": True}
    path = tmp_path / "quick.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_every_row_is_trained_once_and_scored(
    settings: Path, toy_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "ablation"
    arguments = ["--config", settings, "--seeds", 0, "--work_dir", folder, "--device", "cpu"]
    with pytest.MonkeyPatch.context() as patch:
        steps = counted(patch)
        assert run(ablation.main, *arguments, "--rows", *ROWS) == 0
        # stage 1 of the seed is trained by the first row and read by the others
        assert steps == ["classifier"] * 2 + ["segmenter"] * 4 * 3
        table = capsys.readouterr().out.splitlines()[-1 - len(ROWS) :]

        assert run(ablation.main, *arguments, "--rows", *ROWS) == 0
        assert len(steps) == 2 + 4 * 3
        assert capsys.readouterr().out.splitlines() == table

    for row in ROWS:
        scores = json.loads((folder / f"{row}-0" / "scores.json").read_text())
        assert 0 <= scores[str(toy_voc)] <= 100
        assert ("pseudo label" in scores) == (row != CEILING)
        (line,) = (line for line in table if line.startswith(f"{row}, 1 seeds"))
        pseudo = f"{scores['pseudo label']:.1f} (0.0)" if "pseudo label" in scores else "-"
        assert (
            line.split("seeds")[1].split() == f"{pseudo} {scores[str(toy_voc)]:.1f} (0.0)".split()
        )


def test_masks_are_cropped_as_the_images_are(toy_voc: Path) -> None:
    images = items("voc", toy_voc, "train")
    data = MaskedCrops(images, np.zeros((len(images), 20), bool), 64, (0.5, 0.75))
    padded = 0
    for index in range(6):
        sample = data[0, index]
        labels = sample["labels"]
        assert labels.shape == (64, 64) and labels.dtype == torch.uint8
        # what is no picture has no label; the drawn masks themselves may hold a rim of 255
        outside = ~sample["valid"]
        assert (labels[outside] == 255).all()
        assert (labels[sample["valid"]] != 255).any()
        padded += int(outside.sum())
    assert padded > 0


def test_the_table_tells_means_deviations_and_the_lead(capsys: pytest.CaptureFixture[str]) -> None:
    table = {
        "CLIP only": [{"data/voc": 50.0}, {"data/voc": 54.0}],
        "fusion": [
            {"data/voc": 60.0, "pseudo label": 70.0},
            {"data/voc": 62.0, "pseudo label": 70.0},
        ],
    }
    print_table(table, ["pseudo label", "data/voc"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        "mIoU",
        "%,",
        "mean",
        "(standard",
        "deviation)",
        "pseudo",
        "label",
        "voc",
    ]
    assert lines[1].split() == ["CLIP", "only,", "2", "seeds", "-", "52.0", "(2.8)"]
    assert lines[2].split() == ["fusion,", "2", "seeds", "70.0", "(0.0)", "61.0", "(1.4)"]
    assert lines[3:] == ["voc: fusion - CLIP only +9.0, standard error 1.0"]
