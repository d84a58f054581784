"""Average precision by hand."""

import math

import pytest
import torch

from utils.training.average_precision import average_precision, mean_average_precision


def test_by_hand() -> None:
    scores = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.1, 0.4]])
    truth = torch.tensor([[1, 0], [0, 0], [1, 0], [0, 1]]).bool()
    found = average_precision(scores, truth)
    assert found.tolist() == pytest.approx([(1 + 2 / 3) / 2, 1.0])


def test_the_mean_is_over_classes_and_over_images() -> None:
    scores = torch.tensor([[0.9, 0.8, 0.1], [0.3, 0.9, 0.2]])
    truth = torch.tensor([[0, 1, 0], [1, 0, 0]]).bool()
    by_class, by_image = mean_average_precision(scores, truth)
    assert by_class == pytest.approx((1 / 2 + 1 / 2) / 2)  # the third class occurs nowhere
    assert by_image == pytest.approx((1 / 2 + 1 / 2) / 2)


def test_random_scores_give_the_share_of_what_is_true() -> None:
    truth = torch.rand(4000, 3) < 0.2
    assert average_precision(torch.rand(4000, 3), truth).tolist() == pytest.approx(
        [0.2] * 3, abs=0.04
    )


def test_nothing_true_is_nan() -> None:
    assert math.isnan(mean_average_precision(torch.rand(3, 2), torch.zeros(3, 2).bool())[0])
