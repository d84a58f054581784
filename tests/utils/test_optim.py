"""Schedules by hand, and which parameters get which rate and decay."""

import itertools

import pytest
import torch
from torch import nn

from utils.training.optim import adamw, cosine, load_state, schedule, set_rate


def test_ours_rises_to_1_and_falls_to_0() -> None:
    values = [schedule(step, 100, 10) for step in (0, 5, 10, 55, 99)]
    assert values == pytest.approx([1e-6, 0.5 + 0.5e-6, 1.0, 0.5, 1 / 90])


def test_ours_has_no_jump() -> None:
    values = [schedule(step, 300, 30) for step in range(300)]
    assert max(abs(b - a) for a, b in itertools.pairwise(values)) < 1.01 / 30
    assert values[:31] == sorted(values[:31]) and values[30:] == sorted(values[30:], reverse=True)


def test_the_published_one_drops_after_the_warm_up_and_stays_at_its_last_factor() -> None:
    values = [schedule(step, 100, 20, published=True) for step in (10, 20, 60, 99, 200)]
    assert values == pytest.approx([0.5 + 0.5e-6, 0.8, 0.4, 0.01, 0.01])


@pytest.mark.parametrize("warmup", [0, 1, 5, 9])
def test_any_warm_up_leaves_a_positive_rate(warmup: int) -> None:
    assert all(0 < schedule(step, 5, warmup) <= 1 for step in range(5))


def test_cosine_by_hand() -> None:
    values = [cosine(step, 100, 20) for step in (0, 19, 20, 60, 100)]
    assert values == pytest.approx([1 / 20, 1.0, 1.0, 0.505, 0.01])


def test_groups_scale_with_their_own_rate_and_spare_vectors_from_decay() -> None:
    torch.manual_seed(0)
    fast, slow, frozen = nn.Linear(3, 2), nn.Linear(2, 1), nn.Linear(1, 1).requires_grad_(False)
    optimiser = adamw(
        [(fast.parameters(), 1.0), ([*slow.parameters(), *frozen.parameters()], 0.1)], 0.5
    )
    set_rate(optimiser, 0.25)
    set_rate(optimiser, 0.5)
    found = {p: (g["lr"], g["weight_decay"]) for g in optimiser.param_groups for p in g["params"]}
    assert found == {
        fast.weight: (0.5, 0.5),
        fast.bias: (0.5, 0.0),
        slow.weight: (0.05, 0.5),
        slow.bias: (0.05, 0.0),
    }


def test_squared_gradients_decay_by_beta2() -> None:
    weight = nn.Parameter(torch.ones(1))
    optimiser = adamw([([weight], 0.1)], 0.0, beta2=0.75)
    for gradient in (2.0, 4.0):
        weight.grad = torch.full((1,), gradient)
        optimiser.step()
    assert optimiser.state[weight]["exp_avg_sq"].item() == pytest.approx(0.25 * (0.75 * 4 + 16))


def test_a_state_from_another_device_goes_on_with_the_kernel_of_this_one() -> None:
    layer = nn.Linear(2, 1)
    first, second = (adamw([(layer.parameters(), 0.1)], 0.0) for _ in range(2))
    layer(torch.ones(1, 2)).sum().backward()
    first.step()
    state = first.state_dict()
    for group in state["param_groups"]:
        group["fused"] = not group["fused"]
    load_state(second, state)
    assert [g["fused"] for g in second.param_groups] == [g["fused"] for g in first.param_groups]
    assert torch.equal(second.state[layer.bias]["exp_avg"], first.state[layer.bias]["exp_avg"])
