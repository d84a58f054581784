"""Pixel-adaptive refinement against a loop over pixels, and what must hold for any image."""

import importlib.util
import math

import pytest
import torch
from torch import Tensor

from model import par
from model.par import at_once, one_by_one, refine, rounds_by_operations

DIRECTIONS = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]


def naive_round(image: Tensor, mask: Tensor, dilations: tuple[int, ...]) -> Tensor:
    """One round on image (3, H, W) and mask (C, H, W), in float64, by the definition."""
    image, mask = image.double(), mask.double()
    _, height, width = image.shape
    steps = [(d * y, d * x) for d in dilations for y, x in DIRECTIONS]
    distance = torch.tensor([math.hypot(*step) for step in steps], dtype=torch.float64)
    closeness = (-((distance / (distance.std() + 1e-8) / 0.3) ** 2)).softmax(0)
    out = torch.empty_like(mask)
    for y in range(height):
        for x in range(width):
            places = [
                (min(max(y + dy, 0), height - 1), min(max(x + dx, 0), width - 1))
                for dy, dx in steps
            ]
            colours = torch.stack([image[:, py, px] for py, px in places])
            difference = (colours - image[:, y, x]).abs() / (colours.std(0) + 1e-8) / 0.3
            weights = (-(difference**2).mean(1)).softmax(0) + 0.01 * closeness
            out[:, y, x] = sum(w * mask[:, py, px] for w, (py, px) in zip(weights, places))
    return out


def test_agrees_with_a_loop() -> None:
    images, masks = torch.randn(2, 3, 6, 7), torch.rand(2, 2, 6, 7)
    expected = torch.stack(
        [naive_round(i, naive_round(i, m, (1, 3)), (1, 3)) for i, m in zip(images, masks)]
    )
    refined = torch.stack(refine(images, masks, 2, (1, 3))).double()
    torch.testing.assert_close(refined, expected, rtol=0, atol=1e-6)


def test_flat_images_and_flat_neighbours_give_plain_means() -> None:
    image, masks = torch.zeros(1, 3, 5, 5), torch.rand(1, 1, 5, 5)
    dot = image.clone()
    dot[:, :, 2, 2] = 1 / 3
    for picture in (
        image,
        dot,
    ):  # the neighbours of the centre are alike, so no one of them is preferred
        around = masks[0, 0, 1:4, 1:4].sum() - masks[0, 0, 2, 2]
        refined = refine(picture, masks, 1, (1,))[0][0, 2, 2]
        assert abs(refined / 1.01 - around / 8) < 0.01


def test_masks_follow_the_edges_of_the_image() -> None:
    image = torch.zeros(1, 3, 16, 16)
    image[..., 8:] = 2.0
    masks = torch.zeros(1, 1, 16, 16)
    masks[..., :6] = 1.0  # falls short of the edge at column 8
    (refined,) = refine(image, masks, 10, (1, 2))
    assert (refined[..., 7] > 0.4).all() and (refined[..., 8:] < 0.1).all()


def test_every_image_and_channel_is_refined_for_itself() -> None:
    images, masks = torch.randn(3, 3, 12, 10), [torch.rand(c, 12, 10) for c in (3, 1, 2)]
    together = refine(images, masks, 3)
    for image, own, refined in zip(images, masks, together):
        for channel, alone in enumerate(own):
            torch.testing.assert_close(
                refined[channel], refine(image[None], [alone[None]], 3)[0][0]
            )


def test_masks_keep_their_size_and_no_rounds_change_nothing() -> None:
    images, masks = torch.randn(1, 3, 32, 48), torch.rand(1, 2, 2, 3)
    assert torch.equal(refine(images, masks, 0)[0], masks[0])
    assert refine(images, masks, 2)[0].shape == masks[0].shape


@pytest.mark.parametrize("gathered", [1, 2 * 3 * 16 * 120, 2**26])  # one image, two, all at a time
def test_at_once_is_the_same_as_one_by_one(monkeypatch: pytest.MonkeyPatch, gathered: int) -> None:
    monkeypatch.setattr(par, "_GATHERED", gathered)
    torch.manual_seed(0)
    images, masks = torch.randn(3, 3, 12, 10), [torch.rand(c, 12, 10) for c in (3, 1, 2)]
    expected = one_by_one(images, masks, 4, (1, 3))
    for one, other in zip(expected, at_once(images, masks, 4, (1, 3)), strict=True):
        torch.testing.assert_close(one, other)


def test_the_kernel_does_what_the_operations_do(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton", minversion="3.0", reason="cannot run kernels without a GPU")
    monkeypatch.setenv("TRITON_INTERPRET", "1")  # a module that is loaded now runs without a GPU
    found = importlib.util.find_spec("model.par_kernel")
    assert found is not None and found.loader is not None
    kernel = importlib.util.module_from_spec(found)
    found.loader.exec_module(kernel)

    torch.manual_seed(0)
    offsets = [(0, 1), (-3, 2), (24, -24), (0, -40)]
    weights, masks = torch.rand(2, 4, 30, 21).mT, torch.rand(5, 30, 21).mT  # not contiguous
    counts = [1, 2 * kernel._TOGETHER]
    expected = rounds_by_operations(masks, weights, counts, offsets, 3)
    torch.testing.assert_close(kernel.rounds(masks, weights, counts, offsets, 3), expected)
