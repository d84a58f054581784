"""A trained checkpoint as a function from pictures to labels, for the test scripts and for other
programs.

It works inside a checkout of this repository:

    from utils.inference import Segmenter
    segmenter = Segmenter.from_checkpoint("model/toy_voc.pt")
    labels = segmenter("photo.jpg")  # (H, W) uint8
    print([segmenter.classes[label] for label in set(labels.ravel())])
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datasets.lists import Item
from datasets.pictures import as_shown, load_image
from datasets.specs import DatasetSpec
from datasets.transforms import STATISTICS, normalise
from model.cvf import CVF
from utils.build import restore
from utils.common.device import autocast, choose_device, fetch, uses_bf16
from utils.common.errors import UserError
from utils.common.files import sha256_of
from utils.common.options import Role, options
from utils.config import CONFIG_FILE, Config, from_dict, names_of, read_yaml
from utils.inference.multi_scale import multi_scale, resize_long
from utils.inference.predictor import Found, OnModel, building
from utils.inference.windows import (
    CRF_LONGEST,
    crf_labels,
    crf_labels_by_windows,
    label_map,
    sliding,
)
from utils.metrics import CRF, MULTI, SINGLE, final_title
from utils.run_folder.checkpoint import load_checkpoint

BATCH = 8  # pictures of one size that are predicted together
_ONE_CRF = threading.Lock()  # each takes its share of a GPU's memory
Picture = str | Path | Image.Image | np.ndarray | Tensor


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


def _logits(model: CVF, images: Tensor, config: Config, options: Outputs) -> tuple[Tensor, Tensor]:
    """Return single-scale and multi-scale logits (B, K+1, h, w) of images (B, 3, H, W) uint8."""
    prepare = partial(_normalised, statistics=config.statistics)
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


def crf_map(
    image: Tensor, logits: Tensor, config: Config, options: Outputs, allowed: Tensor | None
) -> Tensor:
    """Return labels (H, W) uint8 of the dense CRF on an image (3, H, W) uint8 with its logits
    (1, K+1, h, w).
    """
    backend = options.crf_backend
    if options.sliding:
        return crf_labels_by_windows(image, logits, allowed, backend, config.crf)
    longest = max(CRF_LONGEST, config.resize_long)
    return crf_labels(image, logits, allowed, backend, longest, config.crf)


def _normalised(images: Tensor, statistics: str) -> Tensor:
    return normalise(images, *STATISTICS[statistics])


class Segmenter(OnModel):
    """Model, classes and settings of a checkpoint; call it on pictures. On a GPU, threads may share
    it if they share a CUDA stream, as they do unless they ask for others.
    """

    def __init__(
        self, model: CVF, spec: DatasetSpec, config: Config, options: Outputs, sha256: str
    ) -> None:
        """
        Args:
            model: on the device it shall run on.
            spec: names of its classes.
            config: settings; what matters here are resize_long, scales, statistics, pad_images and
                precision.
            options: CRF and windows.
            sha256: of the checkpoint's file.
        """
        super().__init__(model, spec, config, sha256)
        self.options = options

    @classmethod
    @building()
    def from_checkpoint(
        cls, path: str | Path, options: Outputs = Outputs(), local_rank: int = 0, **settings: Any
    ) -> "Segmenter":
        """Load a checkpoint that training wrote; it brings its configuration along.

        Args:
            path: the file.
            options: CRF and windows.
            local_rank: number of the GPU for `device="auto"`.
            settings: fields of `Config` that shall differ, such as device="cpu", scales=[1.0] or
                clip_path="...".

        Raises:
            UserError: the file is no checkpoint, its CLIP is not found, or a setting is unknown or
                does not fit.
        """
        path = Path(path)
        checkpoint = load_checkpoint(path, "--model_path")
        config = checkpoint_config(checkpoint["config"], path, settings)

        device = choose_device(config.device, local_rank)
        model, spec = restore(checkpoint, config, settings.get("clip_path"))
        return cls(model.to(device, torch.float32), spec, config, options, sha256_of(path))

    def __call__(
        self,
        pictures: Picture | list[Picture] | tuple[Picture, ...],
        tags: str | Sequence[str] | None = None,
    ) -> np.ndarray | list[np.ndarray]:
        """Return labels (H, W) uint8 of a picture at the size it is displayed at; a list of them
        for a list or tuple.

        Args:
            pictures: paths, PIL images, arrays (H, W, 3) or (H, W) uint8, or tensors (3, H, W)
                uint8, RGB. Those of a
                list are all held in memory; those of equal size are predicted together.
            tags: names of the classes that may occur, whatever their case, beside background; by
                default all.

        Raises:
            UserError: a file cannot be read, or a tag is no class of this checkpoint.
            ValueError: an array or tensor of another form, or without a pixel, or no picture.
        """
        if not isinstance(pictures, (list, tuple)):
            return self([pictures], tags)[0]

        images = [as_tensor(picture) for picture in pictures]
        allowed = self.allowed(tags)
        by_size: dict[torch.Size, list[int]] = {}
        for index, image in enumerate(images):
            by_size.setdefault(image.shape, []).append(index)

        labels: list[np.ndarray] = [np.empty(0)] * len(images)
        for same in by_size.values():
            for batch in (same[start : start + BATCH] for start in range(0, len(same), BATCH)):
                predictions = self.predict(
                    torch.stack([images[index].to(self.device) for index in batch]), allowed
                )
                for index, prediction in zip(batch, predictions):
                    labels[index] = prediction.final

        return labels

    def predict(self, images: Tensor, allowed: Tensor | None = None) -> list[Prediction]:
        """Return all results of images (B, 3, H, W) uint8, with the labels `allowed` (K+1,) bool
        alone.
        """
        return predict_batch(self.model, images, self.config, self.options, allowed)

    def choices(self) -> dict[str, Any]:
        """Return everything but the checkpoint and tags that changes what is predicted."""
        decisive = {
            name: getattr(self.config, name)
            for name, meaning in options(Config).items()
            if meaning.decides
        }
        bf16 = uses_bf16(self.device, self.config.precision)
        return {**decisive, **asdict(self.options), "device": self.device.type, "bf16": bf16}

    def set_off(self, item: Item, image: Tensor, tags: list[str] | None) -> Callable[[], Found]:
        """Begin to predict an image (3, H, W) uint8, as `predict_split` asks for it.

        On a GPU the CRF is left to the thread that waits for the labels: it is many small
        operations, between which the network of the next image can run.
        """
        image = image.to(self.device)
        allowed = self.allowed(tags)
        crf_later = self.options.use_crf and image.is_cuda
        options = replace(self.options, use_crf=self.options.use_crf and not crf_later)
        (prediction,) = predict_batch(self.model, image[None], self.config, options, allowed)
        labels = {title: fetch(each) for title, each in prediction.labels.items()}
        logits = None
        if self.options.save_logits:
            logits = fetch(prediction.logits[0])
        predicted = None
        if crf_later:
            predicted = torch.cuda.current_stream(self.device).record_event()

        def found() -> Found:
            """Wait for the labels, and for the logits where they are kept."""
            maps = {title: each().numpy() for title, each in labels.items()}
            if predicted is not None:
                with _ONE_CRF, torch.cuda.device(self.device):
                    torch.cuda.current_stream().wait_event(predicted)
                    final = crf_map(image, prediction.logits, self.config, self.options, allowed)
                    maps[CRF] = final.cpu().numpy()
            if logits is None:
                return Found(maps)
            return Found(maps, logits().numpy())

        return found

    def allowed(self, tags: str | Sequence[str] | None) -> Tensor | None:
        """Return (K+1,) bool of background and the tagged classes; None for no tags. UserError on
        an unknown class.
        """
        if tags is None:
            return None
        allowed = torch.zeros(len(self.classes), dtype=torch.bool)
        allowed[[0, *(key + 1 for key in self.keys(tags))]] = True
        return allowed.to(self.device)


def checkpoint_config(stored: dict[str, Any], model_path: Path, flags: dict[str, Any]) -> Config:
    """Return a checkpoint's configuration, its places from the run folder it lies in (if whole),
    the machine's settings as they are by default, flags on top.

    Results go to the run folder, or for a checkpoint that lies elsewhere to runs/test_NAME.
    """
    values = dict(stored)
    run = model_path.resolve().parent.parent
    if (run / CONFIG_FILE).is_file():
        saved = read_yaml(run / CONFIG_FILE)
        values |= {name: saved[name] for name in names_of(Role.PLACE) if name in saved}
        values["work_dir"] = str(run)
    else:
        values["work_dir"] = str(Path("runs") / f"test_{model_path.stem}")

    defaults = asdict(Config())
    for name in names_of(Role.MACHINE):
        values[name] = defaults[name]
    return from_dict({**values, **flags}, str(model_path))


def as_tensor(picture: Picture) -> Tensor:
    """Return (3, H, W) uint8 RGB of a picture in any of its forms. Raises UserError and ValueError
    as `Segmenter`.
    """
    if isinstance(picture, Tensor):
        coloured = picture.ndim == 3 and picture.shape[0] == 3
        if picture.dtype != torch.uint8 or not coloured or not picture.numel():
            raise ValueError(
                f"tensor {tuple(picture.shape)} of {picture.dtype} is not (3, H, W) of torch.uint8"
            )
        return picture
    if isinstance(picture, np.ndarray):
        if (
            picture.dtype != np.uint8
            or picture.ndim not in (2, 3)
            or picture.shape[2:] not in ((), (3,))
            or not picture.size
        ):
            raise ValueError(
                f"array {picture.shape} of {picture.dtype} is not (H, W, 3) or (H, W) of uint8"
            )
        picture = Image.fromarray(picture)

    if isinstance(picture, Image.Image):
        array = as_shown(picture)
    elif isinstance(picture, (str, PathLike)):
        array = load_image(picture)
    else:
        raise ValueError(
            f"a {type(picture).__name__} is no picture; give a path, PIL image, array or tensor"
        )
    return torch.from_numpy(array).permute(2, 0, 1)
