"""The decoder is told what CLIP's texts say of each patch."""

import math

import pytest
import tiny
import torch
import torch.nn.functional as F

from model.dense import DenseReadout, dense_tokens
from model.text_match import TextMatch


def test_logits_are_a_share_of_cosines_with_the_best_background_word_for_the_background() -> None:
    visual, text = tiny.tower(), tiny.texts()
    tokens = torch.randn(2, 1 + 12, 128)
    match = TextMatch(64, 32)
    told = match(visual, tokens, (3, 4), text, tiny.CLASSES, tiny.LOGIT_SCALE)
    features, logits = (part.detach() for part in told)

    patches = F.normalize(dense_tokens(visual, tokens, (3, 4), DenseReadout("k"))[:, 1:], dim=-1)
    for row, column, label in ((0, 0, 0), (2, 3, 1), (1, 2, 5)):
        cosines = math.exp(tiny.LOGIT_SCALE) * (text @ patches[1, 4 * row + column])
        words = cosines[tiny.CLASSES :].exp().sum().log()
        scores = torch.cat([words[None], cosines[: tiny.CLASSES]])
        expected = scores[label] - scores.mean()
        assert logits[1, label, row, column] == pytest.approx(expected.item(), abs=1e-4)
    torch.testing.assert_close(features, match.mlp(8 * patches).detach())


def test_it_is_told_in_training_and_in_testing_alike() -> None:
    torch.manual_seed(0)
    model = tiny.cvf(text_match=True).eval()
    images, tags = tiny.batch()
    torch.testing.assert_close(model(images, tags).logits, model.segment(images))


def test_its_features_change_the_affinity_and_its_share_the_logits() -> None:
    torch.manual_seed(0)
    model = tiny.cvf(text_match=True).eval()
    images, tags = tiny.batch()
    told = model(images, tags)
    assert model.text_match is not None
    with torch.no_grad():
        model.text_match.share.zero_()
    without_share = model(images, tags)
    assert torch.equal(without_share.affinity, told.affinity)
    assert not torch.allclose(without_share.logits, told.logits)
    with torch.no_grad():
        model.text_match.mlp[2].weight.zero_()
        model.text_match.mlp[2].bias.zero_()
    assert not torch.allclose(model(images, tags).affinity, told.affinity)


def test_no_gradient_reaches_clip_and_one_reaches_each_of_its_own_tensors() -> None:
    torch.manual_seed(0)
    model = tiny.cvf(text_match=True)
    images, tags = tiny.batch()
    model(images, tags).logits.square().mean().backward()
    assert model.text_match is not None
    for name, tensor in model.text_match.named_parameters():
        assert tensor.grad is not None and tensor.grad.abs().sum() > 0, name
    assert all(tensor.grad is None for tensor in model.clip.parameters())


def test_without_it_a_model_has_none_of_its_tensors() -> None:
    told, usual = (set(tiny.cvf(text_match=is_told).state_dict()) for is_told in (True, False))
    assert {name for name in told - usual} == {
        "text_match.share",
        *(f"text_match.mlp.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")),
    }
    assert usual < told
