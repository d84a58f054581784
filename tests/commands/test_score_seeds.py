"""Scoring a folder of seed files: at every background threshold, at one, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import run
from PIL import Image

from datasets.specs import IGNORE, VOC
from utils.common.entry import command
from utils.inference.seed_files import SEEDS, packed
from utils.metrics import ConfusionMatrix, result_of
from utils.tools import score

score_main = command(score.main)
NAMES = ("one", "two", "none")
KEYS = {"one": [2, 5], "two": [14], "none": []}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with masks/ of three pictures and seeds/ of other codes: the truth with noise."""
    rng = np.random.default_rng(0)
    for name in ("masks", "seeds"):
        (tmp_path / name).mkdir()
    for name in NAMES:
        keys = np.array(KEYS[name], int)
        truth = rng.choice([0, *(keys + 1)], (12, 9)).astype(np.uint8)
        scores = 0.6 * (truth == keys[:, None, None] + 1) + 0.4 * rng.random((len(keys), 12, 9))
        truth[:2] = IGNORE
        Image.fromarray(truth).save(tmp_path / "masks" / f"{name}.png")
        content = dict(zip(keys.tolist(), scores.astype(np.float32)))
        np.save(tmp_path / "seeds" / f"{name}.npy", content)
    one = np.load(tmp_path / "seeds" / "one.npy", allow_pickle=True).item()
    irn = {"keys": torch.tensor(KEYS["one"]), "cam": torch.ones(2, 3, 3)}
    np.save(tmp_path / "seeds" / "one.npy", {**irn, "high_res": np.stack(list(one.values()))})
    return tmp_path


def scored(folder: Path, *flags: object) -> dict[str, Any]:
    """What --json says of the seeds."""
    given = "--seeds", folder / "seeds", "--masks", folder / "masks", "--json", folder / "a.json"
    assert run(score_main, *given, *flags) == 0
    return json.loads((folder / "a.json").read_text())["seeds"]


def counted(folder: Path, threshold: float) -> ConfusionMatrix:
    """The counts of the labels that a threshold makes, as evaluation codes of this field do."""
    matrix = ConfusionMatrix(21)
    for name in NAMES:
        held = np.load(folder / "seeds" / f"{name}.npy", allow_pickle=True).item()
        truth = np.array(Image.open(folder / "masks" / f"{name}.png"))
        maps = held.get("high_res", [held.get(key) for key in KEYS[name]])
        channels = np.stack([np.full(truth.shape, np.float32(threshold)), *maps])
        matrix.update(np.array([0, *np.array(KEYS[name], int) + 1])[channels.argmax(0)], truth)
    return matrix


def test_seeds_are_scored_at_the_best_threshold_and_at_one(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = scored(folder)
    by_threshold = {t / 100: 100 * counted(folder, t / 100).miou() for t in range(1, 100)}
    best = max(by_threshold, key=by_threshold.__getitem__)
    tuned = found["tuned on masks"]
    assert tuned["threshold"] == best and 50 < found["mIoU"] == by_threshold[best]
    assert tuned["mIoU by t"] == {f"{t:g}": miou for t, miou in by_threshold.items()}
    said = capsys.readouterr().out
    assert f"seeds (3) at {best:g}" in said and "aeroplane" in said and "have no" not in said
    assert f"seed mIoU {by_threshold[best]:.2f} at background threshold {best:g}, the best" in said
    assert f"of 99: tuned on the masks in {folder / 'masks'}, an upper bound, not to be" in said

    found = scored(folder, "--threshold", 0.3)
    matrix = counted(folder, 0.3)
    expected = result_of(str(folder / "masks"), matrix, VOC.classes)
    assert found == {**expected, "mIoU": 100 * matrix.miou(), "threshold": 0.3}
    said = capsys.readouterr().out
    assert "seeds (3) at 0.3 " in said and f"{100 * matrix.miou():.2f}" in said
    assert "tuned" not in said and "upper bound" not in said


def test_files_with_a_background_score_as_those_without(folder: Path) -> None:
    expected = scored(folder)
    for name in NAMES:
        path = folder / "seeds" / f"{name}.npy"
        held = np.load(path, allow_pickle=True).item()
        keys = np.array(KEYS[name], int)
        maps = np.array(held.get("high_res", [held.get(key) for key in KEYS[name]]))
        maps = maps.reshape(-1, 12, 9)
        if name == "one":  # as AMN has them
            background = 1 - maps.max(0, keepdims=True)
            np.save(path, {"keys": keys, "high_res": np.concatenate([background, maps])})
        else:  # as PuzzleCAM has them
            np.save(path, {"keys": np.pad(keys + 1, (1, 0)), "hr_cam": maps})
    assert scored(folder) == expected


@pytest.mark.parametrize("form", ["SEAM's CRF", "keys of all maps", "classes alone"])
def test_classes_counted_from_1_are_never_taken_for_others(
    form: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in NAMES:
        keys = [key + 1 for key in KEYS[name]]
        if form != "classes alone":
            keys = [0, *keys]
        maps = np.full((len(keys), 12, 9), 1 / max(1, len(keys)), np.float32)
        content: dict = {"keys": np.array(keys, int), "high_res": maps}
        if form == "SEAM's CRF":
            content = dict(zip(keys, maps))
        np.save(folder / "seeds" / f"{name}.npy", content)
    assert run(score_main, "--seeds", folder / "seeds", "--masks", folder / "masks") == 2
    error = capsys.readouterr().err
    assert f"the seed files in {folder / 'seeds'} seem to count classes from 1" in error
    assert "so counted, their masks show 3 of them, and counted from 0 on 0; save" in error


def test_masks_without_seeds_are_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "seeds" / "none.npy").unlink()
    assert scored(folder)["images"] == 2
    said = capsys.readouterr().out
    assert f"1 of 3 masks in {folder / 'masks'} have no seeds, first none.png: the" in said
    (folder / "list").write_text("two\n")
    assert scored(folder, "--list", folder / "list")["split"] == str(folder / "list")
    assert "have no" not in capsys.readouterr().out


def test_seeds_of_an_export_are_found(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export = folder / "export"
    (export / SEEDS).mkdir(parents=True)
    (export / "pseudo_labels").mkdir()
    (export / "export.json").touch()
    scores = torch.ones(1, 12, 9)
    (export / SEEDS / "two.npz").write_bytes(packed("npz", torch.tensor([14]), scores))
    assert run(score_main, "--seeds", export, "--masks", folder / "masks") == 0
    assert "seeds (1) at 0.01" in capsys.readouterr().out


def save(folder: Path, content: Any) -> None:
    np.save(folder / "seeds" / "two.npy", content)


MAP = np.ones((12, 9), np.float32)
BAD_SEEDS: dict[str, tuple[Callable[[Path], object], tuple[object, ...], str]] = {
    "no seeds": (
        lambda folder: [path.unlink() for path in folder.glob("seeds/*")],
        (),
        "seeds holds no .npy or .npz; give a folder of seed files",
    ),
    "no mask": (
        lambda folder: (folder / "masks" / "two.png").unlink(),
        (),
        "masks lacks 1 of 3 images, first two.png",
    ),
    "not listed": (
        lambda folder: (folder / "list").write_text("two\nthree\n"),
        ("--list", "list"),
        "seeds lacks 1 of 2 images, first three; complete it",
    ),
    "twice": (
        lambda folder: np.savez(folder / "seeds" / "two.npz", keys=[14], scores=[MAP]),
        (),
        "two.npy and seeds/two.npz are both of two; keep one",
    ),
    "logits": (lambda folder: save(folder, {14: 9 * MAP}), (), "two.npy has scores of 9 to 9"),
    "size": (lambda folder: save(folder, {14: MAP.T}), (), "two.npy has no maps of shape (12, 9)"),
    "classes": (lambda _: None, ("--classes", "cat, dog"), "hold labels outside 0..2"),
    "threshold": (lambda _: None, ("--threshold", 30), "--threshold 30 is not above 0 and below"),
    "no number": (lambda _: None, ("--threshold", "nan"), "--threshold nan is not above 0 and"),
    "place": (lambda _: None, ("--json", "."), "--json . is a folder, not a file"),
    "both": (lambda _: None, ("--predictions", "seeds"), "not allowed with argument --seeds"),
}


@pytest.mark.parametrize("case", BAD_SEEDS)
def test_what_cannot_be_scored_is_named(
    case: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    spoil, flags, said = BAD_SEEDS[case]
    spoil(folder)
    assert run(score_main, "--seeds", "seeds", "--masks", "masks", *flags) == 2
    error = capsys.readouterr().err
    assert said in error and len(error.splitlines()) == 1


def test_a_threshold_is_of_seeds_alone(capsys: pytest.CaptureFixture[str]) -> None:
    flags = "--predictions", "a", "--masks", "b", "--threshold", 0.3
    assert run(score_main, *flags) == 2
    assert "--threshold 0.3 is of --seeds; leave it out" in capsys.readouterr().err


def test_processes_count_as_one_does(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = scored(folder, "--workers", 0)
    monkeypatch.setattr(score, "FEW", 1)
    assert scored(folder, "--workers", 2) == alone
