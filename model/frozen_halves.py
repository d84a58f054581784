"""Weights that are not trained, in half precision for good: autocast would cast them at each call,
which is a tenth of a test image's time.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from utils.common.precision import casts_to_bfloat16

_TAKERS = {F.linear, F.conv2d}  # (input, weight, bias, ...)


class FrozenHalves(TorchFunctionMode):
    """Within it, linear layers and convolutions under autocast to bfloat16 are given frozen weights
    of that precision. What they compute stays the same.

    The copies are kept as long as this object. What is changed in place is copied again, but for
    changes through `.data`, which PyTorch does not count.
    """

    def __init__(self) -> None:
        super().__init__()
        self._kept: dict[int, _Half] = {}

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call a function of PyTorch, with half weights where it takes any."""
        if args and function in _TAKERS and casts_to_bfloat16(args[0].device):
            args = (args[0], *map(self._half, args[1:3]), *args[3:])
        return function(*args, **(kwargs or {}))

    def renew(self) -> None:
        """Copy again what has changed in place since it was copied."""
        for kept in list(self._kept.values()):  # which another thread may add to
            kept.renew()

    def _half(self, weight: Tensor | None) -> Tensor | None:
        """Return the copy of a weight; one that is trained, or no weight of a network, itself."""
        if not isinstance(weight, torch.nn.Parameter) or weight.requires_grad:
            return weight
        if weight.dtype != torch.float32 or weight.is_inference():
            return weight

        kept = self._kept.get(id(weight))
        if kept is None or kept.is_old():
            # what is copied while a graph is recorded is there once that is replayed, if ever
            if weight.is_cuda and torch.cuda.is_current_stream_capturing():
                return weight
            if kept is None:
                kept = self._kept.setdefault(id(weight), _Half(weight))
            kept.renew()
        return kept.half


class _Half:
    """A weight and its copy in bfloat16, as of the weight's version so far."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight
        with torch.inference_mode(False):  # as it is to outlast that mode
            self.half = weight.detach().bfloat16()
        self._version = weight._version

    def is_old(self) -> bool:
        """Tell whether the weight has changed in place since it was copied."""
        return self.weight._version != self._version

    def renew(self) -> None:
        """Copy the weight again if it has changed."""
        if self.is_old():
            with torch.no_grad():
                self.half.copy_(self.weight)
            self._version = self.weight._version
