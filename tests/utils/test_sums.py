"""The dense CRF's kernels of a GPU, run without one, against operations of PyTorch, and which of
them a device takes.
"""

import os
import subprocess
import sys

import pytest
import torch
from helpers import ROOT

from utils.inference import sums


def test_the_kernels_do_what_the_operations_do() -> None:
    pytest.importorskip("triton", minversion="3.2", reason="cannot run kernels without a GPU")
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "interpreted_crf.py"],
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_without_a_compiler_a_gpu_is_told_so_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "utils.inference.sums_kernel", None)
    sums.sums_on.cache_clear()
    with pytest.warns(UserWarning, match="The dense CRF runs without its Triton kernel"):
        found = sums.sums_on(torch.device("cuda"))
    sums.sums_on.cache_clear()
    assert found is sums
