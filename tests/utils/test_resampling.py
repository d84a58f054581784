"""Bounds of the mIoU of some images: by hand where there are two, and by drawing subsets."""

import math

import pytest
import torch

from utils.metrics import ConfusionMatrix
from utils.resampling import bounds, resampled_miou


def matrix(*counts: list[int]) -> ConfusionMatrix:
    """Counts of one image, rows = truth."""
    return ConfusionMatrix.from_counts(list(counts))


RIGHT = matrix([0, 0], [0, 100])  # all of class 1 is found
MISSED = matrix([0, 0], [100, 0])  # none of it is


def test_two_images_give_the_three_values_that_can_be_drawn() -> None:
    values = resampled_miou([RIGHT, MISSED], draws=4000)
    shares = {value: (values == value).double().mean().item() for value in (0.0, 0.5, 1.0)}
    assert sum(shares.values()) == 1.0
    assert shares == pytest.approx({0.0: 0.25, 0.5: 0.5, 1.0: 0.25}, abs=0.03)


def test_bounds_lie_about_the_miou_of_the_images() -> None:
    low, high = bounds([RIGHT, MISSED], 0.95)
    shift = 0.5 - resampled_miou([RIGHT, MISSED]).mean().item()
    assert (low, high) == pytest.approx((0.0 + shift, 1.0 + shift))
    assert bounds([RIGHT, RIGHT], 0.95) == (1.0, 1.0)


def test_a_draw_counts_the_classes_of_its_own_truth() -> None:
    """Background is in the second image alone: where that is not drawn, class 1 is all there is."""
    other = matrix([50, 50], [0, 0])  # half of the background is taken for class 1
    both = ((50 / 100) + 100 / 150) / 2
    values = set(resampled_miou([RIGHT, other]).tolist())
    assert {round(value, 6) for value in values} == {1.0, 0.5, round(both, 6)}


def test_bounds_of_subsets_hold_the_number_of_all_images() -> None:
    torch.manual_seed(0)
    hits = torch.randint(0, 101, (600, 2)).tolist()
    images = [matrix([a, 100 - a], [100 - b, b]) for a, b in hits]
    total = ConfusionMatrix.sum_of(images)
    held = 0
    for first in range(20):
        low, high = bounds(images[first::20], 0.95)
        held += low <= total.miou() <= high
    assert 16 <= held <= 20
    low, high = bounds(images, 0.95)
    assert 0 < high - low < 0.05 and not math.isnan(low)
