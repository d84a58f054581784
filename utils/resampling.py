"""How far the mIoU of some images may lie from that of all: by drawing the images anew."""

from collections.abc import Sequence

import torch
from torch import Tensor

from utils.metrics import ConfusionMatrix

DRAWS = 2000


def resampled_miou(matrices: Sequence[ConfusionMatrix], draws: int = DRAWS) -> Tensor:
    """Return the mIoU (draws,), 0..1, of as many images drawn with replacement, again and again.

    matrices: counts of each image alone. The draws are the same at every call. As in
    `ConfusionMatrix.miou`, a draw is the mean over the classes that occur in its truth.
    """
    counts = torch.stack([matrix.counts.cpu().double() for matrix in matrices])
    hits = counts.diagonal(dim1=1, dim2=2)
    truth = counts.sum(2)
    parts = torch.stack([hits, truth, counts.sum(1)], 1)  # (images, 3, classes)

    generator = torch.Generator().manual_seed(0)
    images = len(matrices)
    drawn = torch.randint(images, (draws, images), generator=generator)
    times = torch.zeros(draws, images, dtype=torch.float64)
    times.scatter_add_(1, drawn, torch.ones_like(times))

    hits, truth, predicted = (times @ parts.flatten(1)).view(draws, 3, -1).unbind(1)
    iou = hits / (truth + predicted - hits)
    return iou.masked_fill(truth == 0, torch.nan).nanmean(1)


def bounds(matrices: Sequence[ConfusionMatrix], share: float) -> tuple[float, float]:
    """Return between which mIoU, 0..1, that of all images lies in `share` of such cases.

    matrices: counts of each image that was scored. The bounds lie about the mIoU of these images
    as far as draws from them lie about their own mean (the bootstrap, Efron, 1979).
    """
    values = resampled_miou(matrices)
    values = values[~values.isnan()]
    tail = (1 - share) / 2
    ends = torch.quantile(values, torch.tensor([tail, 1 - tail], dtype=torch.float64))
    low, high = (ConfusionMatrix.sum_of(matrices).miou() + ends - values.mean()).tolist()
    return low, high
