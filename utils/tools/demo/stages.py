"""What each stage of the method makes of a photo, once; sliders draw it again and again."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from datasets.annotations import class_of
from datasets.specs import DatasetSpec
from datasets.tables import split_words
from datasets.transforms import STATISTICS, normalise
from model.pseudo_labels import background_powers, channels_of
from utils.common.errors import UserError
from utils.inference.labeller import CAM, SEED, Labeller
from utils.inference.multi_scale import shrunk
from utils.inference.refinement import CRF, PAR, Refinement, refined
from utils.inference.seeds import image_seeds
from utils.inference.segmenter import Segmenter
from utils.metrics import CAMS, TITLES, kinds_of

PREDICTION = "prediction"
# Each made of the seed by itself, as the CRF alone measured best.
REFINEMENTS = (Refinement("par"), Refinement("crf"))
MEANING = {
    CAMS["clip"]: "where CLIP sees the tags",
    CAMS["vit"]: "where the class-token ViT sees them",
    CAMS["fused"]: "the mean of both",
    TITLES["clip"]: "CLIP CAM, spread along affinity",
    TITLES["vit"]: "ViT CAM, spread along affinity",
    TITLES["fused"]: "both, spread along affinity",
    PAR: "the seed, refined by pixels that look alike",
    CRF: "the seed, refined by a dense CRF",
    PREDICTION: "the trained decoder, among the tags",
}


@dataclass(frozen=True, eq=False)
class Stages:
    """A photo with n tagged classes on its way to labels.

    image (H, W, 3) uint8. keys (n,) long: the classes, 0..K-1, ascending. maps: their scores
    (n, h, w) in 0..1 by title. channels: scores [background, n classes] (1+n, h, w) by title, whose
    highest gives the label; not above 1 by more than PAR's weights. All on the CPU.
    """

    image: np.ndarray
    keys: Tensor
    maps: dict[str, Tensor]
    channels: dict[str, Tensor]


class Explorer(Protocol):
    """What the page asks for the stages of a photo."""

    @property
    def spec(self) -> DatasetSpec:
        """Return the names of the classes."""

    @property
    def toy(self) -> bool:
        """Return whether its CLIP knows drawn pictures alone."""

    def stages(self, image: np.ndarray, tags: Sequence[str]) -> Stages:
        """Run the networks on an image (H, W, 3) uint8 of which classes are known."""


class ByClip:
    """The stages of a CLIP without training."""

    def __init__(self, labeller: Labeller) -> None:
        """
        Args:
            labeller: of any refinement.
        """
        given = (labeller.model, labeller.spec, labeller.config)
        self.spec = labeller.spec
        self.toy = not labeller.config.full_size
        self._seeder = Labeller(*given, Refinement("none"))
        self._refiners = [Labeller(*given, refinement) for refinement in REFINEMENTS]

    def stages(self, image: np.ndarray, tags: Sequence[str]) -> Stages:
        """Make stages, as `Explorer` says."""
        pixels = torch.from_numpy(image).permute(2, 0, 1)
        steps = self._seeder.steps(pixels, tags)
        channels = {}
        for refiner in self._refiners:
            *_, (title, scores) = refiner.step_scores(pixels, steps.scores).items()
            channels[title] = scores
        maps = {CAM: steps.cams, SEED: steps.scores.seeds}
        return _on_cpu(image, steps.scores.keys, maps, channels)


class ByCheckpoint:
    """The stages of a trained checkpoint, both branches where it has both."""

    def __init__(self, segmenter: Segmenter) -> None:
        """
        Args:
            segmenter: whose output options leave the CRF out.
        """
        self.spec = segmenter.spec
        self.toy = not segmenter.config.full_size
        self._segmenter = segmenter

    @torch.no_grad()
    def stages(self, image: np.ndarray, tags: Sequence[str]) -> Stages:
        """Make stages, as `Explorer` says; networks see a longer side of at most `resize_long`."""
        segmenter = self._segmenter
        model = segmenter.model
        config = segmenter.config
        pixels = torch.from_numpy(image).permute(2, 0, 1).to(segmenter.device)
        seen = shrunk(pixels, config.resize_long)

        tagged = torch.tensor([float(name in tags) for name in self.spec.classes])
        seeds = image_seeds(model, seen, tagged, config, config.phase(config.max_iters))
        kind = kinds_of(model.method.branches)[-1]
        maps = {CAMS[branch]: cams for branch, cams in seeds.cams.items()}
        maps[TITLES[kind]] = seeds.scores[kind]

        seed = channels_of(seeds.scores[kind], background_powers(model.method)[kind])
        normalised = normalise(seen[None], *STATISTICS[config.statistics])
        channels: dict[str, Tensor] = {}
        for refinement in REFINEMENTS:
            channels |= refined(seed, pixels, normalised, refinement, config)

        logits = segmenter.predict(seen[None])[0].logits[0].float()
        labels = [0, *(seeds.keys + 1).tolist()]
        channels[PREDICTION] = logits[labels].softmax(dim=0)
        return _on_cpu(image, seeds.keys, maps, channels)


def _on_cpu(
    image: np.ndarray, keys: Tensor, maps: dict[str, Tensor], channels: dict[str, Tensor]
) -> Stages:
    maps, channels = (
        {title: scores.float().cpu() for title, scores in own.items()} for own in (maps, channels)
    )
    return Stages(image, keys.cpu(), maps, channels)


def chosen_tags(typed: str, ticked: Sequence[str], spec: DatasetSpec) -> list[str]:
    """Return the classes that are typed, apart by commas, or ticked, in the order of the class
    list.

    Raises:
        UserError: there is none, or a typed word is no class; it names the nearest one.
    """
    words = split_words(typed, spec.classes)
    chosen = {*ticked, *(class_of(word, spec, "the photo") for word in words)} - {""}
    if not chosen:
        raise UserError("the photo has no tags; tick or type at least one class that it shows")
    return [name for name in spec.classes if name in chosen]
