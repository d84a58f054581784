"""The whole method, wired from tiny random parts."""

import pytest
import tiny
import torch
from helpers import gradcam

from clip.blocks import ResidualBlock
from model.affinity import build_affinity, transition_matrix
from model.criterion import classifier_criterion, criterion
from model.method import Method, Phase
from model.outputs import Seeds
from utils.common.errors import UserError

BRANCHES = ["fusion", "clip", "vit"]


@pytest.mark.parametrize("after_switch", [False, True])
@pytest.mark.parametrize("branches", BRANCHES)
def test_everything_trained_gets_a_gradient_and_clip_gets_none(
    branches: str, after_switch: bool
) -> None:
    model, (images, tags) = tiny.cvf(branches=branches), tiny.batch()
    losses = criterion(model(images, tags, Phase(after_switch)), tags)
    assert set(losses) == {"seg", "affinity"} | ({"patch"} if branches != "clip" else set())
    sum(losses.values()).backward()
    without = {
        name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0
    }
    assert {name for name in without if not name.startswith("clip.")} == (
        {"vit.alpha"} if branches != "clip" else set()
    )
    assert not any(p.requires_grad or p.grad is not None for p in model.clip.parameters())


@pytest.mark.parametrize("branches", BRANCHES)
def test_segment_gives_the_logits_without_tags_cams_or_attention_maps(
    branches: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, (images, tags) = tiny.cvf(branches=branches).eval(), tiny.batch()
    expected = model(images, tags).logits
    monkeypatch.setattr(model.clip, "project", None)
    monkeypatch.setattr(ResidualBlock, "with_attention", None)
    if model.vit is not None:
        monkeypatch.setattr(model.vit, "forward", None)
    with torch.inference_mode():
        torch.testing.assert_close(model.segment(images), expected, rtol=1e-4, atol=1e-5)


def test_logits_are_mixed_in_the_learned_share() -> None:
    model, (images, _) = tiny.cvf().eval(), tiny.batch()
    with torch.no_grad():
        model.alpha.fill_(0.25)
        tokens = [tokens[:, 1:] for tokens in model.clip.features(images).tokens]
        decoder = model.decoder(model.fusion(tokens), (4, 3))
        wide = model.wide(model.vit.patch_features(images))
        expected = 0.25 * decoder + 0.75 * wide
        torch.testing.assert_close(model.segment(images), expected, rtol=1e-4, atol=1e-5)


def test_an_image_has_the_same_labels_alone_and_in_a_batch() -> None:
    model, (images, tags) = tiny.cvf().eval(), tiny.batch()
    together = model(images, tags, tiny.LATE).labels.combined
    for image in range(len(images)):
        alone = model(images[image, None], tags[image, None], tiny.LATE).labels.combined[0]
        assert (alone == together[image]).float().mean() > 0.99


def test_images_without_tags_are_background_and_train() -> None:
    model, (images, tags) = tiny.cvf(), tiny.batch()
    out = model(images, torch.zeros_like(tags), tiny.LATE)
    assert not out.labels.combined.any()
    assert all(torch.isfinite(loss) for loss in criterion(out, torch.zeros_like(tags)).values())


def test_padding_trains_nothing() -> None:
    model, (images, tags) = tiny.cvf().eval(), tiny.batch()
    valid = torch.zeros(3, 64, 48, dtype=torch.bool)
    losses = criterion(model(images, tags, valid=valid), tags)
    assert losses["seg"] == losses["affinity"] == 0


def test_labels_are_made_in_float32_without_autograd() -> None:
    model, (images, tags) = tiny.cvf(), tiny.batch()
    with torch.autocast("cpu", torch.bfloat16):
        out = model(images, tags, tiny.LATE)
        losses = criterion(out, tags)
    seeds = out.labels.seeds
    for tensor in (seeds.clip_cams, seeds.clip, seeds.vit_cams, seeds.vit, seeds.transition):
        assert tensor.dtype == torch.float32 and not tensor.requires_grad
    assert all(loss.dtype == torch.float32 and loss.requires_grad for loss in losses.values())


def test_seeds_name_the_branches_in_use() -> None:
    images, tags = tiny.batch()
    names = {
        "fusion": {"clip", "vit", "fused", "pseudo"},
        "clip": {"clip", "pseudo"},
        "vit": {"vit", "pseudo"},
    }
    for branches, expected in names.items():
        model = tiny.cvf(branches=branches).eval()
        labels = model.seeds(images, tags)
        assert set(labels) == expected and all(
            label.shape == (3, 64, 48) for label in labels.values()
        )
        with torch.no_grad():  # as `seeds` does: fused attention may round otherwise with gradients
            output = model(images, tags)
        assert torch.equal(labels["pseudo"], output.labels.combined)


def test_vit_cams_are_propagated_within_the_last_class_on_request() -> None:
    images, tags = tiny.batch()
    parts = tiny.cvf().eval()

    def seeds_with(mask: str) -> Seeds:
        parts.method = Method(propagation_mask=mask, par_iterations=0)
        return parts(images, tags).labels.seeds

    free, masked = seeds_with("none"), seeds_with("last_class")
    torch.testing.assert_close(free.clip, masked.clip)
    for row, (image, last) in enumerate([(0, 1), (0, 1), (2, 2)]):
        for seeds, cam in (
            (free, free.vit_cams[row]),
            (masked, masked.vit_cams[row] * masked.boxes[last]),
        ):
            torch.testing.assert_close(
                seeds.vit[row].flatten(), seeds.transition[image] @ cam.flatten()
            )


@pytest.mark.parametrize("block", [-1, -3])
def test_cams_are_read_at_the_chosen_block(block: int) -> None:
    model, (images, tags) = tiny.cvf(cam_block=block).eval(), tiny.batch()
    seeds = model(images, tags).labels.seeds
    stream, _ = model.clip.embed(images)
    for earlier in model.clip.blocks[:block]:
        stream = earlier(stream)
    cam = gradcam(model.clip, tiny.LOGIT_SCALE, stream, (4, 3), seeds.rows, model.text, block)
    torch.testing.assert_close(seeds.clip_cams, cam.cams, rtol=0, atol=1e-3)


def test_the_affinity_is_made_of_all_blocks_and_of_what_the_stage_asks_for() -> None:
    model, (images, tags) = tiny.cvf(branches="clip").eval(), tiny.batch()
    maps = [attention[:, 1:, 1:] for attention in model.clip.features(images, depth=4).attention]
    for after_switch in (False, True):
        out = model(images, tags, Phase(after_switch))
        expected = transition_matrix(
            build_affinity(maps, None, out.affinity, model.method, after_switch)
        )
        torch.testing.assert_close(out.labels.seeds.transition, expected)


def test_clip_stays_in_eval_mode_and_texts_out_of_the_state() -> None:
    model = tiny.cvf()
    assert model.training and model.fusion.training and not model.clip.training
    assert "text" not in model.state_dict() and "alpha" in model.state_dict()


def test_parts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="cam_block is 0; choose from -1 to -3"):
        tiny.cvf(cam_block=0)
    with pytest.raises(ValueError, match="cam_block is -4"):
        tiny.cvf(cam_block=-4)
    with pytest.raises(UserError, match="label_fusion is 'sum'; choose from scores, max_id"):
        Method(label_fusion="sum")
    clip_only = tiny.cvf(branches="clip")
    assert clip_only.vit is None and clip_only.alpha is None
    with pytest.raises(ValueError, match="branches 'clip' with vit ClassTokenViT"):
        type(clip_only)(
            clip_only.clip,
            1.0,
            clip_only.text,
            tiny.vit(),
            clip_only.fusion,
            clip_only.decoder,
            None,
            clip_only.method,
        )


def test_the_classifier_has_its_own_losses() -> None:
    images, tags = tiny.batch()
    losses = classifier_criterion(tiny.vit()(images), tags)
    assert set(losses) == {"cls", "patch", "contrast"}
    assert all(torch.isfinite(loss) and loss > 0 for loss in losses.values())


def test_a_few_steps_learn_the_labels() -> None:
    model, (images, tags) = tiny.cvf().eval(), tiny.batch()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser, history = torch.optim.AdamW(trained, lr=2e-3), []
    for _ in range(12):
        losses = criterion(model(images, tags), tags)
        optimiser.zero_grad()
        sum(losses.values()).backward()
        optimiser.step()
        history.append({name: loss.item() for name, loss in losses.items()})
    assert all(history[-1][name] < 0.9 * history[0][name] for name in ("seg", "patch"))


def test_permuting_the_classes_permutes_the_labels() -> None:
    torch.manual_seed(0)
    model, (images, tags) = tiny.cvf(branches="clip").eval(), tiny.batch()
    order = torch.tensor([3, 0, 4, 1, 2])
    labels = model(images, tags).labels.combined
    model.text[: tiny.CLASSES] = model.text[: tiny.CLASSES][order]
    permuted = model(images, tags[:, order]).labels.combined
    # of the background and each class
    place = torch.cat([torch.zeros(1, dtype=torch.long), order.argsort() + 1])
    expected = torch.where(labels == 255, labels, place[labels.clamp(max=tiny.CLASSES)])
    assert expected.unique().numel() > 2
    assert (
        permuted != expected
    ).float().mean() < 1e-3  # sums in another order may round a tie away
