"""How good CAMs and pseudo labels are: scored against the masks of training images, on request and openly."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from datasets.data import MaskedImages
from datasets.layouts import Item
from datasets.transforms import normalise
from model.cvf import CVF
from utils import distributed
from utils.build import STATISTICS
from utils.config import Config
from utils.errors import UserError
from utils.evaluation import ConfusionMatrix
from utils.inference import pad, padding_of
from utils.runtime import autocast

TITLES = {"clip": "CLIP seed", "vit": "ViT seed", "fused": "fused seed", "pseudo": "pseudo label"}


def require_masks(items: Sequence[Item]) -> None:
    """Raises UserError naming the first image without a mask."""
    if missing := [item.name for item in items if item.mask is None]:
        raise UserError(
            f"--eval_seeds needs the masks of training images, {missing[0]} has none; leave --eval_seeds out"
        )


@torch.no_grad()
def score_seeds(
    model: CVF, items: Sequence[Item], tags: np.ndarray, config: Config, device: torch.device, ranks: tuple[int, int],
    select: bool,
) -> dict[str, ConfusionMatrix]:  # fmt: skip
    """Confusion of CLIP, ViT and fused seeds and pseudo labels with the masks of tagged images (n) at original size.

    `tags` (n, K); `ranks` = (rank, world), every image is counted by one process. Raises UserError without masks.
    """
    require_masks(items)
    mode, mean_std = model.training, STATISTICS[config.statistics]
    model.eval()
    data = MaskedImages(items, *ranks)
    scores: dict[str, ConfusionMatrix] = {}
    for sample in tqdm(
        DataLoader(data, None, num_workers=config.workers), desc="seeds", leave=False, disable=bool(ranks[0])
    ):
        image = normalise(sample["image"][None].to(device), *mean_std)
        height, width = image.shape[-2:]
        rows, columns = padding_of(height, width)
        tag = torch.from_numpy(tags[sample["index"]])[None].float().to(device)
        with autocast(device, config.precision):
            labels = model.seeds(pad(image, rows, columns), tag, select)
        truth = sample["mask"].to(device)
        for name, label in labels.items():
            matrix = scores.setdefault(TITLES[name], ConfusionMatrix(tags.shape[1] + 1, device))
            matrix.update(label[0, :height, :width], truth)
    for matrix in scores.values():
        matrix.counts = distributed.total(matrix.counts)
    model.train(mode)
    return scores
