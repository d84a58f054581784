"""Test a checkpoint: single scale, multi-scale with mirror images, and the dense CRF, as three labelled results."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from datasets.data import MaskedImages
from datasets.layouts import Item
from datasets.specs import palette
from datasets.transforms import normalise
from model.cvf import CVF
from utils.build import STATISTICS
from utils.config import Config
from utils.crf import crf
from utils.evaluation import ConfusionMatrix
from utils.inference import multi_scale, resize, resize_long
from utils.progress import progress
from utils.runtime import autocast

SINGLE, MULTI, CRF = "single scale", "multi-scale + flip", "multi-scale + flip + CRF"


@dataclass(frozen=True)
class Outputs:
    """What a test writes and does beside the logits. `crf_backend` is "torch" or "pydensecrf"."""

    use_crf: bool = True
    crf_backend: str = "torch"
    save_logits: bool = False


@dataclass(frozen=True)
class Prediction:
    """One image's labels (H, W) uint8 by result, and its multi-scale logits (1, K+1, h, w)."""

    labels: dict[str, Tensor]
    logits: Tensor


@torch.no_grad()
def predict(model: CVF, image: Tensor, config: Config, options: Outputs) -> Prediction:
    """Labels of one image (3, H, W) uint8, at its own size, on the model's device."""
    device, size = model.text.device, image.shape[-2:]
    image = image.to(device)
    normalised = normalise(image[None], *STATISTICS[config.statistics])
    with autocast(device, config.precision):
        single, multi = multi_scale(model.segment, resize_long(normalised, config.resize_long), config.scales)
    labels = {SINGLE: resize(single, size).argmax(1)[0].to(torch.uint8)}
    full = resize(multi, size)[0]
    labels[MULTI] = full.argmax(0).to(torch.uint8)
    if options.use_crf:
        marginals = crf(image.permute(1, 2, 0), full.softmax(0), backend=options.crf_backend)
        labels[CRF] = marginals.argmax(0).to(torch.uint8)
    return Prediction(labels, multi)


def predict_split(
    model: CVF, images: Sequence[Item], config: Config, options: Outputs, folder: Path, ranks: tuple[int, int] = (0, 1)
) -> dict[str, ConfusionMatrix]:  # fmt: skip
    """Predict every image, write PNGs of the last result, count confusion where there are masks.

    `prediction/` holds label PNGs with the VOC palette, `prediction_cmap/` the same as RGB, `logits/` the multi-scale
    logits (float16 .npy, (K+1, h, w)) if asked for. Returns a matrix a result, none without masks.
    """
    data, colours = MaskedImages(images, *ranks), palette()
    matrices: dict[str, ConfusionMatrix] = {}
    for sample in progress(DataLoader(data, None, num_workers=config.workers), config.quiet, desc="testing"):
        prediction = predict(model, sample["image"], config, options)
        last = list(prediction.labels.values())[-1].cpu().numpy()
        name = sample["name"]
        write_labels(last, colours, folder / "prediction" / f"{name}.png", folder / "prediction_cmap" / f"{name}.png")
        if options.save_logits:
            (folder / "logits" / name).parent.mkdir(parents=True, exist_ok=True)
            np.save(folder / "logits" / f"{name}.npy", prediction.logits[0].half().cpu().numpy())
        if "mask" in sample:
            for title, labels in prediction.labels.items():
                matrix = matrices.setdefault(title, ConfusionMatrix(int(prediction.logits.shape[1])))
                matrix.update(labels.cpu(), sample["mask"])
    return matrices


def write_labels(labels: np.ndarray, colours: np.ndarray, palette_path: Path, colour_path: Path) -> None:
    """Labels (H, W) uint8 as a palette PNG and as an RGB PNG, each whole or not at all."""
    for path in (palette_path, colour_path):
        path.parent.mkdir(parents=True, exist_ok=True)
    indexed = Image.fromarray(labels)
    indexed.putpalette(colours.ravel().tolist())
    for picture, path in ((indexed, palette_path), (Image.fromarray(colours[labels]), colour_path)):
        partial = path.with_suffix(".partial")
        picture.save(partial, format="PNG")
        partial.replace(path)
