"""Devices by name, processes that load data, threads that wait, memory that is freed."""

import math
import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from helpers import GPU, ROOT, device_named

from utils.common import device
from utils.common.cores import usable_cores
from utils.common.device import (
    choose_device,
    fetch,
    keep_freed_memory,
    loading_processes,
    usual_processes,
)
from utils.common.errors import UserError
from utils.common.memory import usable_memory


@pytest.fixture(autouse=True)
def _much_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory for any number of processes, whatever this machine has."""
    monkeypatch.setattr(device, "usable_memory", lambda: math.inf)


@pytest.mark.parametrize(
    ("asked", "cores", "processes", "given"),
    [(-1, 2, 1, 2), (-1, 64, 1, 8), (-1, 16, 4, 4), (-1, 1, 4, 1), (0, 64, 1, 0), (12, 2, 1, 12)],
)
def test_data_are_loaded_by_a_process_per_core(
    monkeypatch: pytest.MonkeyPatch, asked: int, cores: int, processes: int, given: int
) -> None:
    monkeypatch.setattr(device, "usable_cores", lambda: cores)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert loading_processes(asked) == given


@pytest.mark.parametrize(
    ("given", "threads", "cores", "gpu", "processes"),
    [
        ("auto", 0, 8, False, 4),
        ("cpu", 0, 8, True, 4),
        ("cpu", 0, 3, False, 2),
        ("cpu", 0, 1, False, 1),
        ("cpu", 2, 4, False, 2),
        ("cpu", 8, 4, False, 1),
        ("auto", 0, 8, True, 1),
        ("cuda", 0, 8, False, 1),  # refused later, in one sentence
        ("cpu:0", 0, 8, False, 1),
    ],
)
def test_a_training_shares_cores_among_processes_but_no_gpu(
    monkeypatch: pytest.MonkeyPatch,
    given: str,
    threads: int,
    cores: int,
    gpu: bool,
    processes: int,
) -> None:
    monkeypatch.setattr(device, "usable_cores", lambda: cores)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    for name in ("OMP_NUM_THREADS", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert usual_processes(given, threads, 8, 16) == processes
    assert usual_processes(given, threads, 6, 16) == min(processes, 2)
    assert usual_processes(given, threads, 8, 15) == 1


def test_threads_and_processes_of_the_environment_are_heeded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(device, "usable_cores", lambda: 8)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "4,2")  # as OpenMP allows; PyTorch reads it once
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert usual_processes("cpu", 0, 8) == 2
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert usual_processes("cpu", 0, 8) == 1


@pytest.mark.parametrize(("gigabytes", "processes"), [(7.9, 2), (8.1, 4), (3.0, 1), (0.5, 1)])
def test_no_more_processes_share_a_training_than_memory_holds(
    monkeypatch: pytest.MonkeyPatch, gigabytes: float, processes: int
) -> None:
    monkeypatch.setattr(device, "usable_cores", lambda: 8)
    monkeypatch.setattr(device, "usable_memory", lambda: gigabytes * 1e9)
    for name in ("OMP_NUM_THREADS", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert usual_processes("cpu", 0, 8) == processes


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ({}, math.inf),
        ({"meminfo": "MemTotal: 9 kB\nMemAvailable:    5000 kB"}, 5_120_000),
        ({"memory.max": "max", "memory.current": "7"}, math.inf),
        (
            {
                "memory.max": "9000",
                "memory.current": "4000",
                "memory.stat": "anon 1\ninactive_file 500",
                "meminfo": "MemAvailable: 8 kB",
            },
            5500,
        ),
        ({"limit": "9000", "usage": "4000", "memory.stat": "total_inactive_file 1"}, 5001),
    ],
)
def test_memory_is_what_the_machine_and_the_container_have_left(
    files: dict[str, str], left: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(f"{text}\n")
    containers = (
        (tmp_path, "memory.max", "memory.current", "inactive_file"),
        (tmp_path, "limit", "usage", "total_inactive_file"),
    )
    monkeypatch.setattr("utils.common.memory._MACHINE", tmp_path / "meminfo")
    monkeypatch.setattr("utils.common.memory._CONTAINERS", containers)
    assert usable_memory() == left


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 8),
        ({"cpu.max": "200000 100000"}, 2),
        ({"cpu.max": "150000 100000"}, 2),
        ({"cpu.max": "max 100000"}, 8),
        ({"cpu.max": "20000 100000"}, 1),
        ({"quota": "300000", "period": "100000"}, 3),
        ({"quota": "-1", "period": "100000"}, 8),
    ],
)
def test_cores_are_those_that_a_container_may_use(
    files: dict[str, str], cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(f"{text}\n")
    quotas = ((tmp_path / "cpu.max",), (tmp_path / "quota", tmp_path / "period"))
    monkeypatch.setattr("utils.common.cores._QUOTAS", quotas)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert usable_cores() == cores


@pytest.mark.parametrize("name", ["mps", "mps:0"])
def test_an_apple_gpu_is_refused_as_untried(name: str) -> None:
    with pytest.raises(UserError, match=f"--device {name} is refused: nothing here was ever tried"):
        choose_device(name)


@pytest.mark.parametrize(
    "entry", ["train_voc", "test_msc_flip_coco", "utils.tools.benchmark.timing"]
)
@pytest.mark.parametrize(("given", "expected"), [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7")])
def test_threads_wait_shortly_from_the_first_import(
    entry: str, given: dict[str, str], expected: str
) -> None:
    code = (
        "import importlib.abc, os, sys\n"
        "class Watch(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'torch':\n"
        "            sys.exit(os.environ.get('GOMP_SPINCOUNT', 'not set'))\n"
        "sys.meta_path.insert(0, Watch())\n"
        f"import {entry}\n"
    )
    inherited = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**inherited, **given},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.stderr.strip() == expected


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_used_again() -> None:
    usage = device.resource.getrusage

    def pages_asked_for() -> int:
        before = usage(device.resource.RUSAGE_SELF).ru_minflt
        for _ in range(10):
            [torch.zeros(7_000_000) for _ in range(4)]
        return usage(device.resource.RUSAGE_SELF).ru_minflt - before

    keep_freed_memory()
    pages_asked_for()
    assert pages_asked_for() < 1000  # else 273,000


@pytest.mark.parametrize("name", ["cpu", GPU])
def test_another_thread_gets_what_was_on_its_way_when_it_was_asked_for(name: str) -> None:
    values = torch.arange(1 << 22, device=device_named(name))
    with ThreadPoolExecutor(1) as pool:
        tripled = pool.submit(fetch(values * 3))
        assert torch.equal(tripled.result(), torch.arange(1 << 22) * 3)
