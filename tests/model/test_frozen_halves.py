"""Frozen weights that are halved once: the same results, with fewer casts."""

from collections.abc import Callable
from typing import Any

import pytest
import tiny
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from model.frozen_halves import FrozenHalves
from utils.common.device import autocast
from utils.common.precision import float32_region

CPU = torch.device("cpu")


class Casts(TorchDispatchMode):
    """Counts tensors that are brought to half precision, by shape."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[torch.Size] = []

    def __torch_dispatch__(
        self, operation: OpOverload, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if (kwargs or {}).get("dtype") == torch.bfloat16:
            self.shapes.append(args[0].shape)
        return operation(*args, **(kwargs or {}))


@pytest.fixture
def layer() -> nn.Linear:
    """A frozen layer of 3 to 5 channels."""
    return nn.Linear(3, 5).requires_grad_(False)


def in_half(layer: Callable[[Tensor], Tensor], given: Tensor) -> Tensor:
    """What a layer gives under autocast."""
    with autocast(CPU, "bf16"):
        return layer(given)


def test_a_network_computes_the_same() -> None:
    model = tiny.cvf().eval().requires_grad_(False)
    images = torch.randn(2, 3, 64, 48)
    expected = in_half(model._segment, images)
    halves = FrozenHalves()
    with halves:
        found = [in_half(model._segment, images) for _ in range(2)]
    assert halves._kept
    assert torch.equal(found[0], expected) and torch.equal(found[1], expected)


def test_a_frozen_weight_is_halved_once(layer: nn.Linear) -> None:
    halves = FrozenHalves()
    with Casts() as casts, halves:
        for _ in range(3):
            in_half(layer, torch.ones(1, 3))
    assert casts.shapes.count(layer.weight.shape) == casts.shapes.count(layer.bias.shape) == 1


def test_a_weight_that_changes_in_place_is_halved_again(layer: nn.Linear) -> None:
    halves = FrozenHalves()
    with halves:
        in_half(layer, torch.ones(1, 3))
        layer.weight.mul_(2)
        doubled = in_half(layer, torch.ones(1, 3))
    assert torch.equal(doubled, in_half(layer, torch.ones(1, 3)))

    (kept, _) = halves._kept.values()
    layer.weight.zero_()
    halves.renew()
    assert not kept.half.any()


def test_what_is_trained_gets_its_gradient(layer: nn.Linear) -> None:
    layer.requires_grad_(True)
    halves = FrozenHalves()
    with halves:
        in_half(layer, torch.ones(1, 3)).sum().backward()
    assert not halves._kept and layer.weight.grad is not None


def test_what_was_cast_in_inference_mode_serves_outside_of_it(layer: nn.Linear) -> None:
    given = torch.ones(1, 3, requires_grad=True)
    halves = FrozenHalves()
    with halves, torch.inference_mode():
        in_half(layer, given)
    with halves:
        layer.weight.mul_(2)
        in_half(layer, given).sum().backward()
    assert given.grad is not None


def test_other_precisions_get_the_weights_themselves(layer: nn.Linear) -> None:
    halves = FrozenHalves()
    with torch.autocast("cpu", torch.float16), halves:
        F.linear(input=layer(torch.ones(1, 3)).float(), weight=torch.ones(2, 5))
    assert not halves._kept


def test_float32_regions_keep_their_weights(layer: nn.Linear) -> None:
    given = torch.randn(1, 3)
    halves = FrozenHalves()
    with autocast(CPU, "bf16"), halves, float32_region(CPU):
        assert torch.equal(layer(given), given @ layer.weight.T + layer.bias)
    assert not halves._kept
