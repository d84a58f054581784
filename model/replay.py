"""CUDA graphs: what a network does with images of one size is sent to the GPU as a whole.

A GPU is done with most operations here before the CPU has launched the next one.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")
MOST = 64  # graphs that are kept; images of further sizes are run as on a CPU
RECORDED_AT = 3  # so often has a size been met when its graph is recorded


class Replay:
    """Runs functions of images, without gradients, by CUDA graphs; on a CPU as they are.

    A result holds tensors in lists and dataclasses; they are copies, as all graphs work in the same
    memory. Tensors that a function reads beside the images are on the GPU and stay where they are,
    as parameters do that are trained in place. What cannot be recorded is run as on a CPU, with a
    warning.
    """

    def __init__(self) -> None:
        self._met: Counter[Hashable] = Counter()
        self._graphs: dict[Hashable, tuple[torch.cuda.CUDAGraph, Tensor, Any] | None] = {}
        self._pool: Any = None  # memory that all graphs share

    def __deepcopy__(self, memo: dict[int, Any]) -> Replay:
        """Begin anew: a copy of a network has its tensors elsewhere."""
        return Replay()

    def __call__(
        self, name: Hashable, function: Callable[[Tensor], Result], images: Tensor
    ) -> Result:
        """Return function(images). name: tells the function, and where its tensors are, from
        others.
        """
        if images.device.type != "cuda" or torch.is_grad_enabled():
            return function(images)

        half = torch.is_autocast_enabled()
        key = (name, images.shape, images.dtype, images.device, half)
        self._met[key] += 1
        if key not in self._graphs and self._met[key] >= RECORDED_AT and len(self._graphs) < MOST:
            try:
                self._graphs[key] = self._recorded(function, images, half)
            except RuntimeError as error:
                warnings.warn(f"{name} runs without a CUDA graph: {error}", stacklevel=2)
                self._graphs[key] = None

        recorded = self._graphs.get(key)
        if recorded is None:
            return function(images)
        graph, given, result = recorded
        given.copy_(images)
        graph.replay()
        return _copied(result)

    def _recorded(
        self, function: Callable[[Tensor], Result], images: Tensor, half: bool
    ) -> tuple[torch.cuda.CUDAGraph, Tensor, Result]:
        """Record a function that has been run on such images before: the graph, the tensor that it
        reads the images from, and its result.
        """
        given = images.clone()
        graph = torch.cuda.CUDAGraph()
        # Other threads load data meanwhile. Weights that autocast has kept in half precision are
        # gone when the graph is replayed, so it makes them itself.
        with (
            torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"),
            torch.autocast("cuda", torch.bfloat16, enabled=half, cache_enabled=False),
        ):
            result = function(given)
        self._pool = graph.pool()
        return graph, given, result


def _copied(result: Any) -> Any:
    """Copy the tensors of a result; what holds them is made anew."""
    if isinstance(result, Tensor):
        return result.clone()
    if isinstance(result, list):
        return [_copied(part) for part in result]
    if not is_dataclass(result) or isinstance(result, type):
        return result
    parts = {part.name: _copied(getattr(result, part.name)) for part in fields(result)}
    return replace(result, **parts)
