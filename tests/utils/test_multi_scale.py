"""Scales, mirror images and padding around a segmenter that is known by formula."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from clip.resize import resize
from utils.inference.multi_scale import logits_of, multi_scale, pad, padding_of, resize_long

SIZES = [(1, 1), (1, 300), (300, 1), (33, 47), (16, 16), (31, 500), (64, 96)]


def patch_means(images: Tensor) -> Tensor:
    """A segmenter: three logits a patch of 16 px, the means of its colours. Refuses what CVF's
    towers refuse.
    """
    assert min(images.shape[-2:]) >= 32 and not any(side % 16 for side in images.shape[-2:])
    return torch.nn.functional.avg_pool2d(images, 16)


def constant(images: Tensor) -> Tensor:
    """A segmenter that says (1, -2) everywhere."""
    return (
        torch.tensor([1.0, -2.0])
        .view(1, 2, 1, 1)
        .expand(len(images), 2, *(s // 16 for s in images.shape[-2:]))
    )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("flip", [False, True])
def test_any_size_gives_logits_of_that_image(size: tuple[int, int], flip: bool) -> None:
    image = torch.randn(1, 3, *size)
    single, mean = multi_scale(patch_means, image, (1.0, 0.75, 1.5), flip)
    fits = not any(padding_of(*size))
    expected = (1, 3, size[0] // 16, size[1] // 16) if fits else (1, 3, *size)
    assert single.shape == mean.shape == expected
    assert torch.isfinite(mean).all()


@pytest.mark.parametrize("size", SIZES)
def test_a_constant_stays_constant(size: tuple[int, int]) -> None:
    for logits in multi_scale(constant, torch.randn(1, 3, *size), (0.5, 1.0, 2.0)):
        torch.testing.assert_close(
            logits, torch.tensor([1.0, -2.0]).view(1, 2, 1, 1).expand_as(logits)
        )


def test_the_mean_is_over_scales_and_mirror_images() -> None:
    image = torch.randn(1, 3, 64, 96)

    def turned(images: Tensor) -> Tensor:  # not symmetric: 0 at the left
        return patch_means(images) * torch.arange(images.shape[-1] // 16)

    single, mean = multi_scale(turned, image, (1.0, 0.5), flip=True)
    half = resize(image, (32, 48))
    plain = [turned(image), resize(turned(half), (4, 6))]
    mirrored = [turned(image.flip(3)).flip(3), resize(turned(half.flip(3)).flip(3), (4, 6))]
    torch.testing.assert_close(single, plain[0])
    torch.testing.assert_close(mean, sum(plain + mirrored) / 4)


def test_mirroring_twice_changes_nothing() -> None:
    image = torch.randn(1, 3, 64, 96)
    single, mean = multi_scale(patch_means, image, (1.0,), flip=True)
    torch.testing.assert_close(mean, single)
    torch.testing.assert_close(
        multi_scale(patch_means, image.flip(3), (1.0,), flip=True)[1].flip(3), mean
    )


def test_the_single_scale_is_the_first_of_the_list() -> None:
    image = torch.randn(1, 3, 64, 64)
    single, _ = multi_scale(patch_means, image, (0.5, 1.0))
    torch.testing.assert_close(single, patch_means(resize(image, (32, 32))))


def test_padding_is_cut_off_again() -> None:
    image = torch.randn(1, 3, 40, 50)
    expected = resize(patch_means(pad(image, 8, 14)), (48, 64))[..., :40, :50]
    torch.testing.assert_close(logits_of(patch_means, image), expected)


@given(st.integers(48, 130), st.integers(48, 130))
@settings(deadline=None, max_examples=40)
def test_padding_does_not_change_a_prediction_inside(height: int, width: int) -> None:
    image = torch.randn(1, 3, height, width)
    whole = height // 16 * 16, width // 16 * 16
    # further in than interpolation reaches from the next patch
    inside = (
        ...,
        slice(whole[0] - 8),
        slice(whole[1] - 8),
    )
    expected = resize(patch_means(image[..., : whole[0], : whole[1]]), whole)[inside]
    torch.testing.assert_close(
        resize(logits_of(patch_means, image), (height, width))[inside], expected
    )


def test_padding_reflects_or_repeats() -> None:
    row = torch.arange(4.0).view(1, 1, 1, 4)
    assert pad(row, 0, 3).flatten().tolist() == [0, 1, 2, 3, 2, 1, 0]
    assert pad(row, 0, 5).flatten().tolist() == [0, 1, 2, 3, 3, 3, 3, 3, 3]
    assert pad(row, 2, 0).shape == (1, 1, 3, 4)
    assert [padding_of(*size) for size in ((1, 1), (32, 33), (64, 80))] == [
        (31, 31),
        (0, 15),
        (0, 0),
    ]


@pytest.mark.parametrize(
    ("size", "long", "expected"),
    [
        ((100, 50), 512, (512, 256)),
        ((375, 500), 512, (384, 512)),
        ((1, 300), 150, (1, 150)),
        ((7, 7), 3, (3, 3)),
        ((98, 49), 512, (512, 256)),
    ],
)
def test_the_long_side_is_what_was_asked(
    size: tuple[int, int], long: int, expected: tuple[int, int]
) -> None:
    assert resize_long(torch.randn(1, 3, *size), long).shape[-2:] == expected


def test_the_published_way_leaves_the_rest_of_a_patch_unseen() -> None:
    image, seen = torch.randn(1, 3, 45, 70), []

    def segment(images: Tensor) -> Tensor:
        seen.append(images.shape[-2:])
        return torch.nn.functional.avg_pool2d(images, 16)

    single, _ = multi_scale(segment, image, (1.0,), padded=False)
    assert seen == [(45, 70)] and single.shape[-2:] == (2, 4)
    multi_scale(segment, torch.randn(1, 3, 5, 70), (1.0,), padded=False)
    assert seen[1] == (32, 70)  # less than two patches would not do


def test_a_far_too_large_picture_is_averaged() -> None:
    stripes = torch.arange(512).remainder(2).float().expand(1, 3, 512, 512)
    assert (resize_long(stripes, 64) - 0.5).abs().max() < 0.05
