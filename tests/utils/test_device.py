"""Devices by name, processes that load data, threads that wait, memory that is freed."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import ROOT

from utils.common import device
from utils.common.cores import usable_cores
from utils.common.device import choose_device, keep_freed_memory, loading_processes
from utils.common.errors import UserError


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
