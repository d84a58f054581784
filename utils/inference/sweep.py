"""Seeds scored at every background threshold, which tells what they could give at best."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from utils.inference.seeds import labels_of
from utils.metrics import ConfusionMatrix

THRESHOLDS = torch.arange(1, 100, dtype=torch.float32) / 100


class Sweep:
    """Confusion of seeds with masks at every background threshold, in one pass over the images.

    At threshold t a pixel is background unless some class scores more than t; then it is the
    highest class.
    """

    def __init__(self, num_classes: int, thresholds: Tensor) -> None:
        """Begin without counts. num_classes: K + 1. thresholds: (t,) ascending, above 0."""
        self.size = num_classes
        self.thresholds = thresholds
        self.images = 0
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
        self.images += 1

    def matrices(self) -> list[ConfusionMatrix]:
        """Return one confusion matrix per threshold."""
        found = []
        total = self.counts.sum(0)
        for number in range(1, len(self.counts)):
            counts = self.counts[number:].sum(0)  # pixels that are some class
            counts[:, 0] += (total - counts).sum(1)
            matrix = ConfusionMatrix.from_counts(counts.tolist())
            matrix.images = self.images
            found.append(matrix)
        return found

    def tuned(self) -> "Tuned":
        """Choose the threshold at which the masks give the highest mIoU."""
        thresholds = [round(threshold, 4) for threshold in self.thresholds.tolist()]
        matrices = dict(zip(thresholds, self.matrices()))
        scores = {threshold: 100 * matrix.miou() for threshold, matrix in matrices.items()}
        best = max(scores, key=lambda threshold: scores[threshold])
        return Tuned(best, matrices[best], scores)


@dataclass(frozen=True)
class Tuned:
    """The best threshold, the counts at it, and the mIoU (percent) at every threshold."""

    threshold: float
    matrix: ConfusionMatrix
    scores: dict[float, float]

    def sentence(self, seeds: str, masks: str) -> str:
        """Say what seeds score with masks, each in words, and what the score is not."""
        return (
            f"{seeds} mIoU {self.scores[self.threshold]:.2f} at background threshold "
            f"{self.threshold:g}, the best of {len(self.scores)}: tuned on {masks}, an upper "
            "bound, not to be compared with seeds whose threshold was chosen without masks"
        )

    def values(self) -> dict[str, Any]:
        """Return the same as plain values, for a file."""
        return {"tuned on masks": {"threshold": self.threshold, "mIoU by t": self.scores}}
