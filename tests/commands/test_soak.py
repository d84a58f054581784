"""Thousands of iterations and predictions in one process: memory and open files stay flat, nothing
warns.
"""

import os
import shutil
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from helpers import run

import test_msc_flip_voc
import train_voc

COUNT = int(os.environ.get("CVF_SOAK", "2000"))  # iterations, then predictions
GROWTH = 48.0  # MB that may be gained after the first third
PAGE = os.sysconf("SC_PAGE_SIZE")

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="memory is read from /proc"),
]


@contextmanager
def flat(what: str) -> Iterator[None]:
    """Samples memory and open files meanwhile; asserts that both stay flat after the first third,
    prints the slopes.
    """
    samples, over = [], threading.Event()

    def sample() -> None:
        while not over.wait(0.2):
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            samples.append((time.monotonic(), pages * PAGE / 1e6, len(os.listdir("/proc/self/fd"))))

    thread = threading.Thread(target=sample)
    thread.start()
    with warnings.catch_warnings(record=True) as heard:
        try:
            yield
        finally:
            over.set()
            thread.join()
    seconds, memory, files = np.array(samples[len(samples) // 3 :]).T
    growth = np.polyfit(seconds, memory, 1)[0] * (seconds[-1] - seconds[0])
    print(
        f"{COUNT} {what}: memory {growth:+.1f} MB over the last two thirds, files "
        f"{files.min():.0f}-{files.max():.0f}"
    )
    assert growth < GROWTH and np.ptp(files) <= 4
    assert not [str(warning.message) for warning in heard]


def test_training_and_testing_stay_flat(toy_voc: Path, quick: list[str], tmp_path: Path) -> None:
    flags = [
        "--max_iters",
        COUNT,
        "--eval_every",
        COUNT // 4,
        "--checkpoint_every",
        COUNT // 10,
        "--eval_seeds",
    ]
    flags += ["--log_every", 20]
    with flat("iterations"):
        assert (
            run(
                train_voc.main,
                "--data_root",
                toy_voc,
                "--work_dir",
                tmp_path / "run",
                *quick,
                *flags,
            )
            == 0
        )
    pictures = sorted((toy_voc / "JPEGImages").iterdir())
    (tmp_path / "pictures").mkdir()
    for number in range(COUNT):
        shutil.copy(pictures[number % len(pictures)], tmp_path / "pictures" / f"{number:05d}.jpg")
    final = tmp_path / "run" / "checkpoints" / "final.pt"
    with flat("predictions"):
        flags = ["--images", tmp_path / "pictures", "--work_dir", tmp_path / "out", "--workers", 0]
        assert run(test_msc_flip_voc.main, "--model_path", final, *flags) == 0
    assert len(list((tmp_path / "out" / "prediction").iterdir())) == COUNT
