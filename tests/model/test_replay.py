"""When functions are recorded and replayed; what graphs give is tested on a GPU (tests/gpu)."""

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from clip.model import ImageFeatures
from model import replay
from model.replay import RECORDED_AT, Replay, _Graph, _LearningGraph

RESULT = ImageFeatures([torch.ones(1, 5, 2), torch.zeros(1, 5, 2)], [torch.ones(1, 5, 5)], (2, 2))


class OnGpu(Tensor):
    """A tensor that says that it is on a GPU."""

    device = torch.device("cuda")  # type: ignore[assignment]


def on_gpu(side: int) -> Tensor:
    """Images of that size, as if on a GPU."""
    return torch.zeros(1, 3, side, side).as_subclass(OnGpu)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Have functions recorded without a GPU; the sizes of what was recorded."""
    sizes: list[Any] = []

    def record(self: Replay, function: Any, given: Any, learned: Any) -> _Graph:
        sizes.append(given[0].shape[-1])
        graph = SimpleNamespace(replay=lambda: None)
        return _Graph(cast(torch.cuda.CUDAGraph, graph), [given[0].clone()], RESULT)

    monkeypatch.setattr(Replay, "_recorded", record)
    return sizes


def run(again: Replay, images: Tensor, name: str = "network") -> str:
    """Run a network and tell where its result is from."""
    with torch.no_grad():
        result = again(name, lambda images: None, images)
    return "replayed" if result else "computed"


def test_a_size_that_returns_is_recorded_once(recorded: list[Any]) -> None:
    again = Replay()
    found = [run(again, on_gpu(64)) for _ in range(RECORDED_AT + 1)]
    assert found == ["computed"] * (RECORDED_AT - 1) + ["replayed"] * 2
    assert run(again, on_gpu(48)) == run(again, on_gpu(64), "other network") == "computed"
    assert recorded == [64]


def test_no_more_than_so_many_are_kept(
    recorded: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "MOST", 1)
    again = Replay()
    found = {side: [run(again, on_gpu(side)) for _ in range(RECORDED_AT)] for side in (64, 48)}
    assert found[64][-1] == "replayed"
    assert found[48][-1] == "computed"


def test_what_cannot_be_recorded_is_computed_with_one_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*given: Any) -> None:
        raise RuntimeError("not within a capture")

    monkeypatch.setattr(Replay, "_recorded", refuse)
    again = Replay()
    with pytest.warns(UserWarning, match="network runs without a CUDA graph: not within") as told:
        found = [run(again, on_gpu(64)) for _ in range(RECORDED_AT + 2)]
    assert set(found) == {"computed"}
    assert len(told) == 1


def test_nothing_is_recorded_on_a_cpu_or_with_gradients(recorded: list[Any]) -> None:
    again = Replay()
    for _ in range(RECORDED_AT + 1):
        assert run(again, torch.zeros(1, 3, 8, 8)) == "computed"
        assert again("network", lambda images: "computed", on_gpu(8)) == "computed"
    assert not recorded


def test_a_replayed_result_is_a_copy(recorded: list[Any]) -> None:
    again = Replay()
    with torch.no_grad():
        for _ in range(RECORDED_AT):
            result = again("network", lambda images: RESULT, on_gpu(64))
    assert result is not RESULT
    assert result.grid == RESULT.grid
    for ours, theirs in zip(result.tokens + result.attention, RESULT.tokens + RESULT.attention):
        assert torch.equal(ours, theirs)
        assert ours.data_ptr() != theirs.data_ptr()


class Repeated:
    """Passes for a graph: does again, in place, what was done within a capture."""

    def __init__(self) -> None:
        self.replay: Any = None

    def pool(self) -> None:
        """Has no memory of its own."""


def learning(weight: Tensor, monkeypatch: pytest.MonkeyPatch) -> _LearningGraph:
    """A graph, as without a GPU, of x -> (weight * x, x > 0)."""
    monkeypatch.setattr(replay, "capture", lambda *_: nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Repeated)
    x = torch.zeros(2, requires_grad=True)
    product = weight * x
    graph = Repeated()
    graphs = _LearningGraph(
        cast(torch.cuda.CUDAGraph, graph), [x], [product, x > 0], [weight, torch.ones(3)]
    )

    def forward() -> None:
        graphs.outputs[0].copy_(weight.detach() * x.detach())
        graphs.outputs[1].copy_(x.detach() > 0)

    def backward() -> None:
        found = (weight.detach() * graphs.asked[0], x.detach() * graphs.asked[0])
        for standing, gradient in zip(graphs.gradients, found):
            cast(Tensor, standing).copy_(gradient)

    graph.replay = forward
    cast(Repeated, graphs.backward).replay = backward
    return graphs


def test_gradients_of_a_replay_reach_what_is_given_and_what_is_learned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weight = torch.tensor([2.0, 3.0], requires_grad=True)
    graphs = learning(weight, monkeypatch)

    for start in (1.0, 5.0):
        given = torch.tensor([start, -1.0], requires_grad=True)
        weight.grad = None
        product, above = graphs([given])
        (3 * product).sum().backward()
        assert product.tolist() == [2 * start, -3]
        assert above.tolist() == [True, False]
        assert not above.requires_grad
        assert given.grad is not None and given.grad.tolist() == [6, 9]
        assert weight.grad is not None and weight.grad.tolist() == [3 * start, -3]


def test_a_backward_pass_after_another_replay_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = learning(torch.ones(2, requires_grad=True), monkeypatch)
    first, _ = graphs([torch.ones(2)])
    graphs([torch.ones(2)])
    with pytest.raises(RuntimeError, match="replayed again before its backward pass"):
        first.sum().backward()
