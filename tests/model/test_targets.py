"""Losses on soft, paired and region targets: by hand, and the same over several processes."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from model.losses import IGNORE, seg_loss
from model.targets import candidate_loss, collision_loss, dice_loss


def test_collision_by_hand() -> None:
    logits = torch.tensor([0.7, 0.3]).log().view(1, 2, 1, 1)
    soft = torch.tensor([0.5, 0.5]).view(1, 2, 1, 1)
    assert collision_loss(logits, soft).item() == pytest.approx(math.log(2))
    certain = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
    assert collision_loss(logits, certain).item() == pytest.approx(-math.log(0.7))


def test_two_candidates_by_hand() -> None:
    logits = torch.tensor([0.2, 0.3, 0.5]).log().view(1, 3, 1, 1).repeat(1, 1, 1, 2)
    labels = torch.tensor([[[1, 1]]])
    others = torch.tensor([[[2, 2]]])
    doubtful = torch.tensor([[[True, False]]])
    expected = -(math.log(0.8) + math.log(0.3)) / 2 / 2
    found = candidate_loss(logits, labels, others, doubtful)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_without_doubt_candidates_are_the_usual_loss() -> None:
    logits, labels = torch.randn(2, 4, 5, 6), torch.randint(0, 4, (2, 5, 6))
    labels[0, :2] = IGNORE
    nowhere = torch.zeros_like(labels, dtype=torch.bool)
    found = candidate_loss(logits, labels, labels.roll(1), nowhere)
    assert found.item() == pytest.approx(seg_loss(logits, labels).item())


def test_dice_is_0_for_a_perfect_and_1_for_a_wrong_prediction() -> None:
    labels = torch.tensor([[[0, 1], [1, IGNORE]]])
    right = torch.full((1, 4, 2, 2), -50.0)
    right[0, 0, 0, 0] = right[0, 1, 0, 1] = right[0, 1, 1, 0] = right[0, 3, 1, 1] = 50
    assert dice_loss(right, labels).item() == pytest.approx(0, abs=1e-5)
    assert dice_loss(right.flip(1), labels).item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", ["collision", "candidates", "dice"])
def test_shares_of_two_processes_add_up_to_the_whole_batch(name: str) -> None:
    logits = torch.randn(4, 3, 5, 5)
    labels = torch.randint(0, 3, (4, 5, 5))
    labels[0, 0] = IGNORE
    soft = torch.rand(4, 3, 5, 5).softmax(dim=1)
    others, doubtful = labels.roll(1), torch.rand(4, 5, 5) < 0.5
    losses: dict[str, Callable[[Tensor, slice, Callable], Tensor]] = {
        "collision": lambda x, part, reduce: collision_loss(x, soft[part], reduce=reduce),
        "candidates": lambda x, part, reduce: candidate_loss(
            x, labels[part], others[part], doubtful[part], reduce
        ),
        "dice": lambda x, part, reduce: dice_loss(x, labels[part], reduce=reduce),
    }
    loss = losses[name]
    whole = logits.clone().requires_grad_()
    expected = loss(whole, slice(None), lambda counts: counts)
    expected.backward()

    parts = [slice(0, 1), slice(1, 4)]
    sums: list[list[Tensor]] = [[], []]
    for number, part in enumerate(parts):  # what each process would contribute to each sum
        loss(logits[part], part, lambda counts, n=number: sums[n].append(counts.clone()) or counts)
    totals = [one + other for one, other in zip(*sums)]

    values, gradients = [], []
    for part in parts:
        own = logits[part].clone().requires_grad_()
        answers = iter(totals)
        value = loss(own, part, lambda counts, left=answers: next(left))
        value.backward()
        values.append(value.item())
        gradients.append(own.grad)
    assert sum(values) == pytest.approx(expected.item(), rel=1e-5)
    assert torch.allclose(torch.cat(gradients), whole.grad, atol=1e-6)
