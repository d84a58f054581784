"""The class-token ViT: sizes, streams, and the three ways to begin."""

import pytest
import tiny
import torch
import torch.nn.functional as F
from vit_files import deit

from model.class_token_vit import ClassTokenViT
from model.criterion import classifier_criterion
from model.losses import tag_loss
from model.transformer import Attention, Block
from model.vit_loading import (
    MCT_UNUSED,
    from_clip,
    from_deit,
    half_size_kernel,
    load_mct,
)
from utils.common.errors import UserError


@pytest.mark.parametrize("streams", [1, 2])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 47), (64, 64), (112, 48)])
def test_any_size_from_two_patches_up(height: int, width: int, streams: int) -> None:
    vit, images = tiny.vit(streams=streams), torch.randn(2, 3, height, width)
    out, (h, w) = vit(images, maps="patch"), (height // 16, width // 16)
    assert out.x_patch.shape == (2, 64, h, w) and out.patch_affinity.shape == (2, h * w, h * w)
    assert out.scores.shape == out.cams.shape == out.class_to_patch.shape == (2, tiny.CLASSES, h, w)
    torch.testing.assert_close(vit.patch_features(images), out.x_patch)


def test_smaller_images_are_refused() -> None:
    with pytest.raises(ValueError, match="31 x 64 px; both sides must be at least 32"):
        tiny.vit()(torch.randn(1, 3, 31, 64))
    with pytest.raises(ValueError, match="64 x 15 px; both sides must be at least 16"):
        tiny.vit(streams=1)(torch.randn(1, 3, 64, 15))


def test_unknown_versions_and_numbers_of_streams_are_refused() -> None:
    for choice in ({"streams": 3}, {"version": "v3"}, {"streams": 2, "version": "v2"}):
        with pytest.raises(ValueError, match="there is no class-token ViT"):
            tiny.vit(**choice)


def test_attention_on_request_is_what_the_sums_are_made_of() -> None:
    vit, images, classes = tiny.vit(), torch.randn(1, 3, 48, 64), tiny.CLASSES
    out = vit(images, maps="all")
    weights = torch.stack(out.attention)
    torch.testing.assert_close(weights.sum(-1), torch.ones(4, 1, 2, classes + 12))
    torch.testing.assert_close(out.patch_affinity, weights.mean(2).sum(0)[:, classes:, classes:])
    to_patch = weights.mean((0, 2))[:, :classes, classes:]
    torch.testing.assert_close(out.class_to_patch.flatten(2), to_patch)
    torch.testing.assert_close(out.cams, (out.class_to_patch * out.scores.clamp(min=0)).sqrt())


def test_maps_are_made_only_where_asked_for() -> None:
    vit, images = tiny.vit(), torch.randn(1, 3, 48, 64)
    everything, patch, none = (vit(images, maps=maps) for maps in ("all", "patch", "none"))
    assert none.class_to_patch is None and none.patch_affinity is None and none.attention == []
    assert patch.attention == []
    torch.testing.assert_close(patch.cams, everything.cams)
    torch.testing.assert_close(patch.patch_affinity, everything.patch_affinity)
    for out in (patch, none):
        assert torch.equal(out.scores, everything.scores)


def test_patch_affinity_may_come_from_one_block() -> None:
    vit, images = tiny.vit(), torch.randn(1, 3, 48, 64)
    everything, third = vit(images, maps="all"), vit(images, maps="patch", patch_block=3)
    patches = slice(tiny.CLASSES, None)
    torch.testing.assert_close(
        third.patch_affinity, everything.attention[2].mean(1)[:, patches, patches]
    )
    torch.testing.assert_close(third.cams, everything.cams)


def test_maps_carry_no_gradient_and_logits_do() -> None:
    out = tiny.vit()(torch.randn(1, 3, 48, 48), maps="patch")
    assert not (
        out.cams.requires_grad
        or out.patch_affinity.requires_grad
        or out.class_to_patch.requires_grad
    )
    small, large = out.cls_embeddings[-2:]
    torch.testing.assert_close(out.cls_logits, (small.mean(-1) + large.mean(-1)) / 2)
    assert (
        out.cls_logits.requires_grad
        and out.patch_logits.requires_grad
        and out.x_patch.requires_grad
    )


def test_large_patches_reach_small_ones_through_class_tokens() -> None:
    vit, images = tiny.vit(), torch.randn(1, 3, 64, 64)
    before = vit.patch_features(images)
    torch.nn.init.zeros_(vit.patch_embed_large.proj.weight)
    assert (vit.patch_features(images) - before).abs().max() > 1e-4


@pytest.mark.parametrize("streams", [1, 2])
def test_every_tensor_learns_from_tags(streams: int) -> None:
    vit, tags = tiny.vit(streams=streams), torch.eye(2, tiny.CLASSES)
    out = vit(torch.randn(2, 3, 64, 64))
    sum(classifier_criterion(out, tags).values()).backward()
    assert [name for name, p in vit.named_parameters() if p.grad is None] == []


def test_weights_are_those_of_the_fused_attention() -> None:
    attention, x = Block(32, 4, 64).attn, torch.randn(2, 9, 32)
    fused, weights = attention(x, rows=9)
    assert attention(x)[1] is None and not weights.requires_grad
    values = attention.qkv(x).chunk(3, dim=-1)[2].unflatten(2, (4, 8)).transpose(1, 2)
    torch.testing.assert_close(fused, attention.proj((weights @ values).transpose(1, 2).flatten(2)))
    torch.testing.assert_close(attention(x, rows=2)[1], weights[:, :, :2])


def test_one_stream_is_what_small_patches_see_alone() -> None:
    vit, tags = tiny.vit(streams=1), torch.eye(1, tiny.CLASSES)
    out = vit(torch.randn(1, 3, 48, 64))
    assert len(out.cls_embeddings) == len(vit.blocks) and out.patch_large_logits is None
    torch.testing.assert_close(out.cls_logits, out.cls_embeddings[-1].mean(-1))
    torch.testing.assert_close(out.scores, vit.head(out.x_patch))
    patch = classifier_criterion(out, tags)["patch"]
    torch.testing.assert_close(patch, tag_loss(out.patch_logits, tags))


@pytest.mark.parametrize("streams", [1, 2])
@pytest.mark.parametrize("pre_norm", [False, True])
def test_a_saved_vit_is_built_again_from_its_tensors(pre_norm: bool, streams: int) -> None:
    sizes = {"heads": 1, "mlp_ratio": 3, "pre_norm": pre_norm, "streams": streams}
    vit, images = tiny.vit(**sizes), torch.randn(1, 3, 48, 64)
    unused = {name: torch.zeros(1) for name in MCT_UNUSED["plus"]}
    again = load_mct({**vit.state_dict(), **unused})
    torch.testing.assert_close(again(images).scores, vit(images).scores)


def test_loading_names_what_is_missing_and_what_is_unexpected() -> None:
    state = tiny.vit().state_dict()
    wrong = {name: tensor for name, tensor in state.items() if name != "head.bias"} | {
        "extra": torch.zeros(1)
    }
    with pytest.raises(
        UserError, match="^some.pth does not fit.*missing: head.bias; unexpected: extra"
    ):
        load_mct(wrong, source="some.pth")
    with pytest.raises(UserError, match="has no tensor cls_token"):
        load_mct({"weight": torch.zeros(1)})
    with pytest.raises(UserError, match="of another shape: alpha"):
        load_mct({**state, "alpha": torch.zeros(2)})


def test_deit_start() -> None:
    state = deit()
    vit = from_deit(state, num_classes=7, input_size=64)
    own = vit.state_dict()
    assert all(
        torch.equal(own[name], tensor)
        for name, tensor in state.items()
        if name.startswith("blocks.")
    )
    assert torch.equal(vit.pos_embed_pat, state["pos_embed"][:, 1:])
    assert torch.equal(vit.pos_embed_cls[0, 3], state["pos_embed"][0, 0])
    spread = vit.cls_token[0] - state["cls_token"][0]
    assert 0.01 < spread.std() < 0.03 and spread.std(0).min() > 0  # the copies differ
    assert from_deit(state, 7, input_size=96).pos_embed_pat.shape == (1, 36, 64)
    assert torch.isfinite(vit(torch.randn(1, 3, 64, 64)).scores).all()


def test_large_patches_begin_as_small_ones_on_the_half_size_image() -> None:
    kernel, images = torch.randn(5, 3, 16, 16), torch.randn(2, 3, 64, 96)
    large = F.conv2d(images, half_size_kernel(kernel), stride=32)
    small = F.conv2d(F.avg_pool2d(images, 2), kernel, stride=16)
    torch.testing.assert_close(large, small, rtol=1e-4, atol=1e-4)


def test_clip_start_sees_the_patches_as_clip_does() -> None:
    visual, images = tiny.tower(), torch.randn(2, 3, 48, 48)  # CLIP's native grid
    vit = from_clip(visual, num_classes=tiny.CLASSES, input_size=48)
    expected, _ = visual.embed(images)
    torch.testing.assert_close(
        vit._tokens(images, vit.patch_embed)[:, tiny.CLASSES :], expected[:, 1:]
    )
    block, tokens = visual.blocks[2], torch.randn(1, 9, 128)
    _, weights = vit.blocks[2].attn(vit.blocks[2].norm1(tokens), rows=9)
    torch.testing.assert_close(
        weights.mean(1), block.with_attention(tokens)[1], rtol=1e-3, atol=1e-5
    )
    assert isinstance(vit, ClassTokenViT) and len(vit.blocks) == len(visual.blocks)
    torch.nn.init.zeros_(vit.blocks[0].mlp.fc1.weight)
    assert visual.blocks[0].mlp.c_fc.weight.any()  # a copy, so training it leaves CLIP alone


@pytest.mark.parametrize("rows", [2, 9])
def test_attention_says_the_same_with_and_without_a_graph(rows: int) -> None:
    attention, tokens = Attention(32, 4), torch.randn(2, 9, 32)
    output, weights = attention(tokens, rows)
    with torch.no_grad():
        plain, bare = attention(tokens, rows)
    torch.testing.assert_close(plain, output)
    torch.testing.assert_close(bare, weights)
