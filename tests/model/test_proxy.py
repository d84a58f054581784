"""Proxies: whose features say which patches a dense read-out looks at, and CAMs by prediction."""

from typing import Any

import pytest
import tiny
import torch
from torch import Tensor

from model.class_rows import ClassRows
from model.cvf import CVF
from model.dense import DenseReadout, dense_tokens, tokens_by_proxy
from model.method import Method, Phase
from model.predictions import cam_weights
from model.proxy import cosine_affinity, proxy_attention, proxy_features
from model.seeds import SeedMaker
from utils.common.errors import UserError

SOURCES = ("clip", "vit", "dino", "learned")


def model(proxy: str, **choices: Any) -> CVF:
    torch.manual_seed(0)
    settings: dict[str, Any] = {"cam": "dense", "dino": True, "dino_use": "proxy", **choices}
    return tiny.cvf(proxy=proxy, **settings).eval()


def cams(network: CVF, phase: Phase = tiny.LATE) -> Tensor:
    images, tags = tiny.batch()
    found = network(images, tags, phase).labels.seeds.clip_cams
    assert torch.isfinite(found).all() and found.amin() >= 0 and found.amax() <= 1
    return found


@pytest.mark.parametrize("parts", ["k", "", "proxy"])
@pytest.mark.parametrize("proxy", SOURCES)
def test_each_proxy_gives_maps_of_its_own(proxy: str, parts: str) -> None:
    own = cams(model(proxy, dense_parts=parts))
    usual = cams(model("none", dense_parts="k" if parts == "proxy" else parts))
    assert own.shape == usual.shape and not torch.allclose(own, usual)
    other = cams(model("clip" if proxy != "clip" else "dino", dense_parts=parts))
    assert not torch.allclose(own, other)


@pytest.mark.parametrize("proxy", SOURCES)
def test_with_several_blocks_and_surgery_too(proxy: str) -> None:
    several = cams(model(proxy, dense_blocks=2, dense_maps="surgery"))
    assert not torch.allclose(several, cams(model("none", dense_blocks=2, dense_maps="surgery")))
    cams(model(proxy, dense_parts="proxy", dense_maps="surgery"))


@pytest.mark.parametrize("proxy", SOURCES)
@pytest.mark.parametrize("parts", ["k", "proxy"])
def test_an_image_alone_has_the_maps_that_it_has_in_a_batch(proxy: str, parts: str) -> None:
    images, tags = tiny.batch()
    batch = model(proxy, dense_parts=parts)(images, tags, tiny.LATE).labels.seeds.clip_cams
    alone = model(proxy, dense_parts=parts)(images[2:], tags[2:], tiny.LATE).labels.seeds.clip_cams
    torch.testing.assert_close(batch[-1:], alone, rtol=0, atol=1e-4)


def test_the_predicted_affinity_is_made_in_float32_under_autocast() -> None:
    fused = torch.randn(2, 12, 32) + 3.0  # alike, so that what is left of their mean is small
    expected = cosine_affinity(fused)
    with torch.autocast("cpu", torch.bfloat16):
        found = cosine_affinity(fused)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_a_learned_proxy_begins_at_the_switch_over() -> None:
    before = cams(model("learned"), Phase())
    torch.testing.assert_close(before, cams(model("none"), Phase()))
    alone = cams(model("learned", dense_parts="proxy"), Phase())
    torch.testing.assert_close(alone, cams(model("none", dense_parts=""), Phase()))


@pytest.mark.parametrize(
    ("constant", "value"), [("proxy_beta", 1.3), ("proxy_gamma", 9.0), ("proxy_block", -2)]
)
def test_its_constants_act(constant: str, value: float) -> None:
    assert not torch.allclose(cams(model("clip", **{constant: value})), cams(model("clip")))


def test_the_proxy_of_clip_is_the_output_of_its_block(monkeypatch: pytest.MonkeyPatch) -> None:
    images, tags = tiny.batch()
    network = model("clip", proxy_block=-3)
    kept: list[Any] = []
    monkeypatch.setattr(SeedMaker, "seeds", lambda _, views, tags: kept.append(views))
    monkeypatch.setattr(network, "_labels", lambda *_: None)
    network(images, tags, tiny.LATE)
    found = proxy_features(kept[0], network.method)
    assert found is not None
    stream, grid = network.clip.embed(images)
    for block in network.clip.blocks[:2]:  # blocks 1 and 2 of 4
        stream = block(stream)
    torch.testing.assert_close(found[0], stream[:, 1:])
    assert found[1] == grid == (4, 3)


def test_patches_below_the_mean_get_nothing() -> None:
    features = torch.tensor([[[1.0, 0], [1, 0], [0, 1]]])  # cosines 1, 0; mean 5/9
    attention = proxy_attention(features, scale=3.0)[0]
    assert attention[0].tolist() == pytest.approx([0.5, 0.5, 0])
    assert attention[2].tolist() == pytest.approx([0, 0, 1])


def test_a_proxy_alone_on_clips_own_grid_is_the_values_mixed_by_it() -> None:
    """Attention that is the identity leaves each patch its own value."""
    visual = tiny.tower()
    tokens = torch.randn(1, 13, 128)
    found = tokens_by_proxy(visual, tokens, (4, 3), torch.eye(12)[None], (4, 3))
    expected = dense_tokens(visual, tokens, (4, 3), DenseReadout(parts=""))
    torch.testing.assert_close(found[:, 1:], expected[:, 1:], rtol=1e-4, atol=1e-5)
    last = visual.project(visual.blocks[-1](tokens))
    torch.testing.assert_close(found[:, :1], last[:, :1])


REFUSED = {
    "nothing reads it": ({"proxy": "clip"}, "--proxy clip acts in a dense read-out of CLIP, and"),
    "no CLIP maps": (
        {"proxy": "clip", "cam": "dense", "branches": "vit"},
        "acts in a dense read-out of CLIP, and there is none",
    ),
    "no ViT": (
        {"proxy": "vit", "cam": "dense", "branches": "clip"},
        "--branches clip leaves out; use another --proxy",
    ),
    "none": ({"dense_parts": "proxy"}, "--dense_parts proxy has no --proxy; name one"),
    "several blocks": (
        {"proxy": "clip", "cam": "dense", "dense_parts": "proxy", "dense_blocks": 2},
        "reads the last block by the proxy alone; use --dense_blocks 1",
    ),
    "no boxes": (
        {"boxes": False, "propagation_mask": "last_class"},
        "--propagation_mask last_class takes the boxes of CLIP's CAMs, which --boxes false",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_settings_that_exclude_each_other_are_refused(case: str) -> None:
    settings, said = REFUSED[case]
    with pytest.raises(UserError) as refused:
        Method(**settings)
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_a_cam_is_weighted_by_the_probability_of_its_class() -> None:
    logits = torch.tensor([0.1, 0.2, 0.3, 0.4]).log().view(1, 4, 1, 1)
    rows = ClassRows.from_tags(torch.tensor([[1.0, 0, 1]]))
    assert cam_weights(logits, rows, "all").flatten().tolist() == pytest.approx([0.2, 0.4])
    expected = [0.2 / 0.7, 0.4 / 0.7]  # of background and both tags
    assert cam_weights(logits, rows, "tags").flatten().tolist() == pytest.approx(expected)


def test_weights_act_before_the_cam_spreads_and_boxes_stay() -> None:
    images, tags = tiny.batch()
    torch.manual_seed(0)
    usual = tiny.cvf().eval()(images, tags, tiny.LATE)
    torch.manual_seed(0)
    network = tiny.cvf(reweight="prediction").eval()
    out = network(images, tags, tiny.LATE)
    seeds, before = out.labels.seeds, usual.labels.seeds
    assert torch.equal(seeds.boxes, before.boxes)
    torch.testing.assert_close(seeds.clip_cams, before.clip_cams)

    weights = cam_weights(out.logits, seeds.rows, "tags")
    first = seeds.clip_cams[0] * weights[0] * seeds.boxes[0]
    expected = (seeds.transition[0] @ first.flatten()).view(4, 3)
    torch.testing.assert_close(seeds.clip[0], expected)
    own = seeds.vit_cams[0] * weights[0]
    expected = (seeds.transition[0] @ own.flatten()).view(4, 3)
    torch.testing.assert_close(seeds.vit[0], expected)


def test_without_boxes_a_cam_spreads_from_everywhere() -> None:
    images, tags = tiny.batch()
    torch.manual_seed(0)
    seeds = tiny.cvf(boxes=False).eval()(images, tags, tiny.LATE).labels.seeds
    assert seeds.boxes is None
    expected = (seeds.transition[0] @ seeds.clip_cams[0].flatten()).view(4, 3)
    torch.testing.assert_close(seeds.clip[0], expected)


def test_a_skipped_block_changes_cams_and_the_last_map() -> None:
    images, tags = tiny.batch()
    found = []
    for skip in (0, 1):
        torch.manual_seed(0)
        found.append(tiny.cvf(cam_skip=skip).eval()(images, tags).labels.seeds)
    assert not torch.allclose(found[0].clip_cams, found[1].clip_cams)
    assert not torch.allclose(found[0].transition, found[1].transition)


def test_patches_that_are_all_alike_keep_to_themselves() -> None:
    flat = torch.ones(2, 6, 8)
    torch.testing.assert_close(proxy_attention(flat, shift=1.2), torch.eye(6).expand(2, 6, 6))
