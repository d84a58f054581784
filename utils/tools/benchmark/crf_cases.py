"""Pictures with class probabilities to measure the dense CRF on: drawn ones, photographs,
predictions of a model.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clip.resize import resize
from datasets.pictures import load_image
from datasets.toy.scene import random_classes, render
from utils.inference.protocol import Outputs
from utils.inference.segmenter import Segmenter

SIZES = ((21, (375, 500)), (81, (480, 640)))  # labels, and the size of a drawn picture
Case = tuple[str, Tensor, Tensor]  # title, image (H, W, 3) uint8, probabilities (C, H, W)


def crf_cases(folder: Path | None, model_path: Path | None, device: torch.device) -> Iterator[Case]:
    """Yield pictures with class probabilities, on the device.

    Without a folder: one drawn picture for each of SIZES. With one: its JPEG files, each with what
    the checkpoint predicts, or without a checkpoint with random regions of each number of labels in
    SIZES.
    """
    if folder is None:
        for labels, size in SIZES:
            yield _case("drawn", *crf_input(labels, size), device)
        return

    ways = [
        lambda image, labels=labels: random_regions(labels, image.shape[:2]) for labels, _ in SIZES
    ]
    if model_path:
        ways = [
            partial(
                predicted,
                Segmenter.from_checkpoint(model_path, Outputs(use_crf=False), device=str(device)),
            )
        ]

    for way in ways:
        for photograph in sorted(folder.glob("*.jpg")):
            image = torch.from_numpy(load_image(str(photograph)))
            yield _case(photograph.name, image, way(image), device)


def _case(name: str, image: Tensor, probs: Tensor, device: torch.device) -> Case:
    return (
        f"{name}, {len(probs)} x {image.shape[1]} x {image.shape[0]}",
        image.to(device),
        probs.to(device),
    )


def predicted(segmenter: Segmenter, image: Tensor) -> Tensor:
    """Return multi-scale + flip probabilities (K+1, H, W) of an image (H, W, 3) uint8."""
    (prediction,) = segmenter.predict(image.permute(2, 0, 1)[None])
    return resize(prediction.logits, image.shape[:2])[0].softmax(0)


def random_regions(labels: int, size: tuple[int, int]) -> Tensor:
    """Return (labels, *size) probabilities of random regions, nearly all of six of the labels, the
    same at every call.
    """
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(1, labels, *(-(-side // 32) for side in size), generator=generator)
    chosen = torch.randperm(labels, generator=generator)[:6]
    coarse[:, chosen] = 6 + 3 * coarse[:, chosen]
    return resize(coarse, size)[0].softmax(0)


def crf_input(labels: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Make a toy picture (H, W, 3) uint8 and (labels, H, W) probabilities, as of a network of
    stride 16 often right.
    """
    rng = np.random.default_rng(0)
    scene = render(rng, *size, random_classes(rng))
    truth = torch.from_numpy(scene.labels).long().clamp(max=labels - 1)
    logits = F.one_hot(truth, labels).permute(2, 0, 1)[None].float()
    coarse = F.adaptive_avg_pool2d(logits, (size[0] // 16, size[1] // 16))
    noise = torch.from_numpy(rng.normal(size=coarse.shape)).float()
    return torch.from_numpy(scene.image), resize(9 * coarse + 1.2 * noise, size)[0].softmax(0)
