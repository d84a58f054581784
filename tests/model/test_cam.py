"""Grad-CAM of a whole batch against one image, one class at a time."""

import pytest
import tiny
import torch
from helpers import gradcam
from torch import Tensor

from clip.model import VisionTransformer
from model.cam import normalise, text_probabilities
from model.class_rows import ClassRows


def naive_cam(
    visual: VisionTransformer,
    tokens: Tensor,
    tagged: list[int],
    number: int,
    text: Tensor,
    block: int,
) -> tuple[Tensor, Tensor]:
    """Channel weights and CAM (h * w) of one class of one image, tokens (1, T, C), by the
    definition.
    """
    blocks = list(visual.blocks)[block:]
    activations = blocks[0].ln_1(tokens).detach().requires_grad_()
    stream = blocks[0].mix(tokens, blocks[0].attn(activations))
    for later in blocks[1:]:
        stream = later(stream)
    image = visual.project(stream)[0, 1:].mean(0)
    candidates = [*tagged, *range(tiny.CLASSES, len(text))]
    logits = torch.stack([torch.cosine_similarity(image, text[c], dim=0) for c in candidates])
    probability = (logits * torch.tensor(tiny.LOGIT_SCALE).exp()).softmax(0)[
        candidates.index(number)
    ]
    gradient = torch.autograd.grad(probability, activations)[0][0, 1:]
    weights = gradient.mean(0)
    cam = torch.relu(activations[0, 1:].detach() @ weights)
    return weights, (cam - cam.min()) / (cam.max() - cam.min())


@pytest.mark.parametrize("block", [-1, -2])
def test_a_batch_agrees_with_one_class_at_a_time(block: int) -> None:
    visual, text = tiny.tower(), tiny.texts()
    tokens = torch.randn(3, 13, 128)
    _, tags = tiny.batch()
    cam = gradcam(visual, tiny.LOGIT_SCALE, tokens, (4, 3), ClassRows.from_tags(tags), text, block)
    for row, (image, number, tagged) in enumerate([(0, 1, [1, 3]), (0, 3, [1, 3]), (2, 0, [0])]):
        weights, expected = naive_cam(visual, tokens[image, None], tagged, number, text, block)
        torch.testing.assert_close(cam.channel_weights[row], weights, rtol=1e-3, atol=1e-8)
        torch.testing.assert_close(cam.cams[row].flatten(), expected, rtol=0, atol=1e-4)


def test_images_without_tags_have_no_rows_but_probabilities() -> None:
    visual, tokens = tiny.tower(), torch.randn(3, 13, 128)
    _, tags = tiny.batch()
    for chosen in (tags, torch.zeros_like(tags)):
        rows = ClassRows.from_tags(chosen)
        cam = gradcam(visual, tiny.LOGIT_SCALE, tokens, (4, 3), rows, tiny.texts())
        assert len(cam.cams) == int(chosen.sum())
        torch.testing.assert_close(cam.probs.sum(1), torch.ones(3))


def test_probabilities_are_shared_by_tagged_classes_and_background_alone() -> None:
    patches, text = torch.randn(2, 6, 64), tiny.texts()
    allowed = torch.ones(2, len(text), dtype=torch.bool)
    allowed[0, 2] = False
    probs = text_probabilities(patches, text, tiny.LOGIT_SCALE, allowed)
    torch.testing.assert_close(probs.sum(1), torch.ones(2))
    assert probs[0, 2] == 0 and (probs[1] > 0).all()
    text[2] = -text[2]
    torch.testing.assert_close(
        text_probabilities(patches, text, tiny.LOGIT_SCALE, allowed)[0], probs[0]
    )


def test_works_without_autograd_and_leaves_no_graph() -> None:
    with torch.no_grad():
        rows = ClassRows.from_tags(torch.ones(1, tiny.CLASSES))
        cam = gradcam(
            tiny.tower(), tiny.LOGIT_SCALE, torch.randn(1, 13, 128), (4, 3), rows, tiny.texts()
        )
    tensors = [cam.cams, cam.probs, cam.channel_weights, cam.activations]
    assert not any(tensor.requires_grad for tensor in tensors)
    assert cam.channel_weights.abs().max() > 0


def test_half_precision_stays_near() -> None:
    visual, text, tokens = tiny.tower(), tiny.texts(), torch.randn(1, 13, 128)
    rows = ClassRows.from_tags(torch.ones(1, tiny.CLASSES))
    full = gradcam(visual, tiny.LOGIT_SCALE, tokens, (4, 3), rows, text)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = gradcam(visual, tiny.LOGIT_SCALE, tokens, (4, 3), rows, text)
    assert mixed.cams.dtype == mixed.probs.dtype == torch.float32
    torch.testing.assert_close(mixed.cams, full.cams, rtol=0, atol=0.05)
    torch.testing.assert_close(mixed.probs, full.probs, rtol=0.02, atol=1e-3)


def test_normalise_by_hand() -> None:
    maps = torch.tensor([[[1.0, 3.0], [2.0, 5.0]], [[7.0, 7.0], [7.0, 7.0]]])
    torch.testing.assert_close(normalise(maps)[0], torch.tensor([[0.0, 0.5], [0.25, 1.0]]))
    assert not normalise(maps)[1].any()
    assert normalise(maps, eps=4.0)[0].max() == 0.5


def test_rows_by_hand() -> None:
    rows = ClassRows.from_tags(torch.tensor([[0, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]]))
    assert rows.index.tolist() == [[0, 1], [0, 3], [2, 0]] and rows.last.tolist() == [1, 1, 2]
    values = torch.tensor([5.0, 6.0, 7.0])
    assert [own.tolist() for own in rows.by_image(values)] == [[5, 6], [], [7]]
    assert rows.pick(torch.arange(12).view(3, 4)).tolist() == [1, 3, 8]
