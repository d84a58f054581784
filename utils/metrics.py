"""The one metric: an integer confusion matrix and the scores read off it."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from utils.common import distributed

# Titles of the results of a run: test results, and what `--eval_seeds` scores.
SINGLE = "single scale"
MULTI = "multi-scale + flip"
CRF = "multi-scale + flip + CRF"
TEST_TITLES = (SINGLE, MULTI, CRF)  # each has one more step behind it than the one before
CAMS = {"clip": "CLIP CAM", "vit": "ViT CAM", "fused": "fused CAM"}
TITLES = {"clip": "CLIP seed", "vit": "ViT seed", "fused": "fused seed", "pseudo": "pseudo label"}
LABEL_TITLES = tuple(TITLES.values())

LABELS = 256  # values of a label map
_WIDTH = 100  # characters per line of a table


def kinds_of(branches: str) -> tuple[str, ...]:
    """Return the kinds of seeds that the setting `branches` makes, keys of CAMS; the last is what
    pseudo labels come from.
    """
    if branches == "fusion":
        return ("clip", "vit", "fused")
    return (branches,)


def final_title(titles: Iterable[str]) -> str:
    """Choose the final one of test results: the one with the most steps behind it.

    Raises:
        ValueError: there is none, or a title is not among TEST_TITLES.
    """
    return max(titles, key=TEST_TITLES.index)


class ConfusionMatrix:
    """Pixel counts of truth against prediction. `counts` (C, C) int64, rows = truth; `images`: how
    many label maps they are of.

    mIoU is over the classes that occur in the truth, background included; 255 is ignored.
    """

    def __init__(self, num_classes: int, device: torch.device | str = "cpu") -> None:
        """
        Args:
            num_classes: C = K + 1, background included.
            device: where counts live and are made.
        """
        self.num_classes = num_classes
        self.images = 0
        self.counts = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)

    @classmethod
    def from_counts(cls, counts: list[list[int]]) -> "ConfusionMatrix":
        """Return the matrix with these counts, rows = truth, as `counts.tolist()` gave them."""
        matrix = cls(len(counts))
        matrix.counts = torch.tensor(counts, dtype=torch.int64)
        return matrix

    @classmethod
    def sum_of(cls, matrices: Sequence["ConfusionMatrix"]) -> "ConfusionMatrix":
        """Return the counts of one or more matrices together, on the CPU."""
        total = cls(matrices[0].num_classes)
        for matrix in matrices:
            total.counts += matrix.counts.cpu()
            total.images += matrix.images
        return total

    def update(
        self, prediction: torch.Tensor | np.ndarray, truth: torch.Tensor | np.ndarray
    ) -> None:
        """Add the pixels of an image's label maps of one shape, labels 0..255. Pixels whose truth
        is C or more are ignored.

        Raises:
            ValueError: the shapes differ, a label is outside 0..255, or a counted pixel's
                prediction is C or more.
        """
        prediction, truth = (
            torch.as_tensor(labels).to(self.counts.device) for labels in (prediction, truth)
        )
        if prediction.shape != truth.shape:
            raise ValueError(
                f"prediction {tuple(prediction.shape)} and truth {tuple(truth.shape)} differ in "
                "shape"
            )

        for labels in (prediction, truth):  # else one label would count as another
            if labels.dtype != torch.uint8 and ((labels < 0) | (labels >= LABELS)).any():
                raise ValueError(f"labels outside 0..{LABELS - 1}")

        # All pairs of labels are counted first: picking pixels takes ten times as long.
        counts = _pair_counts(truth, prediction)[: self.num_classes]
        if counts[:, self.num_classes :].any():
            raise ValueError(f"prediction has labels outside 0..{self.num_classes - 1}")

        self.counts += counts[:, : self.num_classes]
        self.images += 1

    def sum_over_processes(self) -> None:
        """Add up what all processes counted; afterwards each has the whole."""
        images = self.counts.new_tensor([self.images])
        whole = distributed.total(torch.cat([self.counts.flatten(), images]))
        self.counts = whole[:-1].view_as(self.counts)
        self.images = int(whole[-1])

    def pairs(self) -> list[list[int]]:
        """Return the counts above 0 as [truth, prediction, pixels], for a file."""
        truth, predicted = self.counts.nonzero(as_tuple=True)
        return torch.stack([truth, predicted, self.counts[truth, predicted]], 1).tolist()

    def add_pairs(self, pairs: list[list[int]]) -> None:
        """Add an image's counts as `pairs` gave them. Raises IndexError on a label outside
        0..C-1.
        """
        self.images += 1
        if pairs:
            truth, predicted, pixels = torch.tensor(pairs, device=self.counts.device).T
            self.counts.index_put_((truth, predicted), pixels, accumulate=True)

    def iou(self) -> torch.Tensor:
        """Return (C,) float64 on the CPU: intersection over union, 0..1; nan for a class in neither
        truth nor prediction.
        """
        hits, truth, predicted = self._sums()
        return hits / (truth + predicted - hits)

    def counted_iou(self) -> torch.Tensor:
        """Return `iou`, but nan for every class that does not occur in the truth, which the mean
        does not count.
        """
        iou = self.iou()
        iou[self._sums()[1] == 0] = torch.nan
        return iou

    def miou(self) -> float:
        """Return the mean IoU, 0..1, of the classes that occur in the truth; nan without any."""
        return self.iou()[self._sums()[1] > 0].mean().item()

    def mean_accuracy(self) -> float:
        """Return the mean over the classes in the truth of the share of their pixels that is found,
        0..1; nan without any.
        """
        hits, truth, _ = self._sums()
        return (hits / truth)[truth > 0].mean().item()

    def pixel_accuracy(self) -> float:
        """Return the share of the counted pixels that is right, 0..1; nan without any."""
        hits, truth, _ = self._sums()
        return (hits.sum() / truth.sum()).item()

    def present(self) -> int:
        """Return the number of classes that occur in the truth."""
        return int((self._sums()[1] > 0).sum())

    def _sums(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return per class, float64: pixels hit, pixels in the truth, pixels predicted."""
        counts = self.counts.cpu().double()
        return counts.diagonal(), counts.sum(1), counts.sum(0)


def _pair_counts(truth: torch.Tensor, prediction: torch.Tensor) -> torch.Tensor:
    """Count the pixels of each pair of labels 0..255: (256, 256) int64, rows = truth.

    On a CPU by NumPy: PyTorch would start a team of threads for every thread that counts.
    """
    if truth.device.type != "cpu":
        pairs = (truth.int() * LABELS + prediction.int()).flatten()
        return torch.bincount(pairs, minlength=LABELS**2).view(LABELS, LABELS)

    both = truth.numpy().astype(np.uint16) * LABELS + prediction.numpy().astype(np.uint16)
    counts = np.bincount(both.ravel(), minlength=LABELS**2)
    return torch.from_numpy(counts).view(LABELS, LABELS)


def result_of(split: str, matrix: ConfusionMatrix, classes: Sequence[str]) -> dict[str, Any]:
    """Return the counts over images of a split as plain values, as results.json has them.

    classes: names of labels 1..K.
    """
    return {
        "split": split,
        "images": matrix.images,
        "classes": list(classes),
        "counts": matrix.counts.tolist(),
    }


def format_table(rows: list[tuple[str, ConfusionMatrix]], class_names: tuple[str, ...]) -> str:
    """Write scores in percent as text of at most 100 columns (for up to seven results with short
    titles).

    Args:
        rows: title and counts of each result, such as ("single scale", matrix).
        class_names: names of labels 0..K.

    Returns:
        A line per result with mIoU, accuracies and "n of K+1 classes present", then the IoU of each
        class, in columns numbered like the results; "-" where a class is not in the truth, so
        that the mean of a column is its mIoU.
    """
    titles = [f"[{number}] {title}" for number, (title, _) in enumerate(rows, 1)]
    wide = max(map(len, titles))
    lines = [f"{'':{wide}}   mIoU  pixel acc  mean acc"]

    for title, (_, matrix) in zip(titles, rows):
        scores = f"{_percent(matrix.miou()):>7}{_percent(matrix.pixel_accuracy()):>11}"
        scores += f"{_percent(matrix.mean_accuracy()):>10}"
        lines.append(
            f"{title:{wide}}{scores}  {matrix.present()} of {matrix.num_classes} classes present"
        )

    name_width = max(map(len, class_names))
    heads = "".join(f"{f'[{number}]':>7}" for number in range(1, len(rows) + 1))
    values = zip(*(matrix.counted_iou().tolist() for _, matrix in rows))
    cells = [
        f"{name:{name_width}}" + "".join(f"{_percent(value):>7}" for value in row)
        for name, row in zip(class_names, values)
    ]
    head = f"{'IoU':{name_width}}{heads}"
    columns = max(1, min((_WIDTH + 3) // (len(head) + 3), len(cells)))
    height = -(-len(cells) // columns)
    lines += ["", "   ".join([head] * -(-len(cells) // height))]
    lines += ["   ".join(cells[line::height]) for line in range(height)]

    return "\n".join(lines) + "\n"


def _percent(value: float) -> str:
    if np.isnan(value):
        return "-"
    return f"{100 * value:.2f}"
