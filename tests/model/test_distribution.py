"""Affinity of class distributions: against SciPy, by hand, and what must not matter."""

import math

import pytest
import torch
from scipy.spatial.distance import jensenshannon

from model.distribution import corrected, distribution_affinity, hellinger, jensen_shannon


def distributions(rows: int = 7, channels: int = 5) -> torch.Tensor:
    """Two images of random distributions, of which the first row is certain."""
    p = torch.rand(2, rows, channels).softmax(dim=-1)
    p[:, 0] = 0
    p[:, 0, 1] = 1
    return p


def test_divergence_agrees_with_scipy() -> None:
    p = distributions()
    found = jensen_shannon(p)
    for image in range(2):
        for i in range(7):
            for j in range(7):
                distance = jensenshannon(p[image, i].double(), p[image, j].double())
                expected = 0.0 if math.isnan(distance) else distance**2
                assert found[image, i, j].item() == pytest.approx(expected, abs=1e-6)


def test_divergence_of_certain_rows_by_hand() -> None:
    p = torch.eye(2)[None]
    assert jensen_shannon(p)[0].flatten().tolist() == pytest.approx(
        [0, math.log(2), math.log(2), 0]
    )
    assert hellinger(p)[0].flatten().tolist() == pytest.approx([0, 1, 1, 0])


@pytest.mark.parametrize("distance", [jensen_shannon, hellinger])
def test_distances_are_symmetric_zero_to_oneself_and_blind_to_class_order(distance) -> None:
    p = distributions()
    found = distance(p)
    assert torch.allclose(found, found.transpose(1, 2), atol=1e-6)
    assert found.diagonal(dim1=1, dim2=2).abs().max() < 1e-6
    order = torch.randperm(p.shape[-1])
    assert torch.allclose(found, distance(p[..., order]), atol=1e-6)


def test_hellinger_bounds_the_divergence() -> None:
    p = distributions(30, 8)
    divergence = jensen_shannon(p)
    squared = hellinger(p)
    assert (divergence >= squared * math.log(2) - 1e-6).all()
    assert (divergence <= 2 * squared + 1e-6).all()


@pytest.mark.parametrize("distance", ["jensen_shannon", "hellinger"])
def test_affinity_has_rows_of_sum_1_and_prefers_what_is_alike(distance: str) -> None:
    p = torch.tensor([[[0.9, 0.1], [0.8, 0.2], [0.1, 0.9]]])
    affinity = distribution_affinity(p, 0.1, distance)
    assert affinity.sum(dim=-1)[0].tolist() == pytest.approx([1, 1, 1])
    assert affinity[0, 0, 1] > affinity[0, 0, 2]
    equal = distribution_affinity(torch.full((1, 4, 3), 1 / 3), 0.1, distance)
    assert torch.allclose(equal, torch.full((1, 4, 4), 0.25))


def test_products_by_hand() -> None:
    affinity = torch.tensor([[[0.5, 0.5], [0.2, 0.8]]])
    alike = torch.tensor([[[1.0, 0.0], [0.5, 0.5]]])
    spread = corrected(affinity, alike, "matrix")
    assert spread.flatten().tolist() == pytest.approx([0.5, 0.5, 0.35, 0.65])
    both = corrected(affinity, alike, "elements")
    assert both.flatten().tolist() == pytest.approx([1, 0, 0.2, 0.8])
