"""A whole training and a test on the device, from the command line to the results."""

import csv
from pathlib import Path

import pytest
import torch
from helpers import GPU, counted, crash, device_named, final_weights, run

import test_msc_flip_voc
import train_voc
from utils.metrics import MULTI


@pytest.fixture(params=[pytest.param("cpu", marks=pytest.mark.heavy), GPU])
def device(request: pytest.FixtureRequest) -> torch.device:
    """The CPU among the heavy tests only, as others train on it; then the first GPU."""
    return device_named(request.param)


def losses(folder: Path) -> dict[tuple[str, str, str], float]:
    """Logged values by stage, iteration and name, but times and memory."""
    with (folder / "metrics.csv").open(newline="") as stream:
        return {
            (line["stage"], line["iteration"], line["name"]): float(line["value"])
            for line in csv.DictReader(stream)
            if line["name"] not in ("seconds", "memory")
        }


def test_a_training_and_its_test_agree_with_the_cpu(
    device: torch.device, trained: Path, toy_voc: Path, quick: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    data = ("--data_root", toy_voc)
    status = run(
        train_voc.main, *data, "--work_dir", folder, *quick, "--eval_seeds", "--device", device
    )
    assert status == 0

    found, expected = losses(folder), losses(trained)
    assert found.keys() == expected.keys()
    first = [key for key in expected if key[1] == "1" and "mIoU" not in key[2]]
    assert first
    for key in first:
        assert found[key] == pytest.approx(expected[key], rel=1e-2), key
    assert all(torch.isfinite(weight).all() for weight in final_weights(folder).values())

    checkpoint = folder / "checkpoints" / "final.pt"
    status = run(test_msc_flip_voc.main, "--model_path", checkpoint, *data, "--device", device)
    assert status == 0
    assert MULTI in (folder / "results.json").read_text()


@pytest.mark.parametrize("order", [("there", "here"), ("here", "there")])
def test_a_run_that_was_cut_off_goes_on_on_the_other_device(
    device: torch.device, trained: Path, start: list[str], tmp_path: Path, order: tuple[str, str]
) -> None:
    first, then = (device if place == "there" else "cpu" for place in order)
    with pytest.MonkeyPatch.context() as patch:
        counted(patch, at=5, event=crash)  # in stage 2, after the checkpoint at its iteration 2
        assert run(train_voc.main, *start, "--device", first) == 130
    with pytest.MonkeyPatch.context() as patch:
        steps = counted(patch)
        assert run(train_voc.main, *start, "--resume", "--device", then) == 0
    assert steps == ["segmenter"] * 2

    last, key = losses(tmp_path / "run"), ("segmenter", "4", "loss")
    assert last[key] == pytest.approx(losses(trained)[key], rel=1e-2)


def test_processes_exchange_by_the_library_of_their_device(
    device: torch.device, trained: Path, toy_voc: Path, quick: list[str], tmp_path: Path
) -> None:
    # A group of one shows what tensors are exchanged where; NCCL wants a GPU of its own for each.
    library = {"cuda": "nccl", "cpu": "gloo"}[device.type]
    meeting = f"file://{tmp_path / 'meeting'}"
    torch.distributed.init_process_group(library, init_method=meeting, rank=0, world_size=1)
    folder = tmp_path / "run"
    status = run(
        train_voc.main, "--data_root", toy_voc, "--work_dir", folder, *quick, "--device", device
    )
    assert status == 0
    assert not torch.distributed.is_initialized()

    last = ("segmenter", "4", "loss")
    assert losses(folder)[last] == pytest.approx(losses(trained)[last], rel=1e-2)
