"""Seeds and pseudo labels of one whole image: what the CAMs of its tags say, refined as asked."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from clip.resize import resize
from datasets.transforms import STATISTICS, normalise
from model.cvf import CVF
from model.losses import IGNORE
from model.method import BEGINNING, Phase
from model.pseudo_labels import (
    background_powers,
    channels_of,
    join_own,
    score_maps,
    with_background,
)
from utils.common.device import autocast
from utils.common.precision import float32_region
from utils.config import Config
from utils.inference.crf import crf
from utils.inference.multi_scale import pad, padding_of, shrunk, stretched
from utils.metrics import kinds_of
from utils.settings.data import DataSettings
from utils.settings.running import CRFSettings


@dataclass(frozen=True)
class ImageSeeds:
    """What the CAMs of one image say, at its size.

    keys (n,) long: its tagged classes, 0..K-1. scores: (n, H, W) in 0..1 by kind, of "clip", "vit"
    and, with both, "fused", after the transition matrix, without refinement; cams: before it.
    pseudo (H, W) long: the refined label. confident: the same, 255 where it is less sure than
    `seed_confidence`.
    """

    keys: Tensor
    scores: dict[str, Tensor]
    cams: dict[str, Tensor]
    pseudo: Tensor
    confident: Tensor

    def labels(self, scores: Tensor, power: float) -> Tensor:
        """Return the labels (H, W) that scores (n, H, W) of its classes give, background being
        (1 - max)^power.
        """
        return labels_of(self.keys)[channels_of(scores, power).argmax(dim=0)]

    def at(self, size: Sequence[int]) -> "ImageSeeds":
        """Return the same at another size (height, width): scores interpolated, labels of the
        nearest pixel.
        """

        def resized_maps(maps: Tensor) -> Tensor:
            """Bring maps (n, H, W) to the size; there may be none."""
            if not len(maps):
                return maps.new_zeros(0, *size)
            return resize(maps[None], size)[0]

        return ImageSeeds(
            self.keys,
            {kind: resized_maps(maps) for kind, maps in self.scores.items()},
            {kind: resized_maps(maps) for kind, maps in self.cams.items()},
            labels_at(self.pseudo, size),
            labels_at(self.confident, size),
        )


def labels_at(labels: Tensor, size: Sequence[int]) -> Tensor:
    """Bring labels (H, W) long to a size (height, width), by the nearest pixel."""
    if labels.shape == tuple(size):
        return labels
    maps = labels[None, None].float()
    return F.interpolate(maps, tuple(size), mode="nearest-exact")[0, 0].long()


def as_trained(image: Tensor, config: DataSettings) -> Tensor:
    """Return an image (3, H, W) uint8 as training sees it before the random rescaling: with a
    longer side of at most `train_long` px where that is set, as attention between all patches of
    a photograph would fill any memory.
    """
    return shrunk(image, config.train_long) if config.train_long else image


def padded(image: Tensor, config: DataSettings) -> Tensor:
    """Reflect an image (3, H, W) uint8 to sides that the model takes: normalised (1, 3, H', W')."""
    return pad(
        normalise(image[None], *STATISTICS[config.statistics]), *padding_of(*image.shape[-2:])
    )


def resized(image: Tensor, config: DataSettings) -> Tensor:
    """Stretch an image (3, H, W) uint8 to whole patches, as CLIP-ES does: normalised
    (1, 3, H', W').
    """
    rows, columns = padding_of(*image.shape[-2:])
    pixels = stretched(image, image.shape[-2] + rows, image.shape[-1] + columns)
    return normalise(pixels, *STATISTICS[config.statistics])


@torch.no_grad()
def image_seeds(
    model: CVF, image: Tensor, tags: Tensor, config: Config, phase: Phase = BEGINNING
) -> ImageSeeds:
    """Make seeds and pseudo label of one image (3, H, W) uint8 with tags (K,), above 0 where
    tagged; the model in eval mode. It is seen `as_trained`.

    `phase`: what has begun (model/README.md, "Affinity" and "Targets").
    """
    image = image.to(model.text.device)
    seen = as_trained(image, config)
    seeds = _seeds_of(model, seen, tags.cpu(), config, phase)
    if seen is image:
        return seeds
    return seeds.at(image.shape[-2:])


def _seeds_of(model: CVF, image: Tensor, tags: Tensor, config: Config, phase: Phase) -> ImageSeeds:
    """Do as `image_seeds`, at the image's own size."""
    size = image.shape[-2:]
    stretch = config.seed_size == "resized"
    if stretch:
        pixels = resized(image, config)
        shown = size
    else:
        pixels = padded(image, config)
        shown = pixels.shape[-2:]  # padding is cut off again

    with autocast(image.device, config.precision):
        labels = model(pixels, tags[None], phase).labels
    keys = tags.nonzero()[:, 0].to(image.device)

    def of_image(maps: Tensor) -> Tensor:
        """Cut maps (..., *shown) to the image."""
        return maps[..., : size[0], : size[1]]

    before = replace(labels.seeds, clip=labels.seeds.clip_cams, vit=labels.seeds.vit_cams)
    with float32_region(image.device):
        scores = score_maps(labels.seeds, shown)
        cams = score_maps(before, shown)

    pseudo = labels.combined
    if stretch:
        pseudo = labels_at(pseudo[0], size)[None]
    pseudo = confident = of_image(pseudo[0])

    if config.seed_refinement == "crf":
        kind = kinds_of(model.method.branches)[-1]
        power = background_powers(model.method)[kind]
        with float32_region(image.device):
            channels = with_background(scores[kind], labels.seeds.rows, power)
            channels = join_own(channels, labels.seeds, model.method)
        pseudo, marginal = crf_label(image, keys, of_image(channels[0]), config)
        confident = pseudo.masked_fill(marginal < config.seed_confidence, IGNORE)

    return ImageSeeds(
        keys,
        {kind: of_image(maps) for kind, maps in scores.items()},
        {kind: of_image(maps) for kind, maps in cams.items()},
        pseudo,
        confident,
    )


def crf_label(
    image: Tensor, keys: Tensor, channels: Tensor, config: CRFSettings
) -> tuple[Tensor, Tensor]:
    """Refine scores [background, n classes] (1+n, H, W) of an image (3, H, W) uint8 by the dense
    CRF; returns the labels (H, W) long and their marginals (H, W) in 0..1.
    """
    kept, marginals = crf(image.permute(1, 2, 0), channels, plausible=0, settings=config)
    marginal, winner = marginals.max(dim=0)
    return labels_of(keys)[kept[winner]], marginal


def labels_of(keys: Tensor) -> Tensor:
    """Return labels (1+n,) of the channels [background, n classes]: 0, class + 1."""
    return torch.cat([keys.new_zeros(1), keys + 1])
