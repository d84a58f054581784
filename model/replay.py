"""CUDA graphs: what a network does with tensors of one shape is sent to the GPU as a whole.

A GPU is done with most operations here before the CPU has launched the next one.
"""

from __future__ import annotations

import threading
import warnings
import weakref
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import fields, is_dataclass, replace
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from model.frozen_halves import FrozenHalves
from utils.common.precision import casts_to_bfloat16

Result = TypeVar("Result")
MOST = 128  # graphs that are kept; what has further, rarer shapes is run as on a CPU
RECORDED_AT = 3  # so often have shapes been met when a graph is recorded


class Replay:
    """Runs functions by CUDA graphs; on a CPU as they are. Where nothing is learned, frozen weights
    are cast to bfloat16 once (`FrozenHalves`).

    What a function is given and its result are tensors, or hold them in lists, tuples and
    dataclasses. Tensors that it reads beside them are on the GPU and stay where they are, as
    parameters do that are trained in place. Results and gradients are copies, as the next replay
    writes over what a graph holds. What cannot be recorded is run as on a CPU, with a warning, and
    so is, without one, what is called again before the backward pass of the call before.

    Threads may share it if they share a stream, as they do unless they ask for others.
    """

    def __init__(self) -> None:
        self._met: Counter[Hashable] = Counter()
        self._graphs: dict[Hashable, _Graph | _LearningGraph | None] = {}
        self._pool: Any = None  # memory that all graphs without gradients share
        self._lock = threading.RLock()
        self._halves = FrozenHalves()

    def __reduce__(self) -> tuple[type[Replay], tuple[()]]:
        """Begin anew in a copy, here or in another process: its tensors are elsewhere."""
        return Replay, ()

    def __call__(
        self,
        name: str,
        function: Callable[..., Result],
        *given: Any,
        learned: Sequence[Tensor] = (),
    ) -> Result:
        """Return function(*given).

        name: tells the function, and all it is given that is not a tensor, from others.
        learned: tensors beside those given that get gradients, if they require any: 0, not None,
        where only unused results depend on them. Without such tensors nothing is recorded where
        gradients are made.
        """
        tensors = tensors_of(given)
        learns = torch.is_grad_enabled()
        learned = [each for each in learned if learns and each.requires_grad]
        if tensors[0].device.type != "cuda" or (learns and not learned):
            return self._computed(function, given, learned)

        in_bfloat16 = casts_to_bfloat16(tensors[0].device)
        mode = (torch.is_autocast_enabled(), in_bfloat16, torch.is_inference_mode_enabled())
        kinds = [(each.shape, each.dtype, each.device, each.requires_grad) for each in tensors]
        key = (name, *mode, *kinds, *map(id, learned))
        with self._lock:
            self._met[key] += 1
            if self._to_be_recorded(key):
                self._record(key, function, given, learned)
            recorded = self._graphs.get(key)
            if recorded is not None and not recorded.waits():
                self._halves.renew()
                return recorded(tensors)

        return self._computed(function, given, learned)

    def _computed(
        self, function: Callable[..., Result], given: Sequence[Any], learned: Sequence[Tensor]
    ) -> Result:
        """Return function(*given), as it is computed and as it is recorded."""
        with nullcontext() if learned else self._halves:
            return function(*given)

    def _to_be_recorded(self, key: Hashable) -> bool:
        """Tell whether the time has come; once there is no room, not before something is met twice
        as often as what has to go for it.
        """
        met = self._met[key]
        if key in self._graphs or met < RECORDED_AT:
            return False
        if len(self._graphs) < MOST:
            return True
        return bool(self._graphs) and met > 2 * self._met[self._rarest()]

    def _rarest(self) -> Hashable:
        """Return the key of the graph whose shapes have been met least."""
        return min(self._graphs, key=self._met.__getitem__)

    def _record(
        self,
        key: tuple[Any, ...],
        function: Callable[..., Any],
        given: Sequence[Any],
        learned: Sequence[Tensor],
    ) -> None:
        """Keep a graph of a function, or None, with a warning, where that fails; if there are too
        many then, the rarest goes.
        """
        try:
            self._graphs[key] = self._recorded(function, given, learned)
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            warnings.warn(f"{key[0]} runs without a CUDA graph: {reason}", stacklevel=3)
            self._graphs[key] = None
            self._pool = None  # PyTorch may take it for one that is still being recorded to

        if len(self._graphs) > MOST:
            del self._graphs[self._rarest()]

    def _recorded(
        self, function: Callable[..., Any], given: Sequence[Any], learned: Sequence[Tensor]
    ) -> _Graph | _LearningGraph:
        """Record a function that has been run on such tensors before."""
        given = mapped(given, lambda each: each.detach().clone().requires_grad_(each.requires_grad))
        device = tensors_of(given)[0].device
        graph = torch.cuda.CUDAGraph()
        # What a learning graph leaves for its gradients must not be written over by others.
        pool = None if learned else self._pool
        # Weights that autocast has kept in half precision are gone when the graph is replayed, so
        # it makes them itself.
        half = torch.is_autocast_enabled()
        with (
            capture(graph, pool, device),
            torch.autocast("cuda", enabled=half, cache_enabled=False),
        ):
            result = self._computed(function, given, learned)

        if learned:
            return _LearningGraph(graph, tensors_of(given), result, learned)
        self._pool = graph.pool()
        return _Graph(graph, tensors_of(given), result)


class _Graph:
    """A recorded function without gradients.

    given: the tensors that the graph reads, and result: what it writes.
    """

    def __init__(self, graph: torch.cuda.CUDAGraph, given: list[Tensor], result: Any) -> None:
        self.graph = graph
        self.given = given
        self.result = result

    def __call__(self, given: list[Tensor]) -> Any:
        torch._foreach_copy_(self.given, given)
        self.graph.replay()
        return mapped(self.result, Tensor.clone)

    def waits(self) -> bool:
        """Return False: there is no backward pass to wait for."""
        return False


class _LearningGraph:
    """A recorded function and its backward pass, a graph each.

    `asked`: gradients of those `outputs` that have any; `gradients`: what is found for the tensors
    given and learned, None where nothing depends on them.
    """

    def __init__(
        self,
        graph: torch.cuda.CUDAGraph,
        given: list[Tensor],
        result: Any,
        learned: Sequence[Tensor],
    ) -> None:
        outputs = tensors_of(result)
        ends = [each for each in outputs if each.requires_grad]
        starts = [each for each in (*given, *learned) if each.requires_grad]
        self.asked = [torch.empty_like(end) for end in ends]
        self.backward = torch.cuda.CUDAGraph()
        # as training does, outside autocast
        with (
            capture(self.backward, graph.pool(), outputs[0].device),
            torch.autocast("cuda", enabled=False),
        ):
            found = torch.autograd.grad(ends, starts, self.asked, allow_unused=True)

        by_start = dict(zip(map(id, starts), found))
        self.gradients = [by_start.get(id(each)) for each in (*given, *learned)]
        self.forward = graph
        self.given = given
        self.learned = learned
        self.result = mapped(result, Tensor.detach)
        self.outputs = tensors_of(self.result)
        self.have_gradients = [each.requires_grad for each in outputs]
        self.last: Callable[[], Any] = lambda: None  # the last replay, while its results are held
        self.went_back = False  # so far, from the last replay

    def __call__(self, given: list[Tensor]) -> Any:
        outputs = iter(_Replayed.apply(self, *given, *self.learned))
        return mapped(self.result, lambda _: next(outputs))

    def waits(self) -> bool:
        """Return True if the last replay may still get its backward pass, which needs what the
        graph holds.
        """
        return self.last() is not None and not self.went_back


class _Replayed(torch.autograd.Function):
    """A replay of a `_LearningGraph`, as autograd sees it."""

    @staticmethod
    def forward(ctx: Any, graphs: _LearningGraph, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Replay the function on the tensors given, which those that are learned follow."""
        torch._foreach_copy_(graphs.given, list(tensors[: len(graphs.given)]))
        graphs.forward.replay()
        graphs.last = weakref.ref(ctx)
        graphs.went_back = False
        ctx.graphs = graphs
        ctx.set_materialize_grads(False)
        outputs = tuple(each.clone() for each in graphs.outputs)
        known = zip(outputs, graphs.have_gradients, strict=True)
        ctx.mark_non_differentiable(*(each for each, has in known if not has))
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *asked: Tensor | None) -> tuple[Tensor | None, ...]:
        """Replay the backward pass. Raises RuntimeError for a second one after another replay."""
        graphs = ctx.graphs
        if graphs.last() is not ctx:
            raise RuntimeError(
                "a function was replayed again since its first backward pass, so a second one "
                "(retain_graph) comes too late; call it before the next forward pass"
            )

        needed = [each for each, has in zip(asked, graphs.have_gradients, strict=True) if has]
        for standing, gradient in zip(graphs.asked, needed, strict=True):
            if gradient is None:
                standing.zero_()
            else:
                standing.copy_(gradient)
        graphs.backward.replay()
        found = [each for each in graphs.gradients if each is not None]
        copies = [torch.empty_like(each) for each in found]
        torch._foreach_copy_(copies, found)  # one operation, where parameters are hundreds
        graphs.went_back = True
        own = iter(copies)
        return None, *(None if each is None else next(own) for each in graphs.gradients)


@contextmanager
def capture(graph: torch.cuda.CUDAGraph, pool: Any, device: torch.device) -> Iterator[None]:
    """Record within what is done on a GPU, which need not be PyTorch's current one; other threads
    load data meanwhile.

    `torch.cuda.graph` leaves its stream the current one where recording fails, so that is undone
    here.
    """
    own = _recording_stream(device)
    with (
        torch.cuda.stream(torch.cuda.current_stream(device)),
        torch.cuda.graph(graph, pool, stream=own, capture_error_mode="thread_local"),
    ):
        yield


@cache
def _recording_stream(device: torch.device) -> torch.cuda.Stream:
    """Return the stream of a GPU on which all its graphs are recorded, as only those of one stream
    share memory.
    """
    return torch.cuda.Stream(device)


def mapped(whole: Any, change: Callable[[Tensor], Any]) -> Any:
    """Make lists, tuples and dataclasses anew, with their tensors changed."""
    if isinstance(whole, Tensor):
        return change(whole)
    if isinstance(whole, (list, tuple)):
        parts = [mapped(part, change) for part in whole]
        return parts if isinstance(whole, list) else tuple(parts)
    if not is_dataclass(whole) or isinstance(whole, type):
        return whole
    return replace(
        whole, **{part.name: mapped(getattr(whole, part.name), change) for part in fields(whole)}
    )


def tensors_of(whole: Any) -> list[Tensor]:
    """Return the tensors in lists, tuples and dataclasses, in the order of `mapped`."""
    found: list[Tensor] = []
    mapped(whole, found.append)
    return found
