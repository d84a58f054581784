"""The random view keeps image, mask and validity together."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from datasets.transforms import CLIP_MEAN, IMAGENET_MEAN, IMAGENET_STD, View, normalise


def gradient(height: int, width: int) -> np.ndarray:
    """Every pixel tells its place: red the row, green the column; blue is never the fill's."""
    image = np.full((height, width, 3), 7, np.uint8)
    image[..., 0] += np.arange(height, dtype=np.uint8)[:, None]
    image[..., 1] += np.arange(width, dtype=np.uint8)
    return image


def training_view(image, size, scale_range, rng, fill=IMAGENET_MEAN, longest=0):
    view = View.draw(*image.shape[:2], size, scale_range, rng, longest)
    return view.of_image(Image.fromarray(image), fill), view.valid()


def test_view_at_scale_one_is_an_exact_window_of_the_image():
    image, mirrored = gradient(90, 120), set()
    for seed in range(20):
        crop, valid = training_view(image, 32, (1, 1), np.random.default_rng(seed))
        assert valid.all()
        flip = crop[0, 0, 1] > crop[0, -1, 1]
        crop = crop[:, ::-1] if flip else crop
        y, x = crop[0, 0, :2] - 7
        np.testing.assert_array_equal(crop, image[y : y + 32, x : x + 32])
        mirrored.add(bool(flip))
    assert mirrored == {True, False}


def test_view_larger_than_the_image_is_padded_and_says_where():
    image, places = gradient(20, 100), set()
    for seed in range(20):
        crop, valid = training_view(image, 48, (1, 1), np.random.default_rng(seed), fill=(1, 2, 3))
        assert valid.sum() == 20 * 48
        np.testing.assert_array_equal(crop[~valid], np.broadcast_to([1, 2, 3], (28 * 48, 3)))
        assert (crop[valid][:, 2] == 7).all()
        places.add(int(valid.any(1).argmax()))
    assert len(places) > 3


def test_rescaled_view_equals_a_window_of_the_rescaled_image():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
    whole = np.asarray(Image.fromarray(image).resize((120, 90), Image.Resampling.BILINEAR)).astype(
        int
    )
    crop, _ = training_view(image, 40, (1.5, 1.5), rng)
    windows = np.lib.stride_tricks.sliding_window_view(whole, (40, 40, 3))[:, :, 0]
    errors = [np.abs(windows - view).max(axis=(2, 3, 4)).min() for view in (crop, crop[:, ::-1])]
    assert min(errors) <= 2


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1)])
def test_view_of_thin_images(shape):
    crop, valid = training_view(gradient(*shape), 32, (0.5, 2.0), np.random.default_rng(3))
    assert crop.shape == (32, 32, 3)
    assert valid.any()


def test_default_fill_is_the_mean_colour():
    crop, valid = training_view(gradient(4, 4), 16, (1, 1), np.random.default_rng(0))
    assert np.abs(crop[~valid] - np.array(IMAGENET_MEAN)).max() <= 0.5


def test_longest_is_a_bound_on_the_picture_before_it_is_rescaled():
    drawn = [
        View.draw(300, 400, 64, (1, 1), np.random.default_rng(0), longest)
        for longest in (0, 500, 400, 200, 100)
    ]
    assert [view.scale for view in drawn] == [1, 1, 1, 0.5, 0.25]


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 120),
    width=st.integers(1, 120),
    size=st.sampled_from([16, 32, 48]),
    low=st.floats(0.3, 2.0),
    longest=st.sampled_from([0, 40]),
    seed=st.integers(0, 2**32 - 1),
)
def test_image_mask_and_validity_stay_in_register(height, width, size, low, longest, seed):
    """Whatever is drawn: label k is painted in colour k, and each pixel of the crop shows the
    colour of its label.
    """
    view = View.draw(height, width, size, (low, 2 * low), np.random.default_rng(seed), longest)
    labels = np.zeros((height, width), np.uint8)
    labels[height // 2 :, : width // 2 + 1] = 1
    labels[: height // 2, width // 2 :] = 2
    colours = np.array([[0, 0, 0], [200, 0, 0], [0, 200, 0]], np.uint8)
    crop = view.of_image(Image.fromarray(colours[labels]), fill=(0, 0, 200))
    shown, valid = view.of_labels(labels, 255), view.valid()
    np.testing.assert_array_equal(shown == 255, ~valid)
    assert (crop[~valid] == (0, 0, 200)).all()
    inside = valid & (np.abs(crop.astype(int) - 100).min(-1) > 60)  # not in the blur of an edge
    np.testing.assert_array_equal(colours[shown[inside]] > 100, crop[inside] > 100)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), ratio=st.sampled_from([2, 4, 8]))
def test_a_smaller_rendition_shows_the_same_window(seed, ratio):
    rows, columns = np.mgrid[:240, :320]
    image = np.stack([rows, columns // 2, rows // 2 + columns // 4], -1).astype(np.uint8)
    view = View.draw(240, 320, 24, (0.1, 0.125), np.random.default_rng(seed))
    small = Image.fromarray(image).reduce(ratio)
    crops = [
        view.of_image(rendition, (0, 0, 0)).astype(int)
        for rendition in (Image.fromarray(image), small)
    ]
    assert np.abs(crops[0] - crops[1])[1:-1, 1:-1].max() <= 3


def test_normalise_by_hand():
    images = torch.full((2, 3, 1, 1), 200, dtype=torch.uint8)
    expected = [(200 - mean) / std for mean, std in zip(IMAGENET_MEAN, IMAGENET_STD)]
    torch.testing.assert_close(normalise(images)[1].flatten(), torch.tensor(expected))
    assert normalise(images, CLIP_MEAN, (1, 1, 1))[0, 0].item() == pytest.approx(
        200 - 0.48145466 * 255
    )
