"""Losses against loops and hand-computed values, with missing parts and over several processes."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from model import losses
from model.class_token_vit import ranked_pool

# values that learn, their targets, and the loss
Case = tuple[tuple[Tensor, Tensor], Callable[..., Tensor]]


def test_seg_loss_agrees_with_a_loop() -> None:
    logits, labels = torch.randn(2, 4, 3, 3), torch.randint(0, 4, (2, 3, 3))
    labels[0, 0, 0] = 255
    kinds = {True: [], False: []}
    for image in range(2):
        for y in range(3):
            for x in range(3):
                if (label := labels[image, y, x].item()) != 255:
                    kinds[label == 0].append(-logits[image, :, y, x].log_softmax(0)[label])
    expected = sum(sum(values) / len(values) for values in kinds.values()) / 2
    torch.testing.assert_close(losses.seg_loss(logits, labels), expected)


@pytest.mark.parametrize("present", [0, 2, 255])
def test_a_missing_kind_of_pixel_counts_nothing(present: int) -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    labels = torch.full((1, 4, 4), present)
    loss = losses.seg_loss(logits, labels)
    expected = 0.0 if present == 255 else F.cross_entropy(logits, labels).item() / 2
    assert loss.item() == pytest.approx(expected)
    loss.backward()
    assert torch.isfinite(logits.grad).all()


def test_radius_mask_agrees_with_a_loop() -> None:
    mask = losses.radius_mask((3, 5), 1)
    for a in range(15):
        for b in range(15):
            assert mask[a, b] == (abs(a // 5 - b // 5) <= 1 and abs(a % 5 - b % 5) <= 1)


def test_affinity_labels_by_hand() -> None:
    labels = torch.zeros(1, 32, 48, dtype=torch.long)
    labels[:, :16, 16:32] = 3
    labels[:, 16:, :16] = 3
    labels[:, 16, 32] = 255  # the top-left pixel of the last patch
    labels[:, 20, 40] = 7  # not looked at
    patches = [0, 3, 0, 3, 0, 255]
    expected = [[255 if 255 in (a, b) else int(a == b) for b in patches] for a in patches]
    assert losses.pair_targets(labels, (2, 3))[0].tolist() == expected
    mask = losses.radius_mask((2, 3), 1)
    assert losses.pair_targets(labels, (2, 3), mask)[0, 0, 2] == 255


def test_affinity_labels_of_sizes_that_do_not_divide() -> None:
    labels = torch.arange(35).view(1, 5, 7)
    same = losses.pair_targets(labels, (2, 3))
    assert torch.equal(same[0], torch.eye(6, dtype=torch.uint8))
    labels[0, 2, 4] = labels[0, 0, 0]  # rows 0, 2 and columns 0, 2, 4 are read
    assert losses.pair_targets(labels, (2, 3))[0, 0, 5] == 1


def test_affinity_loss_by_hand() -> None:
    predicted = torch.tensor([[[0.9, 0.2], [0.4, 0.5]]])
    targets = torch.tensor([[[1, 0], [0, 255]]], dtype=torch.uint8)
    assert losses.affinity_loss(predicted, targets).item() == pytest.approx(
        0.5 * 0.1 / 2 + 0.5 * 0.6 / 3
    )
    assert losses.affinity_loss(predicted, torch.full_like(targets, 255)).item() == 0


def test_ranked_pool_by_hand() -> None:
    scores = torch.tensor([[[[1.0, 4.0], [2.0, 3.0]]]])
    expected = (4 + 3 * 0.5 + 2 * 0.25 + 1 * 0.125) / (1 + 0.5 + 0.25 + 0.125)
    assert ranked_pool(scores, decay=0.5).item() == pytest.approx(expected)
    assert ranked_pool(scores, decay=1.0).item() == pytest.approx(2.5)


def test_tag_loss_is_torch_soft_margin() -> None:
    logits, tags = torch.randn(4, 6) * 5, (torch.rand(4, 6) > 0.5).float()
    torch.testing.assert_close(
        losses.tag_loss(logits, tags), F.multilabel_soft_margin_loss(logits, tags)
    )


def test_class_contrast_by_hand() -> None:
    same, apart = torch.ones(1, 3, 8), torch.eye(8)[None, :3]
    tags = torch.tensor([[1.0, 0.0, 1.0]])
    alone = math.log(math.e + 2) - 1
    assert losses.class_contrast_loss([same], tags).item() == pytest.approx(math.log(3))
    assert losses.class_contrast_loss([apart], tags).item() == pytest.approx(alone)
    assert losses.class_contrast_loss([same, apart], tags).item() == pytest.approx(
        (math.log(3) + alone) / 2
    )
    assert losses.class_contrast_loss([same, apart], tags, layers=1).item() == pytest.approx(alone)
    assert losses.class_contrast_loss([same], torch.zeros(1, 3)).item() == 0


def seg_inputs() -> Case:
    labels = torch.randint(0, 4, (4, 5, 5))
    labels[0] = 0  # shares differ between the processes
    return (torch.randn(4, 4, 5, 5), labels), losses.seg_loss


def affinity_inputs() -> Case:
    targets = torch.randint(0, 2, (4, 6, 6))
    targets[1] = 255
    return (torch.rand(4, 6, 6), targets), losses.affinity_loss


def tag_inputs() -> Case:
    return (torch.randn(4, 3), torch.ones(4, 3)), losses.tag_loss


def contrast_inputs() -> Case:
    tags = torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])

    def loss(
        embeddings: Tensor, tags: Tensor, reduce: losses.Reduce = losses.single_process
    ) -> Tensor:
        return losses.class_contrast_loss([embeddings], tags, reduce=reduce)

    return (torch.randn(4, 3, 8), tags), loss


@pytest.mark.parametrize("make", [seg_inputs, affinity_inputs, tag_inputs, contrast_inputs])
def test_shares_of_processes_add_up_to_the_whole(make: Callable[[], Case]) -> None:
    (values, targets), loss = make()
    values.requires_grad_()
    whole = loss(values, targets)
    (gradient,) = torch.autograd.grad(whole, values)

    def counts_of(part: slice) -> Tensor:
        seen = []

        def note(counts: Tensor) -> Tensor:
            seen.append(counts)
            return counts

        loss(values[part], targets[part], reduce=note)
        return seen[0]

    parts = (slice(0, 1), slice(1, 4))
    total = sum(counts_of(part) for part in parts)
    shares = [loss(values[part], targets[part], reduce=lambda counts: total) for part in parts]
    torch.testing.assert_close(sum(shares), whole)
    torch.testing.assert_close(torch.autograd.grad(sum(shares), values)[0], gradient)
