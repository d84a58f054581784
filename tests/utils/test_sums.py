"""The dense CRF's kernels of a GPU, run without one, against operations of PyTorch."""

import os
import subprocess
import sys

import pytest
from helpers import ROOT


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
