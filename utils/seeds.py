"""How good CAMs and pseudo labels are: scored against the masks of training images, on request and openly."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from datasets.data import MaskedImages
from datasets.layouts import Item
from datasets.transforms import normalise
from model.cvf import CVF
from model.precision import float32_region
from model.pseudo_labels import score_maps
from utils import distributed
from utils.build import STATISTICS
from utils.config import Config
from utils.errors import UserError
from utils.evaluation import ConfusionMatrix
from utils.faults import readable
from utils.inference import pad, padding_of
from utils.progress import progress
from utils.runtime import autocast, heed_parent_only

TITLES = {"clip": "CLIP seed", "vit": "ViT seed", "fused": "fused seed", "pseudo": "pseudo label"}


def require_masks(items: Sequence[Item], flag: str = "--eval_seeds") -> None:
    """Raises UserError naming the flag that wants masks and the first image without one."""
    if missing := [item.name for item in items if item.mask is None]:
        raise UserError(f"{flag} needs the masks of the images, {missing[0]} has none; leave {flag} out")


@dataclass(frozen=True)
class ImageSeeds:
    """What the CAMs of one image say, at its size.

    keys (n,) long: its tagged classes, 0..K-1. scores: (n, H, W) in 0..1 by kind, of "clip", "vit" and, with both,
    "fused", after the transition matrix, without refinement. pseudo (H, W) long: the refined label.
    """

    keys: Tensor
    scores: dict[str, Tensor]
    pseudo: Tensor


def padded(image: Tensor, config: Config) -> Tensor:
    """Image (3, H, W) uint8 -> (1, 3, H', W') normalised, reflected to sides that the model takes."""
    return pad(normalise(image[None], *STATISTICS[config.statistics]), *padding_of(*image.shape[-2:]))


@torch.no_grad()
def image_seeds(model: CVF, image: Tensor, tags: Tensor, config: Config, select: bool) -> ImageSeeds:
    """Seeds and pseudo label of one image (3, H, W) uint8 with tags (K,), above 0 where tagged; the model in eval mode.

    `select`: the switch-over has happened (design, section 1).
    """
    device, (height, width) = model.text.device, image.shape[-2:]
    pixels, tags = padded(image.to(device), config), tags.cpu()
    with autocast(device, config.precision):
        labels = model(pixels, tags[None], select).labels
    with float32_region(device):
        maps = score_maps(labels.seeds, pixels.shape[-2:])
    keys = tags.nonzero()[:, 0]
    scores = {kind: channels[0, : len(keys), :height, :width] for kind, channels in maps.items()}
    return ImageSeeds(keys, scores, labels.combined[0, :height, :width])


@torch.no_grad()
def score_seeds(
    model: CVF, items: Sequence[Item], tags: np.ndarray, config: Config, device: torch.device, ranks: tuple[int, int],
    select: bool,
) -> dict[str, ConfusionMatrix]:  # fmt: skip
    """Confusion of CLIP, ViT and fused seeds and pseudo labels with the masks of tagged images (n) at original size.

    `tags` (n, K); `ranks` = (rank, world), every image is counted by one process. Raises UserError without masks.
    """
    require_masks(items)
    mode = model.training
    model.eval()
    data = MaskedImages(items, *ranks, config.on_bad_image == "skip")
    # All are there from the start: a process without an image takes part in the sums too.
    kinds = ("clip", "vit", "fused") if model.method.branches == "fusion" else (model.method.branches,)
    scores = {TITLES[kind]: ConfusionMatrix(tags.shape[1] + 1, device) for kind in (*kinds, "pseudo")}
    loader = DataLoader(data, None, num_workers=config.workers, worker_init_fn=heed_parent_only)
    bar = progress(loader, config.quiet, desc="seeds", leave=False)
    for sample in readable(bar, Path(config.work_dir), "seeds"):
        height, width = sample["image"].shape[-2:]
        tag = torch.from_numpy(tags[sample["index"]])[None]
        with autocast(device, config.precision):
            labels = model.seeds(padded(sample["image"].to(device), config), tag, select)
        truth = sample["mask"].to(device)
        for name, label in labels.items():
            scores[TITLES[name]].update(label[0, :height, :width], truth)
    for matrix in scores.values():
        matrix.counts = distributed.total(matrix.counts)
    model.train(mode)
    return scores
