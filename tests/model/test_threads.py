"""Work that is given to threads whole."""

import threading

import pytest
import torch

from model.threads import each_on_a_thread


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest):
    """PyTorch's threads, which are put back afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_items_keep_their_order_and_share_no_operation(threads: int):
    def work(a: int, b: int) -> tuple[int, int, bool]:
        return a + b, torch.get_num_threads(), threading.current_thread() is threading.main_thread()

    here = threads == 1
    assert each_on_a_thread(work, range(5), range(5)) == [(2 * n, 1, here) for n in range(5)]
    assert torch.get_num_threads() == threads


def test_neither_gradients_nor_autocast_reach_the_work(threads: int):
    learnt = torch.ones(2, 2, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        (product,) = each_on_a_thread(lambda x: x @ x, [learnt])
    assert product.dtype == torch.float32 and not product.requires_grad


def test_no_items_are_no_work():
    assert each_on_a_thread(abs, []) == []


def test_a_fault_reaches_the_caller_and_the_threads_are_as_before(threads: int):
    with pytest.raises(ZeroDivisionError):
        each_on_a_thread(lambda x: 1 / x, [1, 0])
    assert torch.get_num_threads() == threads
