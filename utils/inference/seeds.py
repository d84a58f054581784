"""How good CAMs and pseudo labels are: scored against the masks of training images, on request and
openly.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from datasets.layouts import Item
from datasets.transforms import normalise
from model.cvf import CVF
from model.precision import float32_region
from model.pseudo_labels import score_maps
from utils.build import STATISTICS
from utils.common.device import autocast
from utils.common.errors import UserError
from utils.config import Config
from utils.inference.multi_scale import pad, padding_of
from utils.settings.data import DataSettings


def require_masks(items: Sequence[Item], flag: str) -> None:
    """Raises UserError naming the flag that wants masks and the first image without one."""
    if missing := [item.name for item in items if item.mask is None]:
        raise UserError(
            f"{flag} needs the masks of the images, {missing[0]} has none; leave {flag} out"
        )


@dataclass(frozen=True)
class ImageSeeds:
    """What the CAMs of one image say, at its size.

    keys (n,) long: its tagged classes, 0..K-1. scores: (n, H, W) in 0..1 by kind, of "clip", "vit"
    and, with both, "fused", after the transition matrix, without refinement. pseudo (H, W) long:
    the refined label.
    """

    keys: Tensor
    scores: dict[str, Tensor]
    pseudo: Tensor


def padded(image: Tensor, config: DataSettings) -> Tensor:
    """Image (3, H, W) uint8 -> (1, 3, H', W') normalised, reflected to sides that the model
    takes.
    """
    return pad(
        normalise(image[None], *STATISTICS[config.statistics]), *padding_of(*image.shape[-2:])
    )


@torch.no_grad()
def image_seeds(
    model: CVF, image: Tensor, tags: Tensor, config: Config, after_switch: bool
) -> ImageSeeds:
    """Seeds and pseudo label of one image (3, H, W) uint8 with tags (K,), above 0 where tagged; the
    model in eval mode.

    `after_switch`: affinity is selected rather than averaged (model/README.md, "Affinity").
    """
    device, (height, width) = model.text.device, image.shape[-2:]
    pixels, tags = padded(image.to(device), config), tags.cpu()
    with autocast(device, config.precision):
        labels = model(pixels, tags[None], after_switch).labels
    with float32_region(device):
        maps = score_maps(labels.seeds, pixels.shape[-2:])
    keys = tags.nonzero()[:, 0]
    scores = {kind: own[:, :height, :width] for kind, own in maps.items()}
    return ImageSeeds(keys, scores, labels.combined[0, :height, :width])
