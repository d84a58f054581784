"""What is minimised under each kind of target, and what the network's own labels replace."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor

from clip.resize import resize
from model.criterion import criterion, cross_loss, replace_labels
from model.losses import IGNORE, affinity_loss, pair_targets, radius_mask, seg_loss
from model.method import BEGINNING, Method, Phase
from model.outputs import CVFOutput, PseudoLabels
from model.predictions import allowed_labels, own_labels, probabilities
from model.targets import candidate_loss, collision_loss, dice_loss
from utils.common.errors import UserError
from utils.config import Config

SWITCHES: dict[str, dict[str, Any]] = {
    "soft": {"targets": "soft"},
    "pair": {"targets": "pair"},
    "dice": {"w_dice": 1.0},
    "dice, all classes": {"w_dice": 1.0, "dice_classes": "all"},
    "cross": {"w_cross": 0.1},
    "own labels": {"self_train": "labels", "self_train_at": 0.3},
    "own labels of affinity": {"self_train": "affinity", "self_train_at": 0.0},
    "own soft": {"targets": "soft", "self_train": "labels", "self_train_at": 0.3},
    "own pair": {"targets": "pair", "self_train": "labels", "self_train_at": 0.3},
    "any class": {"self_train": "labels", "self_train_at": 0.1, "predicted_classes": "all"},
}


def output(**choices: Any) -> tuple[CVFOutput, Tensor, Method]:
    """What a tiny model says of a batch with padding, its tags and its method."""
    torch.manual_seed(0)
    model = tiny.cvf(**choices).eval()
    images, tags = tiny.batch()
    valid = torch.ones(3, 64, 48, dtype=torch.bool)
    valid[:, :5] = False
    return model(images, tags, tiny.LATE, valid), tags, model.method


def test_the_usual_losses_are_those_of_hard_labels() -> None:
    out, tags, method = output()
    losses = criterion(out, tags, 2, method=method)
    assert set(losses) == {"seg", "affinity", "patch"}
    logits = resize(out.logits, (64, 48))
    assert losses["seg"].item() == pytest.approx(seg_loss(logits, out.labels.combined).item())
    assert out.labels.soft is None


def test_soft_targets_are_the_refined_scores_of_what_an_image_may_hold() -> None:
    out, tags, method = output(targets="soft")
    soft = out.labels.soft
    assert torch.allclose(soft.sum(dim=1), torch.ones(3, 64, 48), atol=1e-5)
    allowed = allowed_labels(tags, soft.device)
    assert not soft[~allowed].any() and soft[allowed].amax() <= 1
    known = out.labels.combined != IGNORE
    assert torch.equal(soft.argmax(dim=1)[known], out.labels.combined[known])

    found = criterion(out, tags, method=method)["seg"]
    expected = collision_loss(resize(out.logits, (64, 48)), soft, known)
    assert found.item() == pytest.approx(expected.item())


def test_a_pair_is_what_both_branches_say() -> None:
    out, tags, method = output(targets="pair")
    clip, vit = out.labels.clip, out.labels.vit
    assert (clip != vit).any()
    everywhere = torch.ones_like(clip, dtype=torch.bool)
    expected = candidate_loss(resize(out.logits, (64, 48)), clip, vit, everywhere)
    found = criterion(out, tags, method=method)["seg"]
    assert found.item() == pytest.approx(expected.item())
    usual, *_ = output()
    assert torch.equal(usual.labels.combined, out.labels.combined)


def test_own_labels_by_hand() -> None:
    logits = torch.tensor([0.2, 0.5, 0.3]).log().view(1, 3, 1, 1)
    label, probability = own_labels(logits)
    assert label.item() == 1 and probability.item() == pytest.approx(0.5)
    tagged = allowed_labels(torch.tensor([[0.0, 1.0]]), logits.device)
    assert tagged.tolist() == [[True, False, True]]
    assert probabilities(logits, tagged).flatten().tolist() == pytest.approx([0.4, 0, 0.6])
    label, probability = own_labels(logits, tagged)
    assert label.item() == 2 and probability.item() == pytest.approx(0.6)


def test_own_labels_replace_others_where_they_are_sure_and_padding_never() -> None:
    logits = torch.tensor([[0.8, 0.6, 0.9], [0.2, 0.4, 0.1]]).log().view(1, 2, 1, 3)
    given = torch.tensor([[[1, 1, IGNORE]]])
    labels = PseudoLabels(given, given, None, None, None)  # type: ignore[arg-type]
    found = replace_labels(logits, labels, None, Method(self_train="labels"))
    assert found.combined.tolist() == [[[0, 1, IGNORE]]]
    assert found.affinity.tolist() == given.tolist()
    assert found.sure.tolist() == [[[True, False, False]]]
    found = replace_labels(logits, labels, None, Method(self_train="affinity", self_train_at=0.0))
    assert found.affinity.tolist() == [[[0, 0, IGNORE]]]
    assert found.combined.tolist() == given.tolist() and not found.sure.any()


def test_self_training_begins_at_its_iteration() -> None:
    config = Config(self_train="labels", self_train_iters=3)
    assert [config.self_trains(step) for step in (2, 3, 4)] == [False, True, True]
    assert not Config(self_train_iters=3).self_trains(9)


@pytest.mark.parametrize("branches", ["clip", "vit", "fusion"])
def test_the_networks_own_prediction_joins_the_scores_in_its_share(branches: str) -> None:
    images, tags = tiny.batch()
    itself = Phase(self_training=True)

    def label(share: float, phase: Phase) -> tuple[torch.Tensor, torch.Tensor]:
        torch.manual_seed(0)
        model = tiny.cvf(branches=branches, self_train="scores", self_train_share=share).eval()
        model.method = replace(model.method, par_iterations=0)
        out = model(images, tags, phase)
        return out.labels.combined, resize(out.logits, images.shape[-2:])

    before, logits = label(0.5, BEGINNING)
    own, _ = own_labels(logits, allowed_labels(tags, logits.device))
    assert torch.equal(label(1.0, itself)[0], own)
    assert torch.equal(label(0.0, itself)[0], before)
    assert not torch.equal(own, before)


@pytest.mark.parametrize("kind", ["labels", "affinity"])
def test_self_training_changes_the_labels_of_one_loss(kind: str) -> None:
    out, tags, method = output(self_train=kind, self_train_at=0.0, w_dice=1.0)
    before = criterion(out, tags, 2, method=method)
    after = criterion(out, tags, 2, method=method, phase=Phase(self_training=True))
    logits = resize(out.logits, (64, 48))
    own, _ = own_labels(logits, allowed_labels(tags, logits.device))
    own = own.masked_fill(out.labels.combined == IGNORE, IGNORE)
    if kind == "labels":
        assert after["seg"].item() == pytest.approx(seg_loss(logits, own).item())
        assert after["dice"].item() == pytest.approx(dice_loss(logits, own).item())
        assert torch.equal(before["affinity"], after["affinity"])
    else:
        pairs = pair_targets(own, (4, 3), radius_mask((4, 3), 2))
        expected = affinity_loss(out.affinity, pairs)
        assert after["affinity"].item() == pytest.approx(expected.item())
        assert torch.equal(before["seg"], after["seg"])
        assert torch.equal(before["dice"], after["dice"])


def test_each_predictor_learns_the_other_ones_labels() -> None:
    one = torch.tensor([[0.9, 0.6], [0.1, 0.4]]).log().view(1, 2, 1, 2).requires_grad_()
    other = torch.tensor([[0.3, 0.8], [0.7, 0.2]]).log().view(1, 2, 1, 2).requires_grad_()
    nowhere = torch.zeros(1, 1, 2, dtype=torch.bool)
    # the other says 1, 0; the one says 0, 0
    expected = seg_loss(one, torch.tensor([[[1, 0]]])) + seg_loss(other, torch.tensor([[[0, 0]]]))
    found = cross_loss([one, other], nowhere, None)
    assert found.item() == pytest.approx(expected.item())
    found.backward()
    assert one.grad.any() and other.grad.any()
    with pytest.raises(ValueError, match="1 predictors; two are needed"):
        cross_loss([one], nowhere, None)


def test_opinions_are_those_of_decoder_and_wide_head() -> None:
    out, *_ = output()
    mixed = 0.5 * out.opinions[0] + 0.5 * out.opinions[1]
    torch.testing.assert_close(out.logits, mixed)
    alone, *_ = output(branches="clip")
    assert len(alone.opinions) == 1


def part(out: CVFOutput, rows: slice) -> CVFOutput:
    """Some images of an output."""

    def cut(labels: Tensor | None) -> Tensor | None:
        return None if labels is None else labels[rows]

    labels = out.labels
    own = replace(
        labels,
        combined=labels.combined[rows],
        affinity=labels.affinity[rows],
        clip=cut(labels.clip),
        vit=cut(labels.vit),
        soft=cut(labels.soft),
    )
    return CVFOutput(
        out.logits[rows],
        out.affinity[rows],
        cut(out.patch_logits),
        own,
        tuple(opinion[rows] for opinion in out.opinions),
    )


@pytest.mark.parametrize("switch", SWITCHES.values(), ids=SWITCHES.keys())
def test_shares_of_two_processes_add_up_to_the_losses_of_the_batch(switch: dict[str, Any]) -> None:
    out, tags, method = output(**switch)

    def losses(rows: slice, reduce: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        return criterion(part(out, rows), tags[rows], 2, reduce, method, Phase(self_training=True))

    whole = losses(slice(None), lambda counts: counts)
    parts = [slice(0, 1), slice(1, 3)]
    sums: list[list[Tensor]] = [[], []]
    for number, rows in enumerate(parts):
        losses(rows, lambda counts, n=number: sums[n].append(counts.clone()) or counts)
    totals = [one + other for one, other in zip(*sums, strict=True)]

    shares = []
    for rows in parts:
        answers = iter(totals)
        shares.append(losses(rows, lambda counts, left=answers: next(left)))
    for name, value in whole.items():
        assert torch.isfinite(value)
        total = sum(share[name].item() for share in shares)
        assert total == pytest.approx(value.item(), rel=1e-4), name


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"targets": "pair", "branches": "clip"}, "--targets pair needs the labels of two"),
        ({"targets": "pair", "branches": "vit"}, "--branches vit makes those of one"),
        ({"targets": "soft", "label_fusion": "max_id"}, "--label_fusion max_id joins labels"),
        ({"self_train": "scores", "label_fusion": "max_id"}, "--self_train scores needs joined"),
        ({"w_dice": -1.0}, "--w_dice -1 must not be negative"),
        ({"self_train_at": 1.5}, "--self_train_at 1.5 must be at most 1"),
        ({"clip_map": "summed"}, "--clip_map summed is for blocks that are read out densely"),
        ({"clip_map": "summed", "cam": "dense", "branches": "vit"}, "add --cam dense"),
        (
            {"propagation_mask": "last_class", "distribution": "matrix"},
            "which --distribution matrix leaves out",
        ),
    ],
)
def test_settings_that_exclude_each_other_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Config(**settings)
