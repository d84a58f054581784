"""Dense read-outs: settings that exclude each other, and what must not change them."""

import pytest
import tiny
import torch

from model.dense import READOUTS, DenseReadout, dense_tokens, softmax_cams, surgery_cams
from model.proxy import cosine_affinity, proxy_attention


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"parts": "qx"}, "parts is 'qx'"),
        ({"heads": "all"}, "heads is 'all'"),
        ({"residual": "both"}, "residual is 'both'"),
        ({"blocks": 2}, "use residual 'stream'"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DenseReadout(**settings)


@pytest.mark.parametrize("name", ["maskclip", "sclip", "clearclip", "naclip"])
def test_a_read_out_of_one_image_does_not_depend_on_the_others(name: str) -> None:
    visual = tiny.tower()
    tokens, grid = visual.embed(torch.randn(3, 3, 48, 64))
    dense = dense_tokens(visual, tokens, grid, READOUTS[name])
    alone = dense_tokens(visual, tokens[1:2], grid, READOUTS[name])
    assert torch.allclose(dense[1:2], alone, atol=1e-5)
    assert dense.shape == (3, 13, 64)


def test_maps_of_classes_fill_0_to_1() -> None:
    dense = torch.randn(2, 13, 8)
    text = torch.nn.functional.normalize(torch.randn(5, 8), dim=-1)
    cams = surgery_cams(dense, text)
    assert cams.shape == (2, 12, 5)
    assert torch.allclose(cams.amin(dim=1), torch.zeros(2, 5))
    assert torch.allclose(cams.amax(dim=1), torch.ones(2, 5))


def test_texts_that_are_not_allowed_take_no_part() -> None:
    patches, text = torch.randn(1, 6, 8), torch.randn(4, 8)
    allowed = torch.tensor([[True, False, True, True]])
    cams = softmax_cams(patches, text, 3.0, allowed, (2, 3))
    without = softmax_cams(patches, text[[0, 2, 3]], 3.0, allowed[:, [0, 2, 3]], (2, 3))
    assert torch.allclose(cams[:, [0, 2, 3]], without, atol=1e-5)
    assert (cams[:, 1] == 0).all()


@pytest.mark.parametrize("joint", [False, True])
def test_a_proxy_leaves_out_what_is_less_alike_than_the_mean(joint: bool) -> None:
    features = torch.randn(2, 10, 4)
    attention = proxy_attention(features, joint=joint)
    assert torch.allclose(attention.sum(dim=-1), torch.ones(2, 10))
    assert (attention == 0).any()
    assert (attention.diagonal(dim1=1, dim2=2) > 0).all()


def test_only_the_joint_mean_lets_one_image_change_another() -> None:
    features = torch.randn(2, 10, 4)
    other = torch.cat([features[:1], features[1:] * torch.randn(10, 1)])
    assert torch.equal(cosine_affinity(features)[0], cosine_affinity(other)[0])
    assert not torch.equal(
        cosine_affinity(features, joint=True)[0], cosine_affinity(other, joint=True)[0]
    )
