"""CLIP's towers: both ways to run a block, any image size, position tables, and text features with
their cache.
"""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers import clip_tensors, tiny_clip
from safetensors.torch import load_file, save_file

from clip import text
from clip.blocks import ResidualBlock, embed_patches, mean_of_heads
from clip.loader import load_clip
from clip.model import CLIP, VisionTransformer
from clip.text import text_features
from clip.tokenizer import Tokenizer
from datasets.specs import VOC
from utils.common.errors import UserError

PROMPTS = VOC.texts()


def tower(grid: int = 4) -> VisionTransformer:
    return VisionTransformer(128, 3, 32, 16, grid).eval().requires_grad_(False)


def naive_attention(
    block: ResidualBlock, y: torch.Tensor, causal: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output (T, C) and head-mean map (T, T) of one sequence y (T, C), head by head and token by
    token.
    """
    attn, width = block.attn, y.shape[1] // block.attn.heads
    q, k, v = (y @ attn.in_proj_weight.T + attn.in_proj_bias).chunk(3, 1)
    joined, maps = torch.zeros_like(y), []
    for head in range(attn.heads):
        part = slice(head * width, (head + 1) * width)
        weights = torch.zeros(len(y), len(y))
        for i in range(len(y)):
            visible = i + 1 if causal else len(y)
            scores = torch.stack([q[i, part] @ k[j, part] for j in range(visible)]) / width**0.5
            weights[i, :visible] = scores.exp() / scores.exp().sum()
        joined[:, part] = weights @ v[:, part]
        maps.append(weights)
    return joined @ attn.out_proj.weight.T + attn.out_proj.bias, torch.stack(maps).mean(0)


@pytest.mark.parametrize("causal", [False, True])
def test_a_block_agrees_with_a_naive_loop(causal: bool) -> None:
    block, x = ResidualBlock(128, 2).requires_grad_(False), torch.randn(2, 7, 128)
    out = block(x, causal)
    for image in range(2):
        attended, maps = naive_attention(block, block.ln_1(x[image]), causal)
        stream = x[image] + attended
        hidden = F.linear(block.ln_2(stream), block.mlp.c_fc.weight, block.mlp.c_fc.bias)
        expected = stream + block.mlp.c_proj(hidden * torch.sigmoid(1.702 * hidden))
        torch.testing.assert_close(out[image], expected)
        if not causal:
            torch.testing.assert_close(block.with_attention(x)[1][image], maps)


def test_fused_attention_equals_attention_with_maps() -> None:
    block, x = tower().blocks[0], torch.randn(2, 13, 128)
    explicit, maps = block.with_attention(x)
    torch.testing.assert_close(block(x), explicit)
    torch.testing.assert_close(maps.sum(-1), torch.ones(2, 13))


def test_half_precision_rounds_the_mean_of_heads_once() -> None:
    weights = torch.rand(2, 12, 7, 9).bfloat16()
    mean = mean_of_heads(weights)
    assert mean.dtype == torch.float32
    torch.testing.assert_close(mean, mean_of_heads(weights.float()), rtol=2**-8, atol=0)


def test_features_of_any_size_and_depth() -> None:
    visual, images = tower(), torch.randn(2, 3, 48, 90)
    features = visual.features(images)
    assert features.grid == (3, 5) and len(features.tokens) == len(features.attention) == 2
    assert all(tokens.shape == (2, 16, 128) for tokens in features.tokens)
    assert all(maps.shape == (2, 16, 16) for maps in features.attention)
    torch.testing.assert_close(
        visual.project(visual.features(images, 3).tokens[-1]), visual(images)
    )
    stream, _ = visual.embed(images)
    torch.testing.assert_close(features.tokens[0], visual.blocks[0](stream))


def test_a_batch_equals_its_images_one_by_one() -> None:
    visual, images = tower(), torch.randn(3, 3, 64, 32)
    for i in range(3):
        torch.testing.assert_close(visual(images)[i], visual(images[i : i + 1])[0])


def test_first_tokens_are_class_then_patches_in_reading_order() -> None:
    visual, images = tower(), torch.randn(1, 3, 64, 64)
    tokens, grid = visual.embed(images)
    assert grid == (4, 4)
    patch = images[0, :, 16:32, 48:64]  # row 1, column 3
    linear = (visual.conv1.weight * patch).sum((1, 2, 3))
    torch.testing.assert_close(
        tokens[0, 1 + 7], visual.ln_pre(linear + visual.positional_embedding[1 + 7])
    )
    torch.testing.assert_close(
        tokens[0, 0], visual.ln_pre(visual.class_embedding + visual.positional_embedding[0])
    )


def test_the_position_table_is_resized_bilinearly_and_kept_at_the_native_grid() -> None:
    visual = tower(2)
    assert visual.position(2, 2) is visual.positional_embedding
    a, b, c, d = visual.positional_embedding[1:]
    wide = visual.position(2, 4)
    assert wide.shape == (9, 128) and torch.equal(wide[0], visual.positional_embedding[0])
    expected = [
        a,
        0.75 * a + 0.25 * b,
        0.25 * a + 0.75 * b,
        b,
        c,
        0.75 * c + 0.25 * d,
        0.25 * c + 0.75 * d,
        d,
    ]
    torch.testing.assert_close(wide[1:], torch.stack(expected))  # half-pixel centres by hand
    torch.testing.assert_close(visual.position(1, 1)[1], (a + b + c + d) / 4)


def full_clip() -> CLIP:
    """A CLIP with the whole vocabulary."""
    return CLIP(VisionTransformer(64, 2, 32, 16, 4), 32, 64, 2).eval().requires_grad_(False)


def reduced(model: CLIP, prompts: list[str]) -> CLIP:
    """The same CLIP with the token rows of some prompts only, as a small file holds it."""
    ids = Tokenizer()(prompts).unique()
    tensors = clip_tensors(model)
    tensors["token_embedding.weight"] = tensors["token_embedding.weight"][ids]
    return CLIP.from_state_dict({**tensors, "token_ids": ids.int()})


def test_a_reduced_vocabulary_gives_the_same_features() -> None:
    model = full_clip()
    features = text_features(model, PROMPTS)
    assert features.shape == (45, 32) and features.dtype == torch.float32
    torch.testing.assert_close(features.norm(dim=1), torch.ones(45))
    assert torch.equal(text_features(reduced(model, PROMPTS), PROMPTS), features)


def test_text_features_depend_on_neither_the_other_prompts_nor_what_follows_the_end() -> None:
    model = full_clip()
    together = text_features(model, ["dog", "a clean origami person with clothes,people,human."])
    torch.testing.assert_close(together[:1], text_features(model, ["dog"]))
    tokens = Tokenizer()(["dog"])
    padded = model.token_embedding(tokens) + model.positional_embedding
    expected = model.ln_final(model.transformer(padded, causal=True))[:, 2] @ model.text_projection
    torch.testing.assert_close(model.encode_text(tokens), expected)


def test_a_prompt_with_an_unknown_token_is_named() -> None:
    model = reduced(full_clip(), PROMPTS)
    with pytest.raises(UserError, match=r"'a clean origami zeppelin\.' .* reword it"):
        text_features(model, [*PROMPTS, "a clean origami zeppelin."])


def test_a_prompt_that_is_too_long_is_named() -> None:
    with pytest.raises(UserError, match="at most 77 fit"):
        text_features(full_clip(), ["dog", "dog " * 76])


def test_a_prompt_longer_than_the_positions_of_a_checkpoint_is_named() -> None:
    tensors = clip_tensors(full_clip())
    tensors["positional_embedding"] = tensors["positional_embedding"][:6]
    model = CLIP.from_state_dict(tensors)
    assert text_features(model, ["dog", "a big dog"]).shape == (2, 32)
    with pytest.raises(UserError, match="'a very big old dog' .* 7 tokens .* takes at most 6"):
        text_features(model, ["dog", "a very big old dog"])


@pytest.mark.parametrize("rows", [21128, 49407, 50257, 60000])
def test_a_clip_of_another_vocabulary_is_refused(rows: int) -> None:
    """Of more rows every token has one, but that of another word."""
    tensors = clip_tensors(full_clip())
    tensors["token_embedding.weight"] = torch.zeros(rows, 64)
    with pytest.raises(UserError, match=f"knows {rows} tokens, but .* of 49408"):
        text_features(CLIP.from_state_dict(tensors), ["dog"])


def test_text_features_are_cached_by_weights_and_prompts(
    clip_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_clip(clip_file)
    first = text_features(model, PROMPTS, tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    text_features(model, PROMPTS[:-1], tmp_path)
    save_file(clip_tensors(tiny_clip(seed=1)), tmp_path / "other.clip.safetensors")
    other = load_clip(tmp_path / "other.clip.safetensors", "quick_gelu")
    text_features(other, PROMPTS, tmp_path)
    assert len(list(tmp_path.glob("text_features_*"))) == 3
    monkeypatch.setattr(text, "_encode", lambda *_: pytest.fail("the cache was not used"))
    assert torch.equal(text_features(model, PROMPTS, tmp_path), first)


@pytest.mark.parametrize("damage", [b"", b"half a file", None])
def test_a_damaged_cache_is_made_anew(
    clip_file: Path, tmp_path: Path, damage: bytes | None
) -> None:
    model = load_clip(clip_file)
    expected = text_features(model, PROMPTS, tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-1] if damage is None else damage)
    assert torch.equal(text_features(model, PROMPTS, tmp_path), expected)
    assert torch.equal(load_file(file)["features"], expected)


def test_the_toy_clip_has_every_prompt() -> None:
    model = load_clip("toy")
    assert text_features(model, PROMPTS).shape == (len(PROMPTS), model.text_projection.shape[1])


@pytest.mark.parametrize("size", [(50, 33), (160, 16), (16, 90), (300, 47)])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_patches_of_narrow_images_are_those_of_a_convolution(
    size: tuple[int, int], kind: torch.dtype
) -> None:
    torch.manual_seed(0)
    images = torch.randn(2, 3, *size, dtype=kind)
    layer = torch.nn.Conv2d(3, 192, 16, stride=16).to(kind)
    with torch.no_grad():
        found = embed_patches(images, layer)
        expected = layer.double()(images.double())
    assert found.shape == expected.shape
    assert torch.allclose(found.double(), expected, atol=1e-5 if kind == torch.float32 else 0.02)
