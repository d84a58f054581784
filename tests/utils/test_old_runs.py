"""Runs of an earlier version (old_runs/README.md) go on, are tested and reported."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from helpers import counted, final_weights, run
from old_clip import write_old_clip

import test_msc_flip_voc
import train_voc
from datasets.toy.write import write_voc
from utils import compatibility, config
from utils.common.options import options
from utils.config import Config
from utils.metrics import CRF, MULTI, SINGLE
from utils.run_folder.results import read_results
from utils.tools import report

RESUME = ("--config", "interrupted/config.yaml", "--resume")
STEP = 0.01  # their learning rate, by about which one iteration moves every weight


@pytest.fixture(autouse=True)
def old_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder that holds the runs, their data and their CLIP."""
    shutil.copytree(Path(__file__).with_name("old_runs"), tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    write_voc(Path("data"), 4, 2, 64, seed=0)
    write_old_clip(Path("clip.safetensors"))


def rewrite(change: Callable[[dict], None]) -> None:
    """Apply a change to every checkpoint of the interrupted run."""
    for path in Path("interrupted/checkpoints").iterdir():
        content = torch.load(path, weights_only=True)
        change(content)
        torch.save(content, path)


def went_on(patch: pytest.MonkeyPatch) -> bool:
    """Resume the interrupted run; whether it ends where the uninterrupted one did."""
    seen = counted(patch)
    assert run(train_voc.main, *RESUME) == 0
    ours, theirs = final_weights(Path("interrupted")), final_weights(Path("finished"))
    assert seen == ["segmenter"] * 2 and ours.keys() == theirs.keys()
    return all(torch.allclose(ours[name], theirs[name], 0, STEP / 10) for name in ours)


def test_an_interrupted_run_ends_where_the_uninterrupted_one_did(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert went_on(monkeypatch)
    said = Path("interrupted/train.log").read_text(encoding="utf-8")
    assert "segmenter.pt does not say which images and tags it was trained on" in said


@pytest.mark.drawn
def test_a_finished_run_is_tested_and_reported() -> None:
    before = read_results(Path("finished"))
    model = "finished/checkpoints/final.pt"
    assert run(test_msc_flip_voc.main, "--model_path", model, "--device", "cpu") == 0
    assert len(list(Path("finished/prediction").iterdir())) == 2

    after = read_results(Path("finished"))
    assert after.keys() == before.keys() and {SINGLE, MULTI, CRF} <= after.keys()
    assert run(report.main, "finished") == 0
    assert "pseudo label" in Path("finished/report.html").read_text(encoding="utf-8")


def test_a_setting_that_the_run_did_not_know_is_what_runs_had_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = options(Config)
    known["init"] = replace(known["init"], before="clip_visual")  # by default auto
    monkeypatch.setattr(config, "options", lambda _: known)
    file = Path("interrupted/config.yaml")
    file.write_text(file.read_text().replace("init: clip_visual\n", ""))
    rewrite(lambda content: content["config"].pop("init"))
    assert went_on(monkeypatch)
    assert yaml.safe_load(file.read_text())["init"] == "clip_visual"


def test_what_was_renamed_since_loads_under_its_new_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(compatibility.RENAMED_SETTINGS, "rate", "lr")
    monkeypatch.setitem(compatibility.RENAMED_TENSORS, "head.decoder.", "decoder.")

    def renamed(content: dict) -> None:
        content["config"]["rate"] = content["config"].pop("lr")
        for name in [name for name in content["model"] if name.startswith("decoder.")]:
            content["model"][f"head.{name}"] = content["model"].pop(name)

    file = Path("interrupted/config.yaml")
    file.write_text(file.read_text().replace("\nlr: ", "\nrate: "))
    rewrite(renamed)
    assert went_on(monkeypatch)


def test_where_a_default_changed_the_refusal_names_the_runs_own_settings(
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = Path("interrupted/config.yaml")
    before = file.read_bytes()
    assert run(train_voc.main, "--work_dir", "interrupted", "--resume") == 2
    said = capsys.readouterr().err
    assert "was trained with" in said and "--config interrupted/config.yaml" in said
    assert said.count("\n") == 1 and file.read_bytes() == before
