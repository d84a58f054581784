"""A labeller over a list of pictures: what CLIP says of each is kept on disk, so that another
refinement does not ask it again.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from datasets.lists import Item
from utils.common.device import fetch, uses_bf16
from utils.common.files import write_whole
from utils.common.options import Role, options
from utils.config import Config, names_of, values_of
from utils.inference.labeller import Labeller, Scores
from utils.inference.predict import GUESSED
from utils.inference.predictor import Found
from utils.settings.running import CRFSettings

SCORES = "scores"  # folder in that of the labels
LABELS = "labels"  # title of the result
MADE_FROM = "made_from"  # in a file of scores: digest of all but the tags that decides them
THRESHOLD = "threshold"  # in a file of scores: that of guessed tags
# Settings that say how scores become labels, beside those of the CRF; no scores depend on them.
_REFINING = ("par_iterations", "background_power_clip")
_SEEING = ("statistics", "resize_long")


class KeptScores:
    """A labeller as `predict_split` asks for it, with a folder of scores.

    A file of scores bears the digest of what it was made from: CLIP, DINO, texts, settings, and the
    picture's pixels. One of another digest, or of other tags, is made anew.
    """

    def __init__(self, labeller: Labeller, folder: Path, threshold: float | None = None) -> None:
        """
        Args:
            labeller: it does the work.
            folder: where scores are kept.
            threshold: classes whose probability reaches it are the tags of pictures without; None
                guesses nothing.
        """
        self.labeller = labeller
        self.folder = folder
        self.threshold = threshold
        self._asked = asked(labeller)

    @property
    def config(self) -> Config:
        """Return the settings of the labeller."""
        return self.labeller.config

    @property
    def sha256(self) -> str:
        """Return the digest of CLIP."""
        return self.labeller.sha256

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the names of labels 0..K, background first."""
        return self.labeller.classes

    def choices(self) -> dict[str, Any]:
        """Return all that changes the labels but CLIP, the pictures and their tags."""
        refinement = self.labeller.refinement
        return {
            "refine": refinement.kind,
            "min_confidence": refinement.min_confidence,
            **self._asked,
            **values_of(self.config, [*_REFINING, *options(CRFSettings)]),
        }

    def set_off(self, item: Item, image: Tensor, tags: list[str] | None) -> Callable[[], Found]:
        """Begin to label an image (3, H, W) uint8 with its tags, or with those that CLIP guesses;
        an image in which it finds no class is left out.
        """
        file = self.folder / f"{item.name}.safetensors"
        digest = self._digest(image)
        scores = self._kept(file, digest, tags)
        if scores is None:
            about = {MADE_FROM: digest}
            given = tags
            if given is None:
                given = self._guessed(image)
                if not given:
                    facts = {"error": self._without_class(item), GUESSED: self.threshold}
                    return lambda: Found({}, facts=facts)
                about[THRESHOLD] = str(self.threshold)

            scores = self.labeller.scores(image, given)
            write_whole(file, packed(scores, about))

        labels = fetch(self.labeller.labels(image, scores))
        told: dict[str, Any] = {}
        if tags is None:
            names = self.labeller.spec.classes
            told = {"tags": [names[key] for key in scores.keys.tolist()], GUESSED: self.threshold}
        return lambda: Found({LABELS: labels().numpy()}, facts=told)

    def _guessed(self, image: Tensor) -> list[str]:
        if self.threshold is None:
            raise ValueError("an image without tags, and nothing is to be guessed")
        return self.labeller.guess(image, self.threshold)

    def _without_class(self, item: Item) -> str:
        return (
            f"image {item.image} shows no class that CLIP gives a score of {self.threshold:g}; "
            "write its tags, or lower --guess_threshold"
        )

    def _digest(self, image: Tensor) -> str:
        """Return the digest of all but the tags that decides the scores of an image (3, H, W)."""
        of = {"clip": self.sha256, "asked": self._asked, "shape": list(image.shape)}
        digest = hashlib.sha256(json.dumps(of, sort_keys=True).encode())
        digest.update(image.permute(1, 2, 0).contiguous().numpy().data)
        return digest.hexdigest()

    def _kept(self, file: Path, digest: str, tags: list[str] | None) -> Scores | None:
        """Return the scores of a file that were made as they would be made now, else None."""
        try:
            with safe_open(file, "pt") as content:
                about: Mapping[str, str] = content.metadata() or {}
                keys = content.get_tensor("keys").long()
                seeds = content.get_tensor("seeds")
        except (OSError, SafetensorError):
            return None

        if about.get(MADE_FROM) != digest:
            return None
        if tags is None:
            fits = about.get(THRESHOLD) == str(self.threshold)
        else:
            fits = keys.tolist() == self.labeller.keys(tags)
        if not fits:
            return None
        return Scores(keys, seeds)


def asked(labeller: Labeller) -> dict[str, Any]:
    """Return what CLIP is asked and how, but for pictures and tags, as plain values."""
    config = labeller.config
    chosen = [name for name in (*names_of(Role.METHOD), *_SEEING) if name not in _REFINING]
    texts = "\n".join(labeller.spec.texts())
    dino = ""
    if labeller.model.dino is not None:
        dino = labeller.model.dino.identity

    return {
        **values_of(config, chosen),
        "classes": list(labeller.classes),
        "texts": hashlib.sha256(texts.encode()).hexdigest(),
        "dino": dino,
        "device": labeller.device.type,
        "bf16": uses_bf16(labeller.device, config.precision),
    }


def packed(scores: Scores, about: dict[str, str]) -> bytes:
    """Return the content of a file of scores: `keys` (n,) uint8 and `seeds` (n, h, w) float16."""
    tensors = {"keys": scores.keys.to(torch.uint8), "seeds": scores.seeds}
    return save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, about)
