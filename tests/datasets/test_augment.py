"""The views of stage 1: within the picture, a function of seed, iteration and image, and varied."""

import copy
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.augment import AREA, ASPECT, ERASED, ClassifierImages, erase, policy, random_area
from datasets.lists import Item
from datasets.transforms import IMAGENET_MEAN, IMAGENET_STD


@pytest.fixture
def images(tmp_path: Path) -> ClassifierImages:
    """Three pictures of noise, of different sizes, in views of 64 px."""
    items = []
    for number, (width, height) in enumerate([(90, 60), (40, 120), (33, 33)]):
        noise = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
        file = tmp_path / f"{number}.png"
        Image.fromarray(noise).save(file)
        items.append(Item(file.stem, file, None))
    return ClassifierImages(items, np.ones((3, 2), bool), 64, seed=5)


def test_a_view_depends_on_seed_iteration_and_image_alone(images: ClassifierImages) -> None:
    expected = [images[7, index]["image"] for index in range(3)]
    for seed in (1, 2):  # of the generators that the policy draws from
        random.seed(seed)
        np.random.seed(seed)
        for index in (2, 0, 1):
            assert torch.equal(images[7, index]["image"], expected[index])
    assert not torch.equal(images[8, 0]["image"], expected[0])


def test_global_generators_go_on_as_if_nothing_had_been_drawn(images: ClassifierImages) -> None:
    random.seed(3)
    np.random.seed(3)
    expected = random.random(), np.random.random()
    random.seed(3)
    np.random.seed(3)
    images[0, 0]
    assert (random.random(), np.random.random()) == expected


@pytest.mark.parametrize(("height", "width"), [(60, 90), (500, 375), (33, 33), (10, 400), (1, 1)])
def test_areas_lie_within_the_picture(height: int, width: int) -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        view = random_area(height, width, 32, rng)
        left, top, right, bottom = view.window
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        assert view.valid().all()


def test_areas_have_the_published_sizes_and_aspects() -> None:
    rng = np.random.default_rng(0)
    windows = np.array([random_area(400, 400, 32, rng).window for _ in range(2000)])
    widths = windows[:, 2] - windows[:, 0]
    heights = windows[:, 3] - windows[:, 1]
    shares = widths * heights / 400**2
    assert AREA[0] - 0.01 < shares.min() < 0.1
    assert 0.9 < shares.max() <= 1
    aspects = widths / heights
    assert ASPECT[0] - 0.02 < aspects.min() < 0.8
    assert 1.25 < aspects.max() < ASPECT[1] + 0.02


def test_a_picture_too_narrow_for_any_area_shows_its_middle_size() -> None:
    left, top, right, bottom = random_area(10, 400, 32, np.random.default_rng(0)).window
    assert (bottom - top, right - left) == (10, 13)


def test_a_quarter_of_the_views_has_a_rectangle_of_noise() -> None:
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(2000):
        crop = erase(np.zeros((64, 64, 3), np.uint8), rng, IMAGENET_MEAN)
        shares.append(crop.any(axis=2).mean())
    touched = np.array(shares)[np.array(shares) > 0]
    assert abs(len(touched) / 2000 - ERASED) < 0.03
    assert touched.min() > 0.01
    assert 0.25 < touched.max() < 0.35


def test_noise_has_imagenets_statistics() -> None:
    rng = np.random.default_rng(0)
    pixels = []
    while len(pixels) < 20:
        crop = erase(np.zeros((64, 64, 3), np.uint8), rng, IMAGENET_MEAN)
        if crop.any():
            pixels.append(crop[crop.any(axis=2)])
    noise = np.concatenate(pixels)
    assert noise.mean(axis=0) == pytest.approx(IMAGENET_MEAN, abs=2)
    assert noise.std(axis=0) == pytest.approx(IMAGENET_STD, rel=0.07)  # cut to 0..255


def test_every_operation_works_at_its_greatest_strength() -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    for operation in policy(64, (124, 116, 104)).ops:
        strongest = copy.copy(operation)
        strongest.prob, strongest.magnitude, strongest.magnitude_std = 1, 99, 0
        assert strongest(picture).size == (64, 64), operation


def test_views_change_their_colours_but_not_their_tags(images: ClassifierImages) -> None:
    sample = images[3, 1]
    assert sample["image"].shape == (3, 64, 64)
    assert sample["image"].dtype == torch.uint8
    assert sample["tags"].tolist() == [1, 1]
    means = [images[iteration, 1]["image"].float().mean().item() for iteration in range(30)]
    assert np.std(means) > 10  # solarised, inverted, brightened and darkened views
