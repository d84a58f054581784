"""When functions are recorded and replayed; what graphs give is tested on a GPU (tests/gpu)."""

import copy
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import pytest
import tiny
import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from clip.model import ImageFeatures
from model import replay
from model.cvf import CVF
from model.replay import RECORDED_AT, Replay, _Graph

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


def test_what_is_met_much_more_often_takes_the_place_of_the_rarest(
    recorded: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "MOST", 1)
    again = Replay()
    for _ in range(RECORDED_AT):
        run(again, on_gpu(64))

    found = [run(again, on_gpu(48)) for _ in range(2 * RECORDED_AT + 1)]
    assert found == ["computed"] * 2 * RECORDED_AT + ["replayed"]
    assert run(again, on_gpu(64)) == "computed"
    assert recorded == [64, 48]


def test_what_cannot_be_recorded_is_computed_with_one_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*given: Any) -> None:
        raise RuntimeError("not within a capture\nand much more")

    monkeypatch.setattr(Replay, "_recorded", refuse)
    again = Replay()
    with pytest.warns(UserWarning, match="^network runs without .*: not within a capture$") as told:
        found = [run(again, on_gpu(64)) for _ in range(RECORDED_AT + 2)]
    assert set(found) == {"computed"}
    assert len(told) == 1


def test_nothing_is_recorded_on_a_cpu_or_with_gradients(recorded: list[Any]) -> None:
    again = Replay()
    for _ in range(RECORDED_AT + 1):
        assert run(again, torch.zeros(1, 3, 8, 8)) == "computed"
        assert again("network", lambda images: "computed", on_gpu(8)) == "computed"
    assert not recorded


def test_each_precision_has_a_graph_of_its_own(
    recorded: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    again = Replay()
    for half in (True, False):
        monkeypatch.setattr(replay, "casts_to_bfloat16", lambda _, half=half: half)
        found = [run(again, on_gpu(64)) for _ in range(RECORDED_AT)]
        assert found == ["computed"] * (RECORDED_AT - 1) + ["replayed"]


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


class Tape(TorchDispatchMode):
    """Passes for a graph: does again, into the same tensors, what was done within a capture."""

    made = 0

    def __init__(self) -> None:
        super().__init__()
        self.done: list[tuple[Any, ...]] = []
        Tape.made += 1

    def pool(self) -> None:
        """Has no memory of its own."""

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: tuple[type, ...],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.done.append((func, args, kwargs or {}, result))
        return result

    @torch.no_grad()
    def replay(self) -> None:
        """Do all of it again."""
        for func, args, kwargs, result in self.done:
            for old, new in zip(tree_leaves(result), tree_leaves(func(*args, **kwargs))):
                old.copy_(new)


@pytest.fixture
def _taped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have functions recorded on tapes."""
    if torch.__version__ < "2.4":
        pytest.skip("this PyTorch cannot have what is done with a tensor's subclass on a tape")
    monkeypatch.setattr(replay, "capture", lambda graph, *_: graph)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Tape)
    monkeypatch.setattr(Tape, "made", 0)


def numbers(*values: float) -> Tensor:
    """A leaf with gradients, as if on a GPU."""
    return torch.tensor(values, dtype=torch.float32).as_subclass(OnGpu).requires_grad_()


@pytest.mark.usefixtures("_taped")
def test_gradients_of_a_replay_reach_what_is_given_and_what_is_learned() -> None:
    weight, unused = numbers(2, 3), numbers(1)
    again = Replay()

    for start in range(2 * RECORDED_AT):
        given = numbers(start, -1)
        weight.grad = None
        product, seen = again(
            "product", lambda x: (weight * x, 2 * x.detach()), given, learned=[weight, unused]
        )
        (3 * product).sum().backward()
        assert product.tolist() == [2 * start, -3]
        assert seen.tolist() == [2 * start, -2]
        assert not seen.requires_grad
        assert given.grad is not None and given.grad.tolist() == [6, 9]
        assert weight.grad is not None and weight.grad.tolist() == [3 * start, -3]
        assert unused.grad is None
    assert Tape.made == 2


@pytest.mark.usefixtures("_taped")
def test_results_and_gradients_outlast_the_next_replay() -> None:
    weight, again = numbers(2), Replay()
    results = []
    for start in range(2 * RECORDED_AT):
        if start == RECORDED_AT:  # from here on all are replayed, and gradients add up
            weight.grad = None
        results.append(again("product", lambda x: weight * x, numbers(start), learned=[weight]))
        results[-1].backward()

    assert [each.item() for each in results] == [2 * start for start in range(2 * RECORDED_AT)]
    assert weight.grad is not None
    assert weight.grad.item() == sum(range(RECORDED_AT, 2 * RECORDED_AT))


@pytest.mark.usefixtures("_taped")
def test_a_result_that_is_not_used_adds_nothing_to_gradients() -> None:
    first, second, again = numbers(2), numbers(3), Replay()
    for _ in range(RECORDED_AT):
        results = again(
            "two", lambda x: [first * x, second * x], numbers(5), learned=[first, second]
        )
        sum(results).backward()

    first.grad = second.grad = None
    results = again("two", lambda x: [first * x, second * x], numbers(5), learned=[first, second])
    results[0].backward()
    assert first.grad is not None and first.grad.item() == 5
    assert second.grad is not None and second.grad.item() == 0


@pytest.mark.usefixtures("_taped")
def test_what_begins_to_learn_later_gets_gradients_too() -> None:
    first, second, again = numbers(2), numbers(3), Replay()
    for learns in (False, True):
        second.requires_grad_(learns)
        for _ in range(RECORDED_AT):
            result = again(
                "product", lambda x: first * second * x, numbers(1), learned=[first, second]
            )
            result.backward()

    assert second.grad is not None and float(second.grad) == 2 * RECORDED_AT
    assert Tape.made == 4


@pytest.mark.usefixtures("_taped")
def test_what_was_recorded_in_inference_mode_is_not_written_to_outside_it() -> None:
    again = Replay()
    for mode in (torch.inference_mode, torch.no_grad):
        with mode():
            for start in range(RECORDED_AT + 1):
                result = again("double", lambda x: 2 * x, on_gpu(8) + start)
                assert torch.equal(result, torch.full_like(result, 2 * start))
    assert Tape.made == 2


@pytest.mark.usefixtures("_taped")
def test_calls_before_the_backward_pass_of_the_first_are_computed() -> None:
    weight, again = numbers(2), Replay()
    computed = Mock(side_effect=lambda x: weight * x)

    for _ in range(RECORDED_AT):
        again("product", computed, numbers(1), learned=[weight]).backward()

    computed.reset_mock()
    weight.grad = None
    results = [again("product", computed, numbers(start), learned=[weight]) for start in (3, 4, 5)]
    assert computed.call_count == 2
    sum(results).backward()
    assert weight.grad is not None and weight.grad.item() == 3 + 4 + 5

    del results
    for start in (6, 7):  # after a backward pass, and after a result that nobody holds
        again("product", computed, numbers(start), learned=[weight])
    assert computed.call_count == 2


@pytest.mark.usefixtures("_taped")
def test_a_second_backward_pass_after_another_replay_is_refused() -> None:
    weight, again = numbers(2), Replay()
    for _ in range(RECORDED_AT):
        first = again("product", lambda x: weight * x, numbers(1), learned=[weight])
        first.backward(retain_graph=True)

    again("product", lambda x: weight * x, numbers(1), learned=[weight])
    with pytest.raises(RuntimeError, match="replayed again since its first backward pass"):
        first.backward()


@pytest.mark.usefixtures("_taped")
def test_threads_that_share_it_get_their_own_results() -> None:
    again = Replay()

    def double(start: int) -> list[float]:
        with torch.no_grad():
            return again("double", lambda x: 2 * x, on_gpu(8) + start).unique().tolist()

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(double, range(400)))
    assert found == [[2 * start] for start in range(400)]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_of_a_network_begins_anew(copied: Callable[[CVF], CVF]) -> None:
    model = tiny.cvf()
    assert copied(model)._replay is not model._replay


def test_a_recording_is_of_the_tensors_device_and_gives_the_stream_back_where_it_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device = torch.device("cuda", 1)
    current = ["usual"]

    @contextmanager
    def stream(name: str) -> Iterator[None]:
        before = current[0]
        current[0] = name
        try:
            yield
        finally:
            current[0] = before

    class Graph:
        """As `torch.cuda.graph`, whose end may fail before it puts the stream back."""

        def __init__(self, graph: Any, pool: Any, stream: str, capture_error_mode: str) -> None:
            self.stream = stream

        def __enter__(self) -> None:
            current[0] = self.stream

        def __exit__(self, *raised: Any) -> None:
            raise RuntimeError("invalidated")

    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"usual one of {device}")
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: f"another of {device}")
    monkeypatch.setattr(torch.cuda, "graph", Graph)
    replay._recording_stream.cache_clear()
    with pytest.raises(RuntimeError), replay.capture(cast(Any, None), None, device):
        within = current[0]
    replay._recording_stream.cache_clear()
    assert within == "another of cuda:1"
    assert current == ["usual"]


def test_a_network_that_is_moved_forgets_what_was_recorded() -> None:
    model = tiny.cvf()
    before = model._replay
    assert model.train()._replay is before
    assert model.to(torch.float64)._replay is not before
