"""How well image-level tags are predicted: mean average precision, over classes and over images."""

import torch
from torch import Tensor


def average_precision(scores: Tensor, truth: Tensor) -> Tensor:
    """Compute the average precision of each column.

    The mean, over what is true, of the precision at its rank; ties rank as they stand, and there is
    no interpolation (as in scikit-learn and in MCTformer+'s log).

    Args:
        scores: (n, K), the higher the surer.
        truth: (n, K) bool.

    Returns:
        (K,) float64 in 0..1; nan for a column without anything true.
    """
    order = scores.argsort(dim=0, descending=True, stable=True)
    hits = truth.gather(0, order).double()

    ranks = torch.arange(1, len(hits) + 1, dtype=torch.float64, device=hits.device)
    precision = hits.cumsum(dim=0) / ranks[:, None]
    return (precision * hits).sum(dim=0) / hits.sum(dim=0)


def mean_average_precision(scores: Tensor, truth: Tensor) -> tuple[float, float]:
    """Return mAP over classes, and the mean over images of each image's AP over classes.

    scores (n, K), truth (n, K) bool; what has nothing true is left out. Both in 0..1, nan without
    any tag.
    """
    by_class = average_precision(scores, truth).nanmean().item()
    by_image = average_precision(scores.T, truth.T).nanmean().item()
    return by_class, by_image
