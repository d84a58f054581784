"""The test protocol: from an image to its logits and labels, by a network and its settings."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from datasets.transforms import STATISTICS, normalise
from model.cvf import CVF
from utils.common.device import autocast
from utils.common.errors import UserError
from utils.config import Config
from utils.inference.multi_scale import multi_scale, resize_long
from utils.inference.windows import (
    CRF_LONGEST,
    crf_labels,
    crf_labels_by_windows,
    label_map,
    sliding,
)
from utils.metrics import CRF, MULTI, SINGLE, final_title


@dataclass(frozen=True)
class Outputs:
    """What is computed beside the logits. `crf_backend` is "torch" or "pydensecrf".

    sliding: a picture is seen at its own size, by overlapping windows of `resize_long` px, instead
    of as a whole.
    """

    use_crf: bool = True
    crf_backend: str = "torch"
    save_logits: bool = False
    sliding: bool = False


def protocol(config: Config, options: Outputs) -> str:
    """Say in words how a picture is predicted."""
    size = f"long side {config.resize_long} px"
    if options.sliding:
        size = f"own size by windows of {config.resize_long} px"

    crf = "no CRF"
    if options.use_crf:
        crf = f"dense CRF ({options.crf_backend}: {config.crf_words})"

    return (
        f"{size}, scales {' '.join(f'{scale:g}' for scale in config.scales)} with mirror "
        f"images, {crf}"
    )


@dataclass(frozen=True)
class Prediction:
    """One image's labels (H, W) uint8 by result, and its multi-scale logits (1, K+1, h, w)."""

    labels: dict[str, Tensor]
    logits: Tensor

    @property
    def final(self) -> np.ndarray:
        """Return labels (H, W) uint8 of the final result, on the CPU."""
        return self.labels[final_title(self.labels)].cpu().numpy()


def predict(model: CVF, image: Tensor, config: Config, options: Outputs) -> Prediction:
    """Return labels of one image (3, H, W) uint8, at its own size, on the model's device."""
    return predict_batch(model, image[None], config, options)[0]


@torch.no_grad()
def predict_batch(
    model: CVF, images: Tensor, config: Config, options: Outputs, allowed: Tensor | None = None
) -> list[Prediction]:
    """Predict, as `predict` does, images (B, 3, H, W) uint8. Labels that are not `allowed` (K+1,)
    bool are given to no pixel.
    """
    if not len(images):
        return []

    size = images.shape[-2:]
    images = images.to(model.text.device)
    single, multi = _logits(model, images, config, options)
    if not torch.isfinite(multi).all():
        raise UserError(
            f"the network's logits of a picture of {size[1]} x {size[0]} px are not finite; the "
            "checkpoint's weights are at fault, use another"
        )

    predictions = []
    for image, one, many in zip(images, single.split(1), multi.split(1)):
        labels = {SINGLE: label_map(one, size, allowed), MULTI: label_map(many, size, allowed)}
        if options.use_crf:
            labels[CRF] = crf_map(image, many, config, options, allowed)
        predictions.append(Prediction(labels, many))

    return predictions


def _logits(model: CVF, images: Tensor, config: Config, options: Outputs) -> tuple[Tensor, Tensor]:
    """Return single-scale and multi-scale logits (B, K+1, h, w) of images (B, 3, H, W) uint8."""
    mean, std = STATISTICS[config.statistics]
    prepare = partial(normalise, mean=mean, std=std)
    with autocast(images.device, config.precision):
        if options.sliding:
            parts = [
                sliding(model.segment, image[None], prepare, config.resize_long, config.scales)
                for image in images
            ]
            single, multi = (torch.cat(logits) for logits in zip(*parts))
            return single, multi

        small = prepare(resize_long(images.float(), config.resize_long))
        return multi_scale(model.segment, small, config.scales, padded=config.pad_images)


def crf_map(
    image: Tensor, logits: Tensor, config: Config, options: Outputs, allowed: Tensor | None
) -> Tensor:
    """Return labels (H, W) uint8 of the dense CRF on an image (3, H, W) uint8 with its logits
    (1, K+1, h, w).
    """
    backend = options.crf_backend
    if options.sliding:
        return crf_labels_by_windows(image, logits, allowed, backend, config)
    longest = max(CRF_LONGEST, config.resize_long)
    return crf_labels(image, logits, allowed, backend, longest, config)
