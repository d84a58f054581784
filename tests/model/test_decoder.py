"""The trained heads: what they depend on, and in which precision."""

import pytest
import torch

from model.decoder import FeatureFusion, LargeFOV, SegmentationDecoder, predicted_affinity


def test_fusion_by_hand() -> None:
    fusion = FeatureFusion(2, 4, 3)
    features = [torch.randn(1, 5, 4), torch.randn(1, 5, 4)]
    hidden = []
    for (first, _, second), x in zip(fusion.mlps, features):
        hidden.append(
            (x @ first.weight.T + first.bias).clamp(min=0) @ second.weight.T + second.bias
        )
    expected = torch.cat(hidden, dim=2) @ fusion.merge.weight.T + fusion.merge.bias
    torch.testing.assert_close(fusion(features), expected)


def test_fusion_refuses_another_number_of_layers() -> None:
    with pytest.raises(ValueError, match="1 layers of features for 2"):
        FeatureFusion(2, 4, 3)([torch.randn(1, 5, 4)])


def test_decoder_knows_no_positions() -> None:
    decoder, tokens, order = (
        SegmentationDecoder(6, 16, layers=2, heads=4),
        torch.randn(2, 12, 16),
        torch.randperm(12),
    )
    logits = decoder(tokens, (3, 4))
    assert logits.shape == (2, 6, 3, 4)
    torch.testing.assert_close(
        decoder(tokens[:, order], (3, 4)).flatten(2), logits.flatten(2)[..., order]
    )


@pytest.mark.parametrize("dilation", [1, 5])
def test_wide_view_reaches_two_steps(dilation: int) -> None:
    wide = LargeFOV(4, 3, width=8, dilation=dilation)
    features = torch.randn(1, 4, 25, 25, requires_grad=True)
    wide(features)[0, :, 12, 12].sum().backward()
    seen = features.grad.abs().sum((0, 1)).nonzero() - 12
    assert set(seen.abs().flatten().tolist()) == {0, dilation, 2 * dilation}


def test_predicted_affinity_is_symmetric_and_keeps_float32() -> None:
    tokens = torch.randn(2, 7, 16)
    with torch.autocast("cpu", torch.bfloat16):
        affinity = predicted_affinity(tokens)
    assert affinity.dtype == torch.float32
    torch.testing.assert_close(
        affinity[1, 2, 5], torch.sigmoid((tokens[1, 2] * tokens[1, 5]).sum())
    )
    torch.testing.assert_close(affinity, affinity.transpose(1, 2))
