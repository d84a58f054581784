"""DINOv2 as a second backbone: what it changes, what it costs when it is not there, which files it
is refused from.
"""

from collections.abc import Callable
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor
from vit_files import (
    deit,
    dino,
    dino_in_hugging_face_names,
    dino_in_timm_names,
    in_hugging_face_names,
    mctformer_plus,
)

from clip.resize import resize_tokens
from model.affinity import map_on_grid, unit_rows
from model.criterion import criterion
from model.cvf import CVF
from model.dino import dino_identity, load_dino
from model.method import Phase
from utils.common.errors import UserError
from utils.tools.benchmark.networks import STAGES

USES = ("features", "affinity", "both", "proxy")
ALIKE = {"cam": "dense", "proxy": "dino"}


def model(**choices: Any) -> CVF:
    torch.manual_seed(0)
    return tiny.cvf(dino=True, **choices).eval()


def of_use(use: str, **choices: Any) -> CVF:
    return model(dino_use=use, **(ALIKE if use == "proxy" else {}), **choices)


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("branches", ["clip", "fusion"])
def test_what_is_trained_gets_a_gradient_and_dino_gets_none(use: str, branches: str) -> None:
    images, tags = tiny.batch()
    network = of_use(use, branches=branches, w_cross=0.1 if use in ("features", "both") else 0.0)
    losses = criterion(network(images, tags, tiny.LATE), tags, method=network.method)
    sum(losses.values()).backward()
    for name, tensor in network.named_parameters():
        if name.startswith(("dino.", "clip.")):
            assert tensor.grad is None and not tensor.requires_grad
        elif name != "vit.alpha":
            assert tensor.grad is not None and tensor.grad.any(), name


def test_both_streams_pass_one_decoder_and_logits_are_their_mean() -> None:
    images, tags = tiny.batch()
    network = model(branches="clip", clip_layers="last")
    out = network(images, tags, tiny.LATE)
    clip = network.clip.features(images)
    seen = network.dino.look(images)
    assert seen.grid == (4, 3)  # 56 x 42 px of 64 x 48

    streams = [network.fusion([clip.tokens[-1][:, 1:]]), network.dino_fusion([seen.patches])]
    for stream, opinion in zip(streams, out.opinions, strict=True):
        torch.testing.assert_close(network.decoder(stream, (4, 3)), opinion)
    torch.testing.assert_close(out.logits, (out.opinions[0] + out.opinions[1]) / 2)
    fused = torch.cat(streams, dim=-1)
    torch.testing.assert_close(out.affinity, torch.sigmoid(fused @ fused.transpose(1, 2)))


def test_dropped_channels_of_the_streams_are_not_the_same() -> None:
    sites: list[int] = []

    class Drawn:
        def uniform(self, site: int, count: int) -> Tensor:
            sites.append(site)
            return torch.rand(3, count)

    images, tags = tiny.batch()
    network = model(fusion_dropout=0.5).train()
    network(images, tags, noise=Drawn())  # type: ignore[arg-type]
    assert len(set(sites)) == 2


@pytest.mark.parametrize("use", USES)
def test_segment_runs_dino_for_features_alone(use: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images, tags = tiny.batch()
    network = of_use(use)
    expected = network(images, tags).logits
    if use in ("affinity", "proxy"):
        monkeypatch.setattr(network.dino, "forward", None)
    with torch.inference_mode():
        torch.testing.assert_close(network.segment(images), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("use", USES)
def test_an_image_alone_is_as_in_a_batch(use: str) -> None:
    images, tags = tiny.batch()
    batch = of_use(use, reweight="prediction")(images, tags, tiny.LATE)
    alone = of_use(use, reweight="prediction")(images[2:], tags[2:], tiny.LATE)
    torch.testing.assert_close(batch.logits[2:], alone.logits, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(
        batch.labels.seeds.clip[-1:], alone.labels.seeds.clip, rtol=1e-3, atol=1e-5
    )


@pytest.mark.parametrize("after_switch", [False, True])
def test_its_attention_changes_the_affinity_and_nothing_else(after_switch: bool) -> None:
    images, tags = tiny.batch()
    torch.manual_seed(0)
    usual = tiny.cvf().eval()(images, tags, Phase(after_switch))
    out = model(dino_use="affinity")(images, tags, Phase(after_switch))
    torch.testing.assert_close(out.logits, usual.logits)
    seeds, before = out.labels.seeds, usual.labels.seeds
    torch.testing.assert_close(seeds.clip_cams, before.clip_cams)
    assert not torch.allclose(seeds.transition, before.transition)


def test_a_map_keeps_its_rows_on_another_grid() -> None:
    attention = torch.rand(2, 12, 12).softmax(dim=-1)
    torch.testing.assert_close(map_on_grid(attention, (4, 3), (4, 3)), attention)
    larger = map_on_grid(attention, (4, 3), (6, 5))
    assert larger.shape == (2, 30, 30)
    torch.testing.assert_close(larger.sum(dim=-1), torch.ones(2, 30))
    own = torch.zeros(1, 6, 6)
    own[0, :, 5] = 1  # all look at the last patch
    assert map_on_grid(own, (2, 3), (4, 6))[0].argmax(dim=-1).tolist() == [23] * 24


def test_tokens_on_their_own_grid_stay() -> None:
    tokens = torch.randn(2, 6, 5)
    assert resize_tokens(tokens, (2, 3), (2, 3)) is tokens
    ramp = torch.arange(4.0).view(1, 4, 1)
    assert resize_tokens(ramp, (1, 4), (1, 2)).flatten().tolist() == [0.5, 2.5]


def test_without_dino_nothing_of_it_is_built_or_run() -> None:
    """What DINO adds to tensors and stages is its own; everything else is as without it."""
    images, tags = tiny.batch()
    tensors, stages = [], []
    for network in (tiny.cvf().eval(), model()):
        tensors.append({name: tensor.shape for name, tensor in network.state_dict().items()})
        with torch.profiler.profile() as run:
            network(images, tags, tiny.LATE)
            network.segment(images)
        stages.append([event.name for event in run.events() if event.name in STAGES])

    assert not [name for name in tensors[0] if "dino" in name]
    others = {name: s for name, s in tensors[1].items() if not name.startswith("dino")}
    assert others == tensors[0]
    assert "DINO" not in stages[0] and stages[1].count("DINO") == 2
    # its features pass fusion and decoder like CLIP's
    counts = [{name: run.count(name) for name in STAGES} for run in stages]
    twice = ("fusion", "DINO")
    same = [name for name in STAGES if name not in twice]
    assert all(counts[0][name] == counts[1][name] for name in same)
    assert counts[1]["fusion"] == 2 * counts[0]["fusion"]


def test_dino_stays_in_eval_mode() -> None:
    network = model().train()
    assert not network.dino.training and network.dino_fusion.training


WITHOUT_SCALES = {name: t for name, t in dino().items() if ".ls" not in name}
OTHERS: dict[str, tuple[Callable[[], dict[str, Tensor]], str]] = {
    "CLIP": (lambda: {"visual.conv1.weight": torch.ones(1)}, "is a CLIP, which --clip_path takes"),
    "CLIP, named": (lambda: {"vision_model.a": torch.ones(1)}, "is a CLIP, which --clip_path"),
    "DeiT": (deit, "is a ViT without LayerScale, such as DeiT"),
    "named DeiT": (lambda: in_hugging_face_names(deit()), "a ViT without LayerScale, such as DeiT"),
    "patches": (lambda: dino(patch=16), "is a ViT with patches of 16 px, not 14"),
    "ViT": (lambda: WITHOUT_SCALES, "is a ViT without LayerScale, such as DeiT"),
    "MCTformer": (mctformer_plus, "is a trained class-token ViT, which --mct_path takes"),
    "CVF": (lambda: {"fusion.merge.bias": torch.ones(1)}, "is a checkpoint of this project"),
    "DINOv3": (
        lambda: {**dino(), "rope_embed.periods": torch.ones(1)},
        "is a ViT with rotary positions, such as DINOv3",
    ),
    "no table": (
        lambda: {name: t for name, t in dino().items() if name != "pos_embed"},
        "is no DINOv2, as it has no tensor pos_embed of 3 dimensions",
    ),
    "gated": (
        lambda: {**dino(), "blocks.0.mlp.fc1.weight": torch.ones(512, 64)},
        "is a DINOv2 with gated MLPs (ViT-g), which is not supported",
    ),
    "width": (lambda: dino(200), "is a ViT of width 200, no multiple of 64 channels"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_files_of_other_models_are_refused_and_named(case: str) -> None:
    state, said = OTHERS[case]
    with pytest.raises(UserError) as refused:
        load_dino(state(), "file.pth")
    text = str(refused.value)
    assert text.startswith("file.pth ") and said in text and "\n" not in text
    assert text.endswith(
        "give weights of a DINOv2 ViT-S/14, B/14 or L/14, with or without registers"
    )


def test_a_dino_has_one_identity_under_all_names() -> None:
    state = dino(registers=4)
    own = load_dino(state)
    images = torch.randn(2, 3, 60, 70)
    for renamed in (dino_in_hugging_face_names(state), dino_in_timm_names(state)):
        assert renamed.keys() != state.keys()
        other = load_dino(renamed)
        assert dino_identity(other) == dino_identity(own)
        torch.testing.assert_close(other.look(images).patches, own.look(images).patches)
    changed = load_dino({**state, "cls_token": state["cls_token"] + 1})
    assert dino_identity(changed) != dino_identity(own)


def test_attention_of_the_last_blocks_is_between_patches_alone() -> None:
    network = load_dino(dino(registers=2))
    seen = network.look(torch.randn(1, 3, 50, 70), maps=1)
    assert seen.grid == (3, 5) and seen.patches.shape == (1, 15, 64)
    assert len(seen.attention) == 1 and seen.attention[0].shape == (1, 15, 15)
    assert (unit_rows(seen.attention[0]).sum(dim=-1) - 1).abs().max() < 1e-5
