"""The throughput command: what it counts, and that it measures both layouts."""

import re
import time
from pathlib import Path

import pytest
from helpers import run

from utils.tools import throughput


def test_a_rate_is_calls_per_second_of_processor_time(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([3.0, 5.0])
    monkeypatch.setattr(time, "process_time", lambda: next(seconds))
    calls: list[int] = []
    assert throughput.rate(calls.append, 8) == 4.0
    assert calls == list(range(8))


@pytest.mark.parametrize(
    ("dataset", "measured"),
    [
        ("voc", ["loading, crop 48", "loading, crop 64", "check"]),
        ("coco", ["loading, crop 48", "loading, crop 64", "check", "annotations to masks"]),
    ],
)
def test_every_rate_is_measured(
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
    dataset: str,
    measured: list[str],
) -> None:
    root: Path = request.getfixturevalue(f"toy_{dataset}")
    flags = ["--dataset", dataset, "--root", root, "--images", 30, "--crops", 48, 64]
    assert run(throughput.main, *flags) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.startswith("30 images of train, ")
    rates = dict(re.fullmatch(r"  (.+): (\d+)", line).groups() for line in lines)
    assert list(rates) == measured
    assert all(int(rate) > 0 for rate in rates.values())


def test_no_images_are_refused(toy_voc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(throughput.UserError, match="--images 0 must be at least 1"):
        run(throughput.main, "--root", toy_voc, "--images", 0)
