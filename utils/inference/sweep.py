"""Seeds scored at every background threshold, which tells what they could give at best."""

import torch
from torch import Tensor

from utils.inference.seeds import labels_of
from utils.metrics import ConfusionMatrix

THRESHOLDS = torch.arange(1, 100) / 100


class Sweep:
    """Confusion of seeds with masks at every background threshold, in one pass over the images.

    At threshold t a pixel is background unless some class scores more than t; then it is the
    highest class.
    """

    def __init__(self, num_classes: int, thresholds: Tensor) -> None:
        """Begin without counts. num_classes: K + 1. thresholds: (t,) ascending, above 0."""
        self.size = num_classes
        self.thresholds = thresholds
        self.counts = torch.zeros(len(thresholds) + 1, num_classes, num_classes, dtype=torch.int64)

    def update(self, keys: Tensor, scores: Tensor, truth: Tensor) -> None:
        """Count an image: classes (n,), their scores (n, H, W), labels (H, W); labels outside 0..K
        do not count.
        """
        top, slot = torch.cat([scores.new_zeros(1, *truth.shape), scores]).max(0)
        level = torch.bucketize(top, self.thresholds)  # how many thresholds it is above
        label = labels_of(keys)[slot]
        counted = truth < self.size
        place = (level * self.size + truth) * self.size + label
        self.counts += torch.bincount(place[counted], minlength=self.counts.numel()).view_as(
            self.counts
        )

    def matrices(self) -> list[ConfusionMatrix]:
        """Return one confusion matrix per threshold."""
        found = []
        total = self.counts.sum(0)
        for number in range(1, len(self.counts)):
            counts = self.counts[number:].sum(0)  # pixels that are some class
            counts[:, 0] += (total - counts).sum(1)
            found.append(ConfusionMatrix.from_counts(counts.tolist()))
        return found
