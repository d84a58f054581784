"""Bars in a log file and in quiet mode, and what a training says where."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import run, same_weights
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train_voc
from datasets import picture_files
from utils.common import progress as module
from utils.common.progress import Pace, progress
from utils.metrics import SINGLE
from utils.run_folder.bad_images import BAD_IMAGES
from utils.training import rehearsal
from utils.training.run import Stage


def test_a_bar_in_a_file_is_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(module.SECONDS, False, 0)
    with progress(total=3, desc="outer") as bar:
        for _ in range(3):
            for _ in progress(range(2), desc="inner", leave=False):
                pass
            bar.update()
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("outer: 3/3 [") and any(
        line.startswith("inner: 1/2 [") for line in lines
    )
    assert all(line.isprintable() and line.strip() == line != "" for line in lines)


def test_lines_are_few(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in progress(range(1000), desc="quick"):
        pass
    assert len(capsys.readouterr().err.splitlines()) <= 1


def test_time_left_is_told_after_a_few_steps_and_ten_times(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10000, 2))
    monkeypatch.setattr(module.time, "perf_counter", lambda: float(next(clock)))
    pace = Pace(100, "image")
    told = {step: line for step in range(1, 101) if (line := pace.count())}
    assert list(told) == [4, *range(10, 100, 10)]
    assert told[4] == "0.67 s per image, about 0:01:04 (h:mm:ss) left for the other 96"


def test_time_for_all_that_follows_is_told_and_that_between_steps_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter(range(0, 10000, 2))
    monkeypatch.setattr(module.time, "perf_counter", lambda: float(next(clock)))
    pace = Pace(100, "image")
    pace.count()
    pace.count()
    pace.leave_out(1)  # of the two seconds up to the fourth
    pace.count()
    left = 96 * (2 - 1) / 3
    assert pace.count(600) == (
        f"0.33 s per image, about 0:00:{left:.0f} (h:mm:ss) left for the other 96, "
        f"0:10:{left:.0f} for the whole run"
    )


@pytest.mark.parametrize("total", range(5))
def test_few_steps_are_not_worth_a_word(total: int) -> None:
    pace = Pace(total, "image")
    assert not any(pace.count() for _ in range(total))


def test_training_says_how_long_it_will_take(start: list[str], tmp_path: Path) -> None:
    flags = ("--branches", "clip", "--max_iters", 6, "--quiet")
    assert run(train_voc.main, *start, *flags) == 0
    said = (tmp_path / "run" / "train.log").read_text()
    assert re.search(
        r" segmenter: \d+\.\d\d s per iteration, about .* left for the other 2, "
        r"0:00:\d\d for the whole run\n",
        said,
    )


@pytest.mark.parametrize(("iterations", "every"), [(100, 30), (90, 30), (5, 100), (1, 1)])
@pytest.mark.parametrize("done", [0, 1, 29, 30, 60])
def test_evaluations_that_are_left_are_those_of_the_loop_and_the_last(
    iterations: int, every: int, done: int
) -> None:
    stage = Stage(*[None] * 6, iterations, 1, evaluate=print)  # type: ignore[arg-type]
    due = [step for step in range(done + 1, iterations) if step % every == 0]
    if done < iterations:
        assert stage.evaluations_after(done, every) == len(due) + 1
    assert replace(stage, evaluate=None).evaluations_after(done, every) == 0


def test_stage_1_says_how_long_the_whole_run_will_take(
    start: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = (*start, "--quiet", "--mct_epochs", 3)
    assert run(train_voc.main, *flags) == 0
    plain = (tmp_path / "run").rename(tmp_path / "plain")

    monkeypatch.setattr(rehearsal, "FEWEST", 1)
    steps = rehearsal.rehearse_steps
    monkeypatch.setattr(rehearsal, "rehearse_steps", lambda *all_: steps(*all_) + 86400)
    assert run(train_voc.main, *flags) == 0
    said = (tmp_path / "run" / "train.log").read_text()
    assert re.search(r" classifier: .* left for the other 2, 1 day, .* for the whole run\n", said)
    assert same_weights(tmp_path / "run", plain)  # of the rehearsal nothing is kept


def test_a_rehearsal_leaves_it_to_the_run_to_note_bad_pictures(
    start: list[str], toy_voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = shutil.copytree(toy_voc, tmp_path / "data")
    (data / "JPEGImages" / "toy_val_000000.jpg").write_bytes(b"no picture")
    monkeypatch.setattr(picture_files, "READ_AGAIN_AFTER", (0, 0))
    monkeypatch.setattr(rehearsal, "FEWEST", 1)
    seen = []
    validate = rehearsal.validate
    monkeypatch.setattr(rehearsal, "validate", lambda *given: seen.append(1) or validate(*given))

    flags = ("--data_root", data, "--mct_epochs", 1, "--max_iters", 1, "--eval_images", 0)
    assert run(train_voc.main, *start, *flags, "--on_bad_image", "skip") == 0
    lines = (tmp_path / "run" / BAD_IMAGES).read_text().splitlines()
    assert seen and [json.loads(line)["place"] for line in lines] == ["tags", "validation"]


@pytest.mark.drawn
def test_quiet_training_draws_panels_and_trains_as_ever(
    trained: Path, start: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(train_voc.main, *start, "--visualise", "2", "--quiet") == 0
    assert "".join(capfd.readouterr()) == ""
    folder = tmp_path / "run"
    assert (folder / "train.log").read_text().count(f"{SINGLE} mIoU") == 2 and (
        folder / "report.html"
    ).is_file()
    names = sorted(path.stem for path in (folder / "panels").iterdir())
    assert len(names) == 2
    events = EventAccumulator(str(folder / "tensorboard"), {"images": 0}).Reload()
    assert sorted(events.Tags()["images"]) == [f"panels/{name}" for name in names]
    assert [event.step for event in events.Images(f"panels/{names[0]}")] == [3, 4]
    one, other = (
        torch.load(path / "checkpoints" / "final.pt", weights_only=True)
        for path in (folder, trained)
    )
    assert all(torch.equal(one["model"][name], tensor) for name, tensor in other["model"].items())
