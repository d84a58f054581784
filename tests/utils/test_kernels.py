"""Which way a device takes: kernels of our own, or operations of PyTorch."""

import sys
from typing import Any

import pytest
import torch

from model.par import rounds_at_once, rounds_by_operations
from utils.inference import simplices, sums
from utils.inference.simplices import simplices_on
from utils.inference.sums import sums_on


@pytest.mark.parametrize(
    ("choose", "module", "name", "operations"),
    [
        (rounds_at_once, "model.par_kernel", "PAR", rounds_by_operations),
        (sums_on, "utils.inference.sums_kernel", "The dense CRF", sums),
        (simplices_on, "utils.inference.simplices_kernel", "The dense CRF's lattice", simplices),
    ],
)
def test_without_a_compiler_a_gpu_is_told_so_and_goes_on(
    choose: Any, module: str, name: str, operations: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    choose.cache_clear()
    with pytest.warns(UserWarning, match=f"{name} runs without its Triton kernel"):
        found = choose(torch.device("cuda"))
    choose.cache_clear()
    assert found is operations
