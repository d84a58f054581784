"""run_voc.sh: what it trains and tests, told by an interpreter that notes the commands instead of
running them, and has every package (`test_environment.py` is about those that have not).
"""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from utils.common.cores import usable_cores
from utils.common.device import LEAST_MEMORY
from utils.common.memory import usable_memory
from utils.common.startup import ROOT

NOTING = """#!/bin/bash
case "$*" in
  "- "*) ;;
  *--print_plan* | *--help*) exec {python} "$@" ;;
  *) printf '%s\\n' "$*" >> {log} ;;
esac
"""


def commands(
    folder: Path, *flags: str, **environment: str
) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """How the script ended, and the commands it gave."""
    python, log = folder / "python", folder / "log"
    python.write_text(NOTING.format(python=shlex.quote(sys.executable), log=shlex.quote(str(log))))
    python.chmod(0o755)
    variables = {**os.environ, "PYTHON": str(python), "VOC_ROOT": "", "NPROC": "1"}
    done = subprocess.run(
        ["bash", ROOT / "run_voc.sh", *flags],
        env={**variables, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return done, log.read_text().splitlines() if log.exists() else []


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
    done, (draw, train, test) = commands(tmp_path, "--max_iters", "7", NPROC="2")
    assert done.returncode == 0 and "running the embedded toy set" in done.stdout
    assert draw == "-m datasets.prepare toy --layout voc --root data/toy_voc"
    launch = "-m utils.tools.launch --processes 2 --restarts 0"
    assert train == f"{launch} train_voc.py --resume --config configs/toy_voc.yaml --max_iters 7"
    tested = "--model_path runs/toy_voc/checkpoints/final.pt --device auto"
    assert test == f"{launch} test_msc_flip_voc.py {tested}"


@pytest.mark.skipif((ROOT / "VOCdevkit").exists(), reason="there is data")
def test_on_a_cpu_the_cores_are_shared_by_processes_unless_a_batch_is_odd(tmp_path: Path) -> None:
    usual = {"NPROC": "", "OMP_NUM_THREADS": "", "WORLD_SIZE": "1"}
    done, (_, train, _) = commands(tmp_path, "--device", "cpu", **usual)
    assert done.returncode == 0, done.stderr
    most = min(usable_cores(), usable_memory() / LEAST_MEMORY)
    expected = max(count for count in (1, 2, 4) if count <= max(1, most))
    assert train.startswith(f"-m utils.tools.launch --processes {expected}") or expected == 1

    (tmp_path / "log").unlink()
    _, (_, train, _) = commands(tmp_path, "--device", "cpu", "--batch_size", "7", **usual)
    assert train.startswith("train_voc.py")


@pytest.mark.skipif((ROOT / "VOCdevkit").exists(), reason="there is data")
def test_one_process_may_be_started_again_too(tmp_path: Path) -> None:
    _, (_, train, test) = commands(tmp_path, MAX_RESTARTS="3")
    launch = "-m utils.tools.launch --processes 1 --restarts 3"
    assert train.startswith(f"{launch} train_voc.py") and test.startswith(launch)


@pytest.mark.parametrize("name", ["NPROC", "MAX_RESTARTS"])
def test_a_number_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    done, given = commands(tmp_path, **{name: "two"})
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


def test_a_wrong_flag_and_a_question_start_nothing(tmp_path: Path) -> None:
    done, given = commands(tmp_path, "--mx_iters", "7")
    assert (done.returncode, given) == (2, []) and done.stderr.splitlines()[0].startswith(
        "error: unknown flag"
    )
    done, given = commands(tmp_path, "--help")
    assert (done.returncode, given) == (0, []) and "--crop_size" in done.stdout
    done, given = commands(tmp_path, "--print_plan")
    assert (done.returncode, given) == (0, []) and done.stdout.startswith("runs/toy_voc\n")


def test_a_recipe_says_what_it_yields_and_is_tested_only_where_there_is_a_network(
    tmp_path: Path,
) -> None:
    yields = {
        "weclip_voc": "runs/weclip_voc/checkpoints/final.pt and its test results",
        "mctformer_plus_voc": "runs/mctformer_plus_voc/checkpoints/classifier.pt",
        "clip_es_voc": "runs/clip_es_voc/pseudo_labels, one PNG per image",
    }
    for recipe, said in yields.items():
        (tmp_path / "log").unlink(missing_ok=True)
        done, given = commands(tmp_path, "--config", recipe, VOC_ROOT=str(tmp_path))
        assert done.returncode == 0, done.stderr
        assert f"this run yields {said}" in done.stdout
        tested = [command for command in given if command.startswith("test_msc_flip_voc.py")]
        assert len(given) == 1 + len(tested)
        assert bool(tested) is (recipe == "weclip_voc")


@pytest.mark.skipif((ROOT / "VOCdevkit").exists(), reason="there is data")
def test_a_recipe_of_real_data_does_not_fall_back_to_the_toy_set(tmp_path: Path) -> None:
    done, given = commands(tmp_path, "--config", "weclip_voc")
    assert done.returncode == 0 and "toy" not in done.stdout
    assert given[0].startswith("train_voc.py --resume")

    (tmp_path / "log").unlink()
    done, given = commands(tmp_path, "--config", "toy_voc", "weclip")
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
