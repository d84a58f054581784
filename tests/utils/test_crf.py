"""The lattice filter against exact Gaussians, the dense CRF against an exact one and against
pydensecrf.
"""

import sys
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from utils.common.errors import UserError
from utils.inference.crf import PLAUSIBLE, CRFSettings, _spatial, crf, dense_crf, pydensecrf
from utils.inference.lattice import Lattice


def exact_filter(features: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Symmetrically normalised Gaussian filter, all pairs. features (d, N), values (N, C)."""
    kernel = torch.exp(-0.5 * torch.cdist(features.T, features.T) ** 2)
    norm = kernel.sum(1).rsqrt()
    return norm[:, None] * (kernel @ (norm[:, None] * values))


def loop_filter(features: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The lattice filter before normalisation, point by point. features (d, N), values (N, C),
    float64.
    """
    d = len(features)
    i = np.arange(1, d + 1)
    corners: list[list[tuple[tuple[int, ...], float]]] = []
    for point in features.T * np.sqrt(2 / 3) * (d + 1) / np.sqrt(i * (i + 1)):
        high = np.array([point[j:].sum() - (j * point[j - 1] if j else 0) for j in range(d + 1)])
        origin = np.round(high / (d + 1)) * (d + 1)
        order = list(np.argsort(origin - high))
        while origin.sum() > 0:
            origin[order[-1]] -= d + 1
            order.insert(0, order.pop())
        while origin.sum() < 0:
            origin[order[0]] += d + 1
            order.append(order.pop(0))
        share = (high - origin)[order] / (d + 1)
        shares = [
            1 - share[0] + share[d],
            *(share[d - k] - share[d - k + 1] for k in range(1, d + 1)),
        ]
        keys = []
        for k in range(d + 1):
            key = origin + k
            key[order[d + 1 - k :]] -= d + 1
            keys.append(tuple(key.astype(int)))
        corners.append(list(zip(keys, shares)))
    lattice = {key: np.zeros(values.shape[1]) for point in corners for key, _ in point}
    for point, value in zip(corners, values):
        for key, part in point:
            lattice[key] = lattice[key] + part * value
    for axis in range(d + 1):
        step = np.full(d + 1, -1)
        step[axis] = d
        near = [
            {key: lattice.get(tuple(key + sign * step), 0) for key in lattice} for sign in (1, -1)
        ]
        lattice = {
            key: value + 0.5 * (near[0][key] + near[1][key]) for key, value in lattice.items()
        }
    return np.array([sum(part * lattice[key] for key, part in point) for point in corners])


def exact_crf(image: torch.Tensor, probs: torch.Tensor, s: CRFSettings) -> torch.Tensor:
    count, height, width = probs.shape
    place = (
        torch.stack(torch.meshgrid(torch.arange(width), torch.arange(height), indexing="xy"))
        .flatten(1)
        .float()
    )
    colour = image.reshape(-1, 3).T.float()
    spatial = place / s.crf_pos_xy_std
    bilateral = torch.cat([place / s.crf_bi_xy_std, colour / s.crf_bi_rgb_std])
    log_probs = probs.flatten(1).T.log()
    marginals = log_probs.softmax(1)
    for _ in range(s.crf_iterations):
        message = s.crf_pos_w * exact_filter(spatial, marginals)
        message += s.crf_bi_w * exact_filter(bilateral, marginals)
        marginals = (log_probs + message).softmax(1)
    return marginals.T.reshape(count, height, width)


def scene(height: int = 40, width: int = 56, classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Vertical stripes of one colour a class, and noisy probabilities of them."""
    generator = torch.Generator().manual_seed(0)
    truth = (torch.arange(width) * classes // width).expand(height, width)
    colours = torch.randint(0, 200, (classes, 3), generator=generator)
    image = colours[truth] + torch.randint(0, 12, (height, width, 3), generator=generator)
    logits = 1.5 * torch.nn.functional.one_hot(truth, classes).permute(2, 0, 1)
    logits = logits + torch.randn(classes, height, width, generator=generator)
    return image.to(torch.uint8), logits.softmax(0)


@pytest.mark.parametrize(("d", "spread"), [(1, 20.0), (2, 10.0), (5, 2.0)])
def test_lattice_matches_a_loop(d, spread):
    rng = np.random.default_rng(d)
    features, values = rng.uniform(-spread, spread, (d, 60)), rng.random((60, 3))
    norm = loop_filter(features, np.ones((60, 1))) ** -0.5
    expected = torch.from_numpy(norm * loop_filter(features, norm * values)).float()
    actual = Lattice.of_points(torch.from_numpy(features).float())(torch.from_numpy(values).float())
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("d", "spread"), [(1, 8.0), (2, 5.0), (5, 1.5)])
def test_lattice_approximates_the_gaussian(d, spread):
    generator = torch.Generator().manual_seed(d)
    features, values = (
        torch.rand(d, 3000, generator=generator) * spread,
        torch.rand(3000, 2, generator=generator),
    )
    values[:, 1] = (features[0] > spread / 2).float()
    expected = exact_filter(features, values)
    assert (Lattice.of_points(features)(values) - expected).abs().mean() / expected.mean() < 0.05


def test_points_far_apart_keep_their_values():
    features = torch.arange(6.0)[None] * 1000
    values = torch.rand(6, 4)
    torch.testing.assert_close(Lattice.of_points(features, weight=2.0)(values), 2 * values)


def test_points_in_one_place_share_their_mean():
    values = torch.rand(50, 3)
    expected = values.mean(0).expand(50, 3)
    torch.testing.assert_close(
        Lattice.of_points(torch.full((5, 50), 3.7))(values), expected, atol=1e-4, rtol=1e-4
    )


def test_lattice_too_large_to_number_is_refused():
    with pytest.raises(ValueError, match="larger deviations"):
        Lattice.of_points(torch.tensor([[0.0, 1e6]]).expand(5, 2))


def test_crf_approximates_the_exact_one():
    image, probs = scene()
    settings = CRFSettings(
        5, crf_pos_xy_std=2, crf_pos_w=1, crf_bi_xy_std=20, crf_bi_rgb_std=8, crf_bi_w=2
    )
    expected, actual = exact_crf(image, probs, settings), dense_crf(image, probs, settings)
    assert (probs.argmax(0) != expected.argmax(0)).float().mean() > 0.1
    assert (actual.argmax(0) == expected.argmax(0)).float().mean() > 0.995
    assert (actual - expected).abs().mean() < 0.01


def test_no_rounds_give_the_clipped_probabilities():
    image, probs = scene()
    torch.testing.assert_close(dense_crf(image, probs, CRFSettings(crf_iterations=0)), probs)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 1), (2, 3)])
def test_small_images(size):
    image = torch.randint(0, 256, (*size, 3), dtype=torch.uint8)
    marginals = dense_crf(image, torch.rand(4, *size).softmax(0))
    assert marginals.shape == (4, *size)
    torch.testing.assert_close(marginals.sum(0), torch.ones(size))


def test_layout_and_precision_of_the_input_do_not_matter():
    image, probs = scene()
    turned = image.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    torch.testing.assert_close(dense_crf(turned, probs.double()), dense_crf(image, probs))


def test_implausible_labels_change_no_label():
    image, probs = scene()
    rare = torch.rand(9, *probs.shape[1:]) * 5e-3
    probs = torch.cat([rare[:4], probs * (1 - rare.sum(0)), rare[4:]])
    (left, few), every = crf(image, probs), dense_crf(image, probs)
    assert left.tolist() == [4, 5, 6]
    assert torch.equal(left[few.argmax(0)], every.argmax(0))
    assert (few - every[left]).abs().max() < 0.02
    torch.testing.assert_close(few.sum(0), torch.ones(image.shape[:2]))


def test_labels_that_lose_all_pixels_leave_between_rounds():
    image, probs = scene()
    probs = torch.cat([probs * 0.98, torch.full_like(probs[:1], 0.02)])
    few, every = dense_crf(image, probs, plausible=PLAUSIBLE), dense_crf(image, probs)
    assert (few[3] == 0).all() and (every[3] > 0).all()
    assert torch.equal(few.argmax(0), every.argmax(0))
    torch.testing.assert_close(few.sum(0), torch.ones(image.shape[:2]))


def test_flat_probabilities_of_many_labels_keep_all():
    image = scene()[0]
    probs = torch.full((200, *image.shape[:2]), 1 / 200)
    labels, marginals = crf(image, probs)
    assert len(labels) == 200
    torch.testing.assert_close(marginals, probs)


def test_sizes_are_checked():
    image, probs = scene()
    with pytest.raises(ValueError, match="uint8"):
        dense_crf(image.float(), probs)
    with pytest.raises(ValueError, match="probs"):
        dense_crf(image, probs[:, 1:])


def test_pydensecrf_gets_the_settings(monkeypatch):
    library = Mock()
    monkeypatch.setitem(sys.modules, "pydensecrf", Mock(densecrf=library))
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", library)
    (image, probs), model = scene(), library.DenseCRF2D.return_value
    model.inference.return_value = probs.flatten(1).numpy()
    settings = CRFSettings(
        5, crf_pos_xy_std=2, crf_pos_w=1, crf_bi_xy_std=20, crf_bi_rgb_std=8, crf_bi_w=3
    )
    torch.testing.assert_close(crf(image, probs, "pydensecrf", settings=settings)[1], probs)
    model.inference.assert_called_once_with(5)
    model.addPairwiseGaussian.assert_called_once_with(sxy=2, compat=1)
    bilateral = model.addPairwiseBilateral.call_args.kwargs
    assert (bilateral["sxy"], bilateral["srgb"], bilateral["compat"]) == (20, 8, 3)


def test_an_unknown_backend_is_refused():
    image, probs = scene()
    with pytest.raises(UserError, match="'opencv' is unknown; use one of torch, pydensecrf"):
        crf(image, probs, backend="opencv")


def test_missing_pydensecrf_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    with pytest.raises(UserError, match="pip install pydensecrf2"):
        crf(*scene(), backend="pydensecrf")


def test_agrees_with_pydensecrf():
    pytest.importorskip("pydensecrf.densecrf")
    rng = np.random.default_rng(0)
    image, probs = scene(60, 80, 5)
    image = (
        (image.float() + torch.from_numpy(rng.normal(0, 12, image.shape)))
        .clamp(0, 255)
        .to(torch.uint8)
    )
    ours, theirs = dense_crf(image, probs), pydensecrf(image, probs)
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=0)
    assert (ours.argmax(0) == theirs.argmax(0)).float().mean() >= 0.999


def test_the_kept_filter_by_place_is_that_of_size_and_settings() -> None:
    torch.manual_seed(0)
    image = torch.randint(0, 256, (6, 9, 3), dtype=torch.uint8)
    probs = torch.rand(3, 6, 9).softmax(0)
    cases = [
        (image, probs, CRFSettings()),
        (image.transpose(0, 1), probs.transpose(1, 2), CRFSettings()),
        (image, probs, CRFSettings(crf_pos_xy_std=1.5)),
        (image, probs, CRFSettings(crf_pos_w=5.0)),
    ]
    kept = [dense_crf(*case) for case in cases]
    for case, found in zip(cases, kept):
        _spatial.cache_clear()
        assert torch.equal(dense_crf(*case), found)
    assert len({tuple(found.flatten().tolist()) for found in kept}) == len(cases)
