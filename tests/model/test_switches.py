"""Switches between the methods of the family: each acts, and none lets images change each other."""

from typing import Any

import pytest
import tiny
import torch

from model.cvf import CVF

SWITCHES: dict[str, dict[str, Any]] = {
    "dense": {"cam": "dense"},
    "dense, several parts": {"cam": "dense", "dense_parts": "qkv", "dense_std": 2.0},
    "dense, values": {"cam": "dense", "dense_parts": ""},
    "dense, several blocks": {"cam": "dense", "dense_parts": "qkv", "dense_blocks": 3},
    "surgery": {"cam": "dense", "dense_maps": "surgery"},
    "both": {"cam": "both"},
    "cosine": {"affinity_head": "cosine"},
    "distribution, matrix": {"distribution": "matrix"},
    "distribution, elements": {"distribution": "elements", "distribution_tau": 0.03},
}


def model(**choices: Any) -> CVF:
    torch.manual_seed(0)
    return tiny.cvf(**choices).eval()


@pytest.mark.parametrize("switch", SWITCHES.values(), ids=SWITCHES.keys())
@pytest.mark.parametrize("branches", ["clip", "fusion"])
def test_a_switch_changes_seeds_or_affinity(switch: dict[str, Any], branches: str) -> None:
    images, tags = tiny.batch()
    usual = model(branches=branches)(images, tags, True)
    switched = model(branches=branches, **switch)(images, tags, True)
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
    batch = model(**switch)(images, tags, True).labels.seeds
    alone = model(**switch)(images[2:], tags[2:], True).labels.seeds
    assert torch.allclose(batch.transition[2:], alone.transition, atol=1e-5)
    assert torch.allclose(batch.clip_cams[-1:], alone.clip_cams, atol=1e-4)


def test_both_is_the_mean_of_grad_cam_and_dense_maps() -> None:
    images, tags = tiny.batch()
    cams = [
        model(cam=cam)(images, tags, False).labels.seeds.clip_cams
        for cam in ("gradcam", "dense", "both")
    ]
    assert torch.allclose(cams[2], (cams[0] + cams[1]) / 2, atol=1e-5)


def test_maps_of_the_vit_alone_read_nothing_densely() -> None:
    images, tags = tiny.batch()
    usual = model(branches="vit")(images, tags, False).labels
    switched = model(branches="vit", cam="dense", distribution="matrix")(images, tags, False).labels
    assert torch.equal(usual.combined, switched.combined)
