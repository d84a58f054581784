"""Switches between the methods of the family: each acts, and none lets images change each other."""

from dataclasses import replace
from typing import Any

import pytest
import tiny
import torch
from helpers import tiny_clip

from datasets.specs import VOC
from model.affinity import propagate
from model.cvf import CVF
from model.dense import attend
from model.method import Phase
from utils.build import build_cvf
from utils.config import Config

SWITCHES: dict[str, dict[str, Any]] = {
    "dense": {"cam": "dense"},
    "dense, several parts": {"cam": "dense", "dense_parts": "qkv", "dense_std": 2.0},
    "dense, values": {"cam": "dense", "dense_parts": ""},
    "dense, several blocks": {"cam": "dense", "dense_parts": "qkv", "dense_blocks": 3},
    "dense, values of several blocks": {"cam": "dense", "dense_parts": "", "dense_blocks": 3},
    "surgery": {"cam": "dense", "dense_maps": "surgery"},
    "surgery by channel": {"cam": "dense", "dense_maps": "surgery_by_channel"},
    "heads summed": {
        "cam": "dense",
        "dense_parts": "qkv",
        "dense_blocks": 2,
        "dense_heads": "sum",
    },
    "maps summed": {"cam": "dense", "clip_map": "summed"},
    "learned proxy": {"cam": "dense", "proxy": "learned"},
    "both": {"cam": "both"},
    "cosine": {"affinity_head": "cosine"},
    "distribution, matrix": {"distribution": "matrix"},
    "distribution, elements": {"distribution": "elements", "distribution_tau": 0.03},
    "transition, one step": {"transition_power": 1},
    "divergence": {"distribution": "matrix", "distribution_distance": "jensen_shannon"},
}


def model(**choices: Any) -> CVF:
    torch.manual_seed(0)
    return tiny.cvf(**choices).eval()


@pytest.mark.parametrize("switch", SWITCHES.values(), ids=SWITCHES.keys())
@pytest.mark.parametrize("branches", ["clip", "fusion"])
def test_a_switch_changes_seeds_or_affinity(switch: dict[str, Any], branches: str) -> None:
    images, tags = tiny.batch()
    usual = model(branches=branches)(images, tags, tiny.LATE)
    switched = model(branches=branches, **switch)(images, tags, tiny.LATE)
    assert torch.equal(switched.logits, usual.logits)
    seeds, before = switched.labels.seeds, usual.labels.seeds
    changed = [
        not torch.allclose(seeds.transition, before.transition),
        not torch.allclose(seeds.clip_cams, before.clip_cams),
        not torch.allclose(switched.affinity, usual.affinity),
    ]
    assert any(changed)
    for part in (seeds.clip, seeds.transition, switched.affinity):
        assert torch.isfinite(part).all()


@pytest.mark.parametrize("switch", SWITCHES.values(), ids=SWITCHES.keys())
def test_an_image_alone_has_the_seeds_that_it_has_in_a_batch(switch: dict[str, Any]) -> None:
    images, tags = tiny.batch()
    batch = model(**switch)(images, tags, tiny.LATE).labels.seeds
    alone = model(**switch)(images[2:], tags[2:], tiny.LATE).labels.seeds
    assert torch.allclose(batch.transition[2:], alone.transition, atol=1e-5)
    assert torch.allclose(batch.clip_cams[-1:], alone.clip_cams, atol=1e-4)


def test_both_is_the_mean_of_grad_cam_and_dense_maps() -> None:
    images, tags = tiny.batch()
    cams = [
        model(cam=cam)(images, tags).labels.seeds.clip_cams for cam in ("gradcam", "dense", "both")
    ]
    assert torch.allclose(cams[2], (cams[0] + cams[1]) / 2, atol=1e-5)


def test_maps_of_the_vit_alone_read_nothing_densely() -> None:
    images, tags = tiny.batch()
    usual = model(branches="vit")(images, tags).labels
    switched = model(branches="vit", cam="dense", distribution="matrix")(images, tags).labels
    assert torch.equal(usual.combined, switched.combined)


def test_heads_of_several_blocks_are_summed_on_request() -> None:
    """Of two blocks, the attention of two heads is twice as strong, and so is what it adds."""
    images, _ = tiny.batch()
    parts = model(cam="dense", dense_parts="qkv", dense_blocks=2)
    stream = parts.clip.features(images).tokens[-2]
    block = parts.clip.blocks[-2]
    mean = attend(block, stream, parts.method.readout) - block.attn.out_proj.bias
    summed = replace(parts.method, dense_heads="sum").readout
    twice = attend(block, stream, summed) - block.attn.out_proj.bias
    torch.testing.assert_close(twice, block.attn.heads * mean, rtol=1e-4, atol=1e-5)


def test_values_of_several_blocks_are_read_out_whatever_their_heads_share() -> None:
    """A token that keeps its own value does so in every head, which a mean leaves as it is."""
    images, _ = tiny.batch()
    parts = model(cam="dense", dense_parts="", dense_blocks=2)
    stream = parts.clip.features(images).tokens[-2]
    block = parts.clip.blocks[-2]
    _, _, value = block.attn.split(block.ln_1(stream))
    for heads, factor in (("mean", 1), ("sum", block.attn.heads)):
        readout = replace(parts.method, dense_heads=heads).readout
        expected = block.attn.out_proj(factor * value.transpose(1, 2).flatten(2))
        torch.testing.assert_close(attend(block, stream, readout), expected)


def test_maps_of_the_blocks_that_are_read_are_summed_on_request() -> None:
    images, _ = tiny.batch()
    choices = {"cam": "dense", "dense_parts": "qkv", "dense_blocks": 2}
    means = model(**choices)
    summed = model(**choices, clip_map="summed")
    features = means.clip.features(images)
    pairs = zip(
        means.seed_maker.clip_maps(features), summed.seed_maker.clip_maps(features), strict=True
    )
    ratios = [(more / less).median().item() for less, more in pairs]
    assert ratios == pytest.approx([1, 1, 2, 2])


def test_without_boxes_maps_spread_from_everywhere() -> None:
    images, tags = tiny.batch()
    for choices in ({"boxes": False}, {"distribution": "matrix"}):
        seeds = model(branches="clip", **choices)(images, tags).labels.seeds
        assert seeds.boxes is None
        expected = propagate(seeds.transition, seeds.rows, seeds.clip_cams)
        torch.testing.assert_close(seeds.clip, expected)


def test_a_learned_proxy_acts_from_the_switch_over_on() -> None:
    images, tags = tiny.batch()
    plain = model(cam="dense")
    proxied = model(cam="dense", proxy="learned")
    for after_switch in (False, True):
        same = torch.equal(
            plain(images, tags, Phase(after_switch)).labels.seeds.clip_cams,
            proxied(images, tags, Phase(after_switch)).labels.seeds.clip_cams,
        )
        assert same is not after_switch


@pytest.mark.parametrize(
    ("layers", "blocks"), [("inner", (0, 1)), ("all", (0, 1, 2)), ("last", (1,))]
)
def test_the_decoder_reads_the_blocks_that_it_is_told_to(
    layers: str, blocks: tuple[int, ...]
) -> None:
    clip = tiny_clip().requires_grad_(False)
    text = torch.nn.functional.normalize(torch.randn(len(VOC.texts()), 32), dim=1)
    config = Config(branches="clip", clip_layers=layers, decoder_width=32)
    network = build_cvf(config, clip, text, None, len(VOC.classes)).eval()
    images = torch.randn(2, 3, 64, 48)
    stream, grid = clip.visual.embed(images)
    tokens = []
    for block in clip.visual.blocks:
        stream = block(stream)
        tokens.append(stream[:, 1:])
    fused = network.fusion([tokens[block] for block in blocks])
    expected = network.decoder(fused, grid)
    torch.testing.assert_close(network.segment(images), expected, rtol=1e-4, atol=1e-5)
    found = network(images, torch.eye(2, len(VOC.classes))).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
