"""How many processes load data."""

import pytest

from utils.common import device
from utils.common.device import loading_processes


@pytest.mark.parametrize(
    ("asked", "cores", "processes", "given"),
    [(-1, 2, 1, 2), (-1, 64, 1, 8), (-1, 16, 4, 4), (-1, 1, 4, 1), (0, 64, 1, 0), (12, 2, 1, 12)],
)
def test_data_are_loaded_by_a_process_per_core(
    monkeypatch: pytest.MonkeyPatch, asked: int, cores: int, processes: int, given: int
) -> None:
    monkeypatch.setattr(device.os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert loading_processes(asked) == given
