"""Outlines of regions cover the pixels they were made from, by the rules of three tools."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image, ImageDraw
from scipy import ndimage

from datasets.outlines import regions, rings
from datasets.polygons import polygon_pixels
from datasets.specs import IGNORE

INSET = 0.25
LABELS = st.one_of(
    arrays(
        np.uint8,
        array_shapes(min_dims=2, max_dims=2, max_side=12),
        elements=st.sampled_from([0, 1, 1, 1, 2, IGNORE]),
    ),
    arrays(  # regions with holes rather than islands
        np.uint8,
        array_shapes(min_dims=2, max_dims=2, min_side=5, max_side=12),
        elements=st.sampled_from([1] * 7 + [0]),
    ),
)


def by_coco(ring: np.ndarray, height: int, width: int) -> np.ndarray:
    return polygon_pixels([ring.ravel()], height, width, "ring")


def by_labelme(ring: np.ndarray, height: int, width: int) -> np.ndarray:
    """As LabelMe draws a polygon: Pillow's, with its outline."""
    mask = Image.new("L", (width, height))
    ImageDraw.Draw(mask).polygon([tuple(point) for point in ring.tolist()], outline=1, fill=1)
    return np.array(mask) > 0


def by_yolo(ring: np.ndarray, height: int, width: int) -> np.ndarray:
    """As Ultralytics draws a polygon: OpenCV's, of coordinates rounded down."""
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [ring.astype(np.int32)], 1)
    return mask > 0


def painted(labels: np.ndarray, tolerance: float, inset: float, draw: Callable) -> np.ndarray:
    """Labels that the outlines of a label map give."""
    numbers, of_region = regions(labels)
    found = np.zeros_like(labels)
    for label, ring in zip(of_region, rings(numbers, tolerance, inset), strict=True):
        pixels = draw(ring, *labels.shape)
        assert pixels.any()
        found[pixels] = label
    return found


def way_to_border(labels: np.ndarray) -> np.ndarray:
    """From the middle of each pixel to the nearest edge at which the label changes, px."""
    fine = np.kron(np.pad(labels.astype(int), 1, constant_values=-1), np.ones((8, 8), int))
    edges = np.zeros(fine.shape, bool)
    edges[1:] |= fine[1:] != fine[:-1]
    edges[:, 1:] |= fine[:, 1:] != fine[:, :-1]
    return ndimage.distance_transform_edt(~edges)[12:-8:8, 12:-8:8] / 8


@given(LABELS)
def test_regions_are_what_hangs_together_by_sides(labels: np.ndarray) -> None:
    numbers, of_region = regions(labels)
    total = 0
    for label in set(labels.ravel().tolist()) - {0, IGNORE}:
        expected, count = ndimage.label(labels == label)
        pairs = {(a, b) for a, b in zip(expected.ravel(), numbers.ravel()) if a}
        assert len(pairs) == count and (of_region[[b - 1 for _, b in pairs]] == label).all()
        total += count
    assert len(of_region) == total and not numbers[np.isin(labels, (0, IGNORE))].any()


@settings(max_examples=200)
@given(LABELS)
def test_exact_outlines_give_the_same_pixels_by_every_rule(labels: np.ndarray) -> None:
    expected = np.where(labels == IGNORE, 0, labels)
    np.testing.assert_array_equal(painted(labels, 0, 0, by_coco), expected)
    for draw in (by_coco, by_labelme, by_yolo):
        np.testing.assert_array_equal(painted(labels, 0, INSET, draw), expected)


@settings(max_examples=200)
@given(LABELS, st.sampled_from([0.5, 1.0, 2.0]))
def test_simplified_outlines_change_pixels_within_the_tolerance(
    labels: np.ndarray, tolerance: float
) -> None:
    changed = painted(labels, tolerance, 0, by_coco) != np.where(labels == IGNORE, 0, labels)
    assert (way_to_border(labels)[changed] <= tolerance + 1 / 8).all()


@pytest.mark.parametrize("tolerance", [1.0, 2.5])
def test_no_gap_opens_between_two_regions(tolerance: float) -> None:
    row, column = np.mgrid[:60, :80]
    waves = 30 + 8 * np.sin(column / 9) + 3 * np.cos(column / 2)
    labels = np.where(row < waves, 1, 2).astype(np.uint8)
    labels[np.hypot(row - 45, column - 40) < 9] = 3  # in a hole
    numbers, _ = regions(labels)
    found = rings(numbers, tolerance)
    times = sum(by_coco(ring, *labels.shape).astype(int) for ring in found)
    assert sum(map(len, found)) < sum(map(len, rings(numbers))) / 2
    assert (times != 1).sum() <= 4  # where a keyhole begins, one side has a vertex more


def test_a_nested_ring_is_joined_to_what_lies_around_it() -> None:
    labels = np.zeros((15, 15), np.uint8)
    for depth in range(7):
        labels[depth : 15 - depth, depth : 15 - depth] = 1 + depth % 2
    np.testing.assert_array_equal(painted(labels, 0, 0, by_coco), labels)
    assert len(rings(regions(labels)[0])) == 7
