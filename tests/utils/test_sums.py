"""The sums of the dense CRF: the kernels of a GPU, run without one, against operations of PyTorch,
and which of them a device takes.
"""

import importlib.util
import sys
from types import ModuleType

import pytest
import torch

from utils.inference import crf, lattice, sums
from utils.settings.crf import CRFSettings


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of the kernels, to be run without a GPU."""
    pytest.importorskip("triton", minversion="3.0", reason="cannot run kernels without a GPU")
    # Kernels that are loaded now run without a GPU; so do those that Triton itself has.
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    for name in list(sys.modules):
        if name.split(".")[0] == "triton" and not name.startswith("triton._C"):
            monkeypatch.delitem(sys.modules, name)

    found = importlib.util.find_spec("utils.inference.lattice_kernel")
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.mark.parametrize("labels", [1, 16, 37])
def test_the_kernels_do_what_the_operations_do(kernel: ModuleType, labels: int) -> None:
    torch.manual_seed(0)
    table = torch.randn(40, labels)

    counts = torch.tensor([1, 3, 64, 1, 700, 59])  # cuts fall on and between starts
    starts = (counts.cumsum(0) - counts).int()
    rows = torch.randint(0, 40, (int(counts.sum()),), dtype=torch.int32)
    bags = (rows, torch.rand(len(rows)), starts)
    torch.testing.assert_close(kernel.Bags(*bags).sums(table), sums.Bags(*bags).sums(table))

    corners = torch.randint(0, 40, (70, 9), dtype=torch.int32)
    given = (table, corners, torch.rand(70, 9))
    torch.testing.assert_close(kernel.weighted_rows(*given), sums.weighted_rows(*given))

    log_probs = torch.randn(70, labels)
    expected = torch.empty(70, labels)
    found = torch.empty(70, labels)
    alive = sums.update(*given, log_probs, expected, 0.95)
    assert labels == 1 or len(alive.unique()) == 2
    assert torch.equal(kernel.update(*given, log_probs, found, 0.95).bool(), alive)
    torch.testing.assert_close(found, expected)


def test_a_crf_by_the_kernels_is_that_by_the_operations(
    kernel: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    image = torch.randint(0, 256, (3, 5, 3), dtype=torch.uint8)
    scores = torch.randn(4, 3, 5)
    scores[1] -= 4  # leaves between the rounds
    given = (image, scores.softmax(0), CRFSettings(iterations=3), 0.05)
    expected = crf.dense_crf(*given)
    assert expected[1].max() == 0 and expected[0].min() > 0

    for module in (crf, lattice):
        monkeypatch.setattr(module, "sums_on", lambda device: kernel)
    crf._spatial.cache_clear()
    torch.testing.assert_close(crf.dense_crf(*given), expected)
    crf._spatial.cache_clear()


def test_without_a_compiler_a_gpu_is_told_so_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "utils.inference.lattice_kernel", None)
    sums.sums_on.cache_clear()
    with pytest.warns(UserWarning, match="The dense CRF runs without its Triton kernel"):
        found = sums.sums_on(torch.device("cuda"))
    sums.sums_on.cache_clear()
    assert found is sums
