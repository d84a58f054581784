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
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datasets.lists import Item
from datasets.specs import DatasetSpec
from model.cvf import CVF
from utils.build import restore
from utils.common.device import choose_device, fetch, uses_bf16
from utils.common.files import sha256_of
from utils.common.options import options
from utils.config import Config, values_of
from utils.inference.predictor import Found, OnModel, Picture, as_tensor, building
from utils.inference.protocol import Outputs, Prediction, crf_map, predict_batch
from utils.metrics import CRF
from utils.run_folder.checkpoint import checkpoint_config, load_checkpoint

BATCH = 8  # pictures of one size that are predicted together
_ONE_CRF = threading.Lock()  # each takes its share of a GPU's memory


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
                uint8, RGB. Those of a list are all held in memory; those of equal size are
                predicted together.
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
        decisive = [name for name, meaning in options(Config).items() if meaning.decides]
        bf16 = uses_bf16(self.device, self.config.precision)
        settings = {**values_of(self.config, decisive), **asdict(self.options)}
        return {**settings, "device": self.device.type, "bf16": bf16}

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
