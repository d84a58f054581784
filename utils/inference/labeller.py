"""CLIP as a function from a picture and its tags to labels, without any training.

It works inside a checkout of this repository:

    from utils.inference import Labeller
    labeller = Labeller.from_clip("cat, dog", clip_path="weights/ViT-B-16.pt")
    labels = labeller("photo.jpg", ["cat"])  # (H, W) uint8
    print([labeller.classes[label] for label in set(labels.ravel())])

CLIP's class activation maps of the tagged classes are spread along affinity (CLIP-ES, Lin et al.,
CVPR 2023), refined along what looks alike in the picture, and brought to the picture's size.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clip.loader import PATCH, load_clip
from clip.resize import resize
from clip.text import text_features
from datasets.classes import given_classes, named_classes
from datasets.specs import DatasetSpec
from datasets.transforms import STATISTICS, normalise
from model.cam import normalise as min_max
from model.cvf import CVF
from model.dense import patch_probabilities
from model.pseudo_labels import CLIP_EPS, channels_of
from utils.build import build_cvf, build_dino
from utils.common.device import autocast, choose_device
from utils.common.errors import UserError
from utils.common.precision import float32_region
from utils.config import RECIPES, Config, load_config
from utils.inference.multi_scale import SMALLEST, stretched
from utils.inference.predictor import OnModel, Picture, as_tensor, building
from utils.inference.refinement import PAR, STEPS, USUAL, Refinement, refined, sure_labels
from utils.metrics import CAMS, TITLES

CAM = CAMS["clip"]
SEED = TITLES["clip"]

# Settings that a labeller starts from, beside the toy CLIP and beside any other.
TOY_SETTINGS = "toy_voc"
SETTINGS = str(RECIPES / "clip_es.yaml")
# What measured best on pictures of toy seed 77 (utils/tools/README.md).
BEST_CAM = "dense"
BEST_POWER = 2  # of the transition matrix
PRESENT = 0.04  # mean probability from which a class is guessed to be there, of 0..1


@dataclass(frozen=True)
class Scores:
    """What CLIP says of the n tagged classes of a picture, on a grid of patches over all of it.

    keys (n,) long: the classes, 0..K-1, ascending. seeds (n, h, w) float16 in 0..1: their class
    activation maps after the transition matrix.
    """

    keys: Tensor
    seeds: Tensor


@dataclass(frozen=True)
class Steps:
    """A picture on its way to labels.

    cams (n, h, w) float16 in 0..1: class activation maps of the tagged classes before the
    transition matrix. scores: after it. labels (H, W) uint8 by step, at the picture's size: CAM,
    SEED, then those of the refinement, of which the last is final.
    """

    cams: Tensor
    scores: Scores
    labels: dict[str, np.ndarray]

    @property
    def final(self) -> np.ndarray:
        """Return labels (H, W) uint8 of the last step."""
        return list(self.labels.values())[-1]


class Labeller(OnModel):
    """A frozen CLIP with classes and settings; call it on pictures with their tags. On a GPU,
    threads may share it if they share a CUDA stream, as they do unless they ask for others.
    """

    def __init__(
        self,
        model: CVF,
        spec: DatasetSpec,
        config: Config,
        refinement: Refinement = USUAL,
        sha256: str = "",
    ) -> None:
        """
        Args:
            model: of branches "clip", on the device it shall run on; nothing trained is used of it.
            spec: names of its classes.
            config: settings; what matters here are resize_long, statistics, precision,
                background_power_clip, par_iterations and the CRF's.
            refinement: how seeds become label maps.
            sha256: digest of CLIP's tensors.
        """
        super().__init__(model, spec, config, sha256)

        self.refinement = refinement

    @classmethod
    @building()
    def from_clip(
        cls,
        classes: DatasetSpec | str | Path | Sequence[str],
        clip_path: str | Path = Config.clip_path,
        refinement: Refinement = USUAL,
        local_rank: int = 0,
        config: str | Sequence[str] = (),
        **settings: Any,
    ) -> "Labeller":
        """Load a CLIP for some classes.

        Args:
            classes: "voc", "coco", a class list file, names in one text separated by commas, a list
                of names that are taken as they stand, or what was read of them.
            clip_path: as `--clip_path`; "toy" is the toy CLIP, which knows toy pictures alone.
            refinement: how seeds become label maps.
            local_rank: number of the GPU for `device="auto"`.
            config: configurations to start from; by default those of the toy beside the toy CLIP,
                else CLIP-ES's.
            settings: fields of `Config` that shall differ, such as device="cpu" or cam="gradcam".

        Raises:
            UserError: classes, weights or a setting cannot be used.
        """
        own = labelling_config(clip_path, config, settings)
        spec = _spec(classes)
        clip = load_clip(own.clip_path, own.clip_activation)
        text = text_features(clip, spec.texts())

        # What would be trained is not used; it is made as small as can be. PAR comes later.
        small = replace(own, decoder_width=8, decoder_layers=0, par_iterations=0, w_cross=0.0)
        model = build_cvf(small, clip, text, None, len(spec.classes), build_dino(small))
        device = choose_device(own.device, local_rank)
        return cls(model.to(device, torch.float32), spec, own, refinement, clip.identity)

    def __call__(self, picture: Picture, tags: str | Sequence[str]) -> np.ndarray:
        """Return labels (H, W) uint8 of a picture at the size it is displayed at: background,
        classes of its tags, or IGNORE.

        Args:
            picture: a path, PIL image, array (H, W, 3) or (H, W) uint8, or tensor (3, H, W) uint8.
            tags: names of the classes it shows; none makes all of it background.

        Raises:
            UserError: a file cannot be read, or a tag is no class.
            ValueError: an array or tensor of another form.
        """
        image = as_tensor(picture)
        return self.labels(image, self.scores(image, tags)).cpu().numpy()

    @torch.no_grad()
    def steps(self, picture: Picture, tags: str | Sequence[str]) -> Steps:
        """Do as a call, with what lies between the picture and its labels."""
        image = as_tensor(picture)
        scores, cams = self._asked(image, tags)
        size = image.shape[-2:]
        maps = {CAM: self._channels(cams, self._patches(size)), **self.step_scores(image, scores)}
        labels = {title: self._label_map(scores.keys, own, size) for title, own in maps.items()}
        return Steps(cams, scores, {title: own.cpu().numpy() for title, own in labels.items()})

    def scores(self, image: Tensor, tags: str | Sequence[str]) -> Scores:
        """Ask CLIP where the tagged classes are in an image (3, H, W) uint8. Raises UserError on
        an unknown tag.
        """
        return self._asked(image, tags)[0]

    @torch.no_grad()
    def labels(self, image: Tensor, scores: Scores) -> Tensor:
        """Refine scores of an image (3, H, W) uint8 into labels (H, W) uint8."""
        *_, channels = self.step_scores(image, scores).values()
        return self._label_map(scores.keys, channels, image.shape[-2:])

    @torch.no_grad()
    def step_scores(self, image: Tensor, scores: Scores) -> dict[str, Tensor]:
        """Refine scores of an image (3, H, W) uint8, without asking CLIP again.

        Returns scores [background, n classes] (1+n, h, w) by title, of the seed and of each step of
        the refinement, at sizes that do not grow with the picture's.
        """
        seed = self._channels(scores.seeds, self._patches(image.shape[-2:]))
        found = {SEED: seed}
        if len(scores.keys):
            pixels = None
            if PAR in STEPS[self.refinement.kind]:
                pixels = self._pixels(image)
            found |= refined(seed, image.to(self.device), pixels, self.refinement, self.config)
        return found

    @torch.no_grad()
    def probabilities(self, picture: Picture) -> Tensor:
        """Return how much of a picture CLIP gives to each class, (K,) float32 in 0..1.

        Each patch is compared with all classes and background words; the mean over patches of a
        class's probability is about its share of the picture.
        """
        pixels = self._pixels(as_tensor(picture))
        with autocast(self.device, self.config.precision):
            tokens = self.model.clip(pixels)

        text = self.model.text
        allowed = torch.ones(1, len(text), dtype=torch.bool, device=text.device)
        with float32_region(self.device):
            patches = tokens[:, 1:].float()
            scores = patch_probabilities(patches, text, self.model.logit_scale, allowed)

        return scores[0].mean(dim=0)[: len(self.spec.classes)].cpu()

    def guess(self, picture: Picture, threshold: float = PRESENT) -> list[str]:
        """Return the classes to which CLIP gives `threshold` or more of a picture, perhaps none."""
        present = self.probabilities(picture) >= threshold
        return [name for name, there in zip(self.spec.classes, present.tolist()) if there]

    @torch.no_grad()
    def _asked(self, image: Tensor, tags: str | Sequence[str]) -> tuple[Scores, Tensor]:
        """Return scores of an image (3, H, W) uint8, and its CAMs (n, h, w) float16 before the
        transition matrix.
        """
        keys = self.keys(tags)
        if not keys:
            height, width = (side // PATCH for side in self._patches(image.shape[-2:]))
            none = torch.zeros(0, height, width, dtype=torch.float16, device=self.device)
            return Scores(torch.zeros(0, dtype=torch.long, device=self.device), none), none

        tagged = torch.zeros(1, len(self.spec.classes), dtype=torch.bool)
        tagged[0, keys] = True
        pixels = self._pixels(image)
        spread, cams = self._maps(pixels, tagged, self.config.precision)
        if not torch.isfinite(spread).all():
            spread, cams = self._maps(pixels, tagged, "fp32")
        if not torch.isfinite(spread).all():
            raise UserError(
                f"CLIP's maps of a picture of {image.shape[2]} x {image.shape[1]} px are not "
                "finite; its weights are at fault, use another"
            )
        return Scores(torch.tensor(keys, device=self.device), spread), cams

    def _maps(self, pixels: Tensor, tagged: Tensor, precision: str) -> tuple[Tensor, Tensor]:
        """Return maps (n, h, w) float16 in 0..1 of the classes tagged (1, K), after and before the
        transition matrix.
        """
        with autocast(self.device, precision):
            seeds = self.model(pixels, tagged).labels.seeds
        with float32_region(self.device):
            spread, cams = (min_max(own, CLIP_EPS).half() for own in (seeds.clip, seeds.clip_cams))
        return spread, cams

    def _patches(self, size: Sequence[int]) -> tuple[int, int]:
        """Return the size (height, width) in px at which CLIP sees a picture of a size: whole
        patches, the longer side at most resize_long.
        """
        scale = min(1.0, self.config.resize_long / max(size))
        height, width = (max(SMALLEST, round(side * scale / PATCH) * PATCH) for side in size)
        return height, width

    def _pixels(self, image: Tensor) -> Tensor:
        """Return an image (3, H, W) uint8 as CLIP sees it: normalised (1, 3, *patches)."""
        pixels = stretched(image, *self._patches(image.shape[-2:])).to(self.device)
        return normalise(pixels, *STATISTICS[self.config.statistics])

    def _channels(self, maps: Tensor, size: Sequence[int]) -> Tensor:
        """Bring scores (n, h, w) to [background, n classes] (1+n, *size) float32."""
        scores = resize(maps.to(self.device).float()[:, None], size)[:, 0]
        return channels_of(scores, self.config.background_power_clip)

    def _label_map(self, keys: Tensor, channels: Tensor, size: Sequence[int]) -> Tensor:
        """Turn channels [background, n classes] (1+n, h, w) into labels (*size) uint8."""
        return sure_labels(keys.to(self.device), channels, size, self.refinement.min_confidence)


def labelling_config(
    clip_path: str | Path, given: str | Sequence[str], settings: dict[str, Any]
) -> Config:
    """Return the settings of a labeller: of configurations, or of the recipe that suits the CLIP,
    with what measured best where nothing else is asked for.

    Raises UserError on what `Config` refuses, and on what has to be trained.
    """
    best: dict[str, Any] = {}
    if not given:
        given = TOY_SETTINGS if str(clip_path) == "toy" else SETTINGS
        best = {
            "cam": BEST_CAM,
            "transition_power": BEST_POWER,
            "par_iterations": Config.par_iterations,
        }

    own = {"branches": "clip", "clip_path": str(clip_path)}
    config = load_config(given, {**best, **settings, **own})
    if config.reweight != "none":
        raise UserError(
            f"--reweight {config.reweight} weighs CAMs by what the network has learned to predict, "
            "and labels are made here without any training; use --reweight none"
        )
    return config


def _spec(classes: DatasetSpec | str | Path | Sequence[str]) -> DatasetSpec:
    if isinstance(classes, DatasetSpec):
        return classes
    if isinstance(classes, str | Path):
        return given_classes(str(classes))
    return named_classes(classes)
