"""Seeds scored at every background threshold, which tells what they could give at best."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from utils.inference.seeds import labels_of
from utils.metrics import ConfusionMatrix

THRESHOLDS = torch.arange(1, 100, dtype=torch.float32) / 100

# of an image: (true label, label of the highest class, its pixels above 0, 1, 2, ... thresholds)
LevelCounts = list[tuple[int, int, list[int]]]


def level_counts(
    keys: Tensor, scores: Tensor, truth: Tensor, num_classes: int, thresholds: Tensor
) -> LevelCounts:
    """Count an image at all thresholds (t,), ascending and above 0: classes (n,), their scores
    (n, H, W), labels (H, W), of which those outside 0..num_classes-1 do not count.
    """
    top, slot = torch.cat([scores.new_zeros(1, *truth.shape), scores]).max(0)
    level = torch.bucketize(top, thresholds)  # how many thresholds it is above
    labels = labels_of(keys)
    counted = truth < num_classes

    levels = len(thresholds) + 1
    place = (truth * len(labels) + slot) * levels + level
    pairs = num_classes * len(labels)
    found = torch.bincount(place[counted], minlength=pairs * levels).view(pairs, -1)
    return [
        (pair // len(labels), int(labels[pair % len(labels)]), found[pair].tolist())
        for pair in found.any(1).nonzero()[:, 0].tolist()
    ]


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
        self.add(self.counts_of(keys, scores, truth))

    def counts_of(self, keys: Tensor, scores: Tensor, truth: Tensor) -> LevelCounts:
        """Count an image as `update` does, for a file: nothing is added."""
        return level_counts(keys, scores, truth, self.size, self.thresholds)

    def add(self, counts: LevelCounts) -> None:
        """Add an image's counts as `counts_of` gave them."""
        for truth, label, pixels in counts:
            self.counts[:, truth, label] += torch.tensor(pixels)
        self.images += 1

    def is_of_image(self, counts: object, pixels: int) -> bool:
        """Return whether a file holds counts of at most so many pixels, as `counts_of` gives them
        for these classes and thresholds.
        """
        if not isinstance(counts, list):
            return False

        seen = 0
        for each in counts:
            if not isinstance(each, list) or [*map(type, each)] != [int, int, list]:
                return False

            truth, label, levels = each
            if not (0 <= truth < self.size and 0 <= label < self.size):
                return False
            if len(levels) != len(self.counts) or set(map(type, levels)) != {int}:
                return False
            if min(levels) < 0:
                return False
            seen += sum(levels)

        return seen <= pixels

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
