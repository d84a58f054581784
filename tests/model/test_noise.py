"""Dropout by sample: the same masks for any number of processes, and the statistics of dropout."""

import pytest
import torch

from model.noise import Noise, drop_channels, drop_path

CPU = torch.device("cpu")


def noise(samples: list[int], iteration: int = 3, seed: int = 1) -> Noise:
    return Noise.of(seed, iteration, torch.tensor(samples), CPU)


def test_numbers_depend_on_the_sample_and_not_on_its_batch() -> None:
    whole = noise([5, 9, 2, 7]).uniform(4, 10)
    halves = [noise([5, 9]).uniform(4, 10), noise([2, 7]).uniform(4, 10)]
    assert torch.equal(whole, torch.cat(halves))


def test_numbers_differ_between_samples_iterations_seeds_and_sites() -> None:
    drawn = [
        noise([5]).uniform(4, 64),
        noise([6]).uniform(4, 64),
        noise([5], iteration=4).uniform(4, 64),
        noise([5], seed=2).uniform(4, 64),
        noise([5]).uniform(5, 64),
        noise([3], iteration=5).uniform(4, 64),  # sample and iteration exchanged
    ]
    distinct = {tuple(numbers.flatten().tolist()) for numbers in drawn}
    assert len(distinct) == len(drawn)


def test_numbers_are_uniform_and_uncorrelated() -> None:
    drawn = noise(list(range(2000))).uniform(0, 50)
    assert drawn.min() >= 0
    assert drawn.max() < 1
    histogram = torch.histc(drawn, 20, 0, 1) / drawn.numel()
    assert (histogram - 1 / 20).abs().max() < 0.003

    correlation = torch.corrcoef(drawn.T)
    assert (correlation - torch.eye(50)).abs().max() < 0.1
    assert torch.corrcoef(drawn[:50]).sub(torch.eye(50)).abs().mean() < 0.2


def test_dropped_channels_are_whole_and_the_mean_stays() -> None:
    features = torch.ones(500, 3, 40)
    dropped = drop_channels(features, 0.1, noise(list(range(500))), 7)
    assert torch.equal(dropped, dropped[:, :1].expand(-1, 3, -1))
    assert dropped.unique().tolist() == pytest.approx([0, 1 / 0.9])
    assert dropped.mean().item() == pytest.approx(1, abs=0.01)


def test_a_dropped_path_is_that_of_whole_samples() -> None:
    branch = torch.ones(2000, 3, 4)
    dropped = drop_path(branch, 0.25, noise(list(range(2000))).first(3)[:, 2])
    assert (dropped == dropped[:, :1, :1]).all()
    assert (dropped == 0).float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert dropped.mean().item() == pytest.approx(1, abs=0.04)


def test_the_first_numbers_of_all_sites_are_those_of_each() -> None:
    drawn = noise([5, 9])
    each = torch.cat([drawn.uniform(site, 1) for site in range(4)], dim=1)
    assert torch.equal(drawn.first(4), each)


def test_nothing_is_dropped_without_noise_or_rate() -> None:
    features = torch.randn(2, 3, 4)
    assert drop_channels(features, 0.5, None, 0) is features
    assert drop_channels(features, 0.0, noise([1, 2]), 0) is features


def test_half_precision_stays() -> None:
    features = torch.ones(2, 3, 4, dtype=torch.bfloat16)
    assert drop_channels(features, 0.1, noise([1, 2]), 0).dtype == torch.bfloat16
