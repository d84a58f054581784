"""run_voc.sh: what it trains and tests, told by an interpreter that notes the commands instead of
running them, and has every package (`test_environment.py` is about those that have not).
"""

import math
import os
import shlex
import subprocess
import sys
from dataclasses import astuple, dataclass
from pathlib import Path

import pytest
from helpers import run

import train_voc
from utils.common import device
from utils.common.startup import ROOT

NOTING = """#!/bin/bash
case "$*" in
  "- "*) ;;
  *--print_plan) {plan} ;;
  *) printf '%s\\n' "$*" >> {log} ;;
esac
"""


@dataclass(frozen=True)
class Plan:
    """What `train_voc.py --print_plan` says, one a line."""

    work_dir: str = "runs/toy_voc"
    device: str = "auto"
    stages: str = "all"
    data_root: str = "data/toy_voc"
    processes: int = 1

    def __str__(self) -> str:
        """Return the lines."""
        return "".join(f"{value}\n" for value in astuple(self))


def commands(
    folder: Path, *flags: str, plan: Plan | None = None, **environment: str
) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """How the script ended, and the commands it gave.

    plan: what it is told of the training; None lets `train_voc.py` say it, which takes seconds.
    """
    python, log, lines = folder / "python", folder / "log", folder / "plan"
    told = f'exec {shlex.quote(sys.executable)} "$@"'
    if plan is not None:
        lines.write_text(str(plan))
        told = f"cat {shlex.quote(str(lines))}"
    python.write_text(NOTING.format(plan=told, log=shlex.quote(str(log))))
    python.chmod(0o755)

    variables = {**os.environ, "PYTHON": str(python), "VOC_ROOT": "", "NPROC": "1"}
    variables["MAX_RESTARTS"] = ""
    done = subprocess.run(
        ["bash", ROOT / "run_voc.sh", *flags],
        env={**variables, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return done, log.read_text().splitlines() if log.exists() else []


def planned(capsys: pytest.CaptureFixture[str], *flags: str) -> list[str]:
    """The lines of the plan of a training with these flags, behind those of the script."""
    capsys.readouterr()
    default = ["--config", ROOT / "configs" / "toy_voc.yaml"]
    assert run(train_voc.main, *default, *flags, "--print_plan") == 0
    return capsys.readouterr().out.splitlines()


def test_the_checkpoint_that_was_trained_is_tested_wherever_the_settings_say_it_lies(
    tmp_path: Path,
) -> None:
    base, own = tmp_path / "base.yaml", tmp_path / "own.yaml"
    base.write_text(
        f"base: {ROOT / 'configs' / 'voc.yaml'}\nwork_dir: 'runs/mine # "
        f"{'long ' * 20}ön'\ndevice: cpu\n"
    )
    own.write_text("base: base.yaml\nseed: 3\n")
    done, (train, test) = commands(tmp_path, "--config", str(own), VOC_ROOT=str(tmp_path))
    assert done.returncode == 0, done.stderr
    default = f"--config configs/voc.yaml --data_root {tmp_path}"
    assert train == f"train_voc.py --resume {default} --config {own}"
    where = f"runs/mine # {'long ' * 20}ön/checkpoints/final.pt"
    assert test == f"test_msc_flip_voc.py --model_path {where} --device cpu"


@pytest.mark.skipif((ROOT / "VOCdevkit").exists(), reason="there is data")
def test_without_data_the_toy_set_is_drawn_and_several_processes_may_train(tmp_path: Path) -> None:
    done, (draw, train, test) = commands(tmp_path, "--max_iters", "7", plan=Plan(), NPROC="2")
    assert done.returncode == 0 and "running the embedded toy set" in done.stdout
    assert draw == "-m datasets.prepare toy --layout voc --root data/toy_voc"
    launch = "-m utils.tools.launch --processes 2 --restarts 0"
    assert train == f"{launch} train_voc.py --resume --config configs/toy_voc.yaml --max_iters 7"
    tested = "--model_path runs/toy_voc/checkpoints/final.pt --device auto"
    assert test == f"{launch} test_msc_flip_voc.py {tested}"


def test_on_a_cpu_the_cores_are_shared_by_processes_unless_a_batch_is_odd(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    monkeypatch.setattr(device, "usable_cores", lambda: 5)
    monkeypatch.setattr(device, "usable_memory", lambda: math.inf)
    assert planned(capsys, "--device", "cpu")[-1] == "4"
    assert planned(capsys, "--device", "cpu", "--batch_size", "6")[-1] == "2"
    assert planned(capsys, "--device", "cpu", "--batch_size", "7")[-1] == "1"


@pytest.mark.parametrize("processes", [1, 2])
def test_as_many_processes_train_as_are_planned(tmp_path: Path, processes: int) -> None:
    done, given = commands(tmp_path, plan=Plan(processes=processes), NPROC="")
    assert done.returncode == 0, done.stderr
    launch = "-m utils.tools.launch --processes 2 --restarts 0 " if processes == 2 else ""
    assert given[-2].startswith(f"{launch}train_voc.py")
    assert given[-1].startswith(f"{launch}test_msc_flip_voc.py")


def test_one_process_may_be_started_again_too(tmp_path: Path) -> None:
    _, given = commands(tmp_path, plan=Plan(), MAX_RESTARTS="3")
    launch = "-m utils.tools.launch --processes 1 --restarts 3"
    assert given[-2].startswith(f"{launch} train_voc.py") and given[-1].startswith(launch)


@pytest.mark.parametrize("name", ["NPROC", "MAX_RESTARTS"])
def test_a_number_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    done, given = commands(tmp_path, plan=Plan(), **{name: "two"})
    assert (done.returncode, done.stderr) == (2, f"error: {name}=two is no number\n")
    assert not any("train" in each for each in given)


def test_a_data_folder_that_is_not_there_is_told_before_python_starts(tmp_path: Path) -> None:
    started = tmp_path / "python started"
    python = tmp_path / "noting python"
    python.write_text(f"#!/bin/bash\ntouch {shlex.quote(str(started))}\n")
    python.chmod(0o755)

    for given in ("no where/at all", str(python)):
        done = subprocess.run(
            ["bash", ROOT / "run_voc.sh"],
            env={**os.environ, "PYTHON": str(python), "VOC_ROOT": given},
            capture_output=True,
            text=True,
            check=False,
        )
        said = f"error: VOC_ROOT={given} is not a folder (seen from {ROOT}); name the data set's"
        assert done.returncode == 2 and done.stderr.startswith(said)
        assert len(done.stderr.splitlines()) == 1 and not started.exists()


def test_a_wrong_flag_starts_nothing(tmp_path: Path) -> None:
    done, given = commands(tmp_path, "--mx_iters", "7")
    assert (done.returncode, given) == (2, []) and done.stderr.splitlines()[0].startswith(
        "error: unknown flag"
    )


def test_a_question_is_answered_and_starts_nothing_else(tmp_path: Path) -> None:
    done, given = commands(tmp_path, "--help", VOC_ROOT=str(tmp_path))
    assert done.returncode == 0
    assert given == [f"train_voc.py --config configs/voc.yaml --data_root {tmp_path} --help"]

    (tmp_path / "log").unlink()
    plan = Plan(work_dir="runs/asked")
    done, given = commands(tmp_path, "--print_plan", plan=plan)
    assert (done.returncode, given) == (0, []) and done.stdout == str(plan)


@pytest.mark.parametrize(
    ("recipe", "stages", "said"),
    [
        ("weclip_voc", "all", "checkpoints/final.pt and its test results"),
        ("mctformer_plus_voc", "classifier", "checkpoints/classifier.pt"),
        ("clip_es_voc", "seeds", "pseudo_labels, one PNG per image"),
    ],
)
def test_a_recipe_says_what_it_yields_and_is_tested_only_where_there_is_a_network(
    recipe: str, stages: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--config", recipe]
    work_dir, where, *found = planned(capsys, *flags)
    assert (work_dir, found[0]) == (f"runs/{recipe}", stages)

    plan = Plan(work_dir, where, stages, str(tmp_path))
    done, given = commands(tmp_path, *flags, plan=plan, VOC_ROOT=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert f"this run yields {work_dir}/{said}" in done.stdout
    tested = [command for command in given if command.startswith("test_msc_flip_voc.py")]
    assert len(given) == 1 + len(tested)
    assert bool(tested) is (stages == "all")


@pytest.mark.skipif((ROOT / "VOCdevkit").exists(), reason="there is data")
def test_a_recipe_of_real_data_does_not_fall_back_to_the_toy_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--config", "weclip_voc"]
    work_dir, _, _, data_root, _ = planned(capsys, *flags)
    done, given = commands(tmp_path, *flags, plan=Plan(work_dir, data_root=data_root))
    assert done.returncode == 0 and "toy" not in done.stdout
    assert given[0].startswith("train_voc.py --resume")

    (tmp_path / "log").unlink()
    flags = ["--config", "toy_voc", "weclip"]
    work_dir, _, _, data_root, _ = planned(capsys, *flags)
    assert work_dir == "runs/toy_voc_weclip"
    done, given = commands(tmp_path, *flags, plan=Plan(work_dir, data_root=data_root))
    assert "running the embedded toy set" in done.stdout
    assert given[0] == "-m datasets.prepare toy --layout voc --root data/toy_voc"
    assert given[2].split()[2] == "runs/toy_voc_weclip/checkpoints/final.pt"


def test_the_scripts_find_modules_where_python_does_not_look_beside_them() -> None:
    script = f'source {ROOT}/utils/tools/environment.sh; "$0" -m utils.tools.launch --help'
    done = subprocess.run(
        ["bash", "-c", script, sys.executable],
        cwd=ROOT,
        env={**os.environ, "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and done.stdout.startswith("usage: python -m utils.tools.launch")
