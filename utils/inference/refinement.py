"""How the scores of a picture's few classes become its label map: pixel-adaptive refinement, the
dense CRF, or one after the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clip.resize import resize
from model.losses import IGNORE
from model.par import refine
from utils.common.errors import UserError
from utils.config import Config
from utils.inference.crf import crf
from utils.inference.multi_scale import shrunk
from utils.inference.seeds import labels_of
from utils.inference.windows import CRF_LONGEST, label_map

PAR = "PAR"
CRF = "CRF"
STEPS = {"none": (), "par": (PAR,), "crf": (CRF,), "both": (PAR, CRF)}
BEST_REFINEMENT = "crf"  # on pictures of toy seed 77 with their masks (utils/tools/README.md)


@dataclass(frozen=True)
class Refinement:
    """How seeds become label maps.

    kind: one of STEPS. min_confidence: share, 0..1, of the scores at a pixel that the highest
    needs; below it the pixel is IGNORE. Raises UserError on anything else.
    """

    kind: str = BEST_REFINEMENT
    min_confidence: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in STEPS:
            raise UserError(f"--refine {self.kind} is unknown; use one of {', '.join(STEPS)}")
        if not 0 <= self.min_confidence <= 1:
            raise UserError(
                f"--min_confidence {self.min_confidence:g} must lie between 0 and 1; 0 leaves no "
                "pixel out"
            )


USUAL = Refinement()


def refined(
    channels: Tensor, image: Tensor, pixels: Tensor | None, refinement: Refinement, config: Config
) -> dict[str, Tensor]:
    """Refine scores [background, n classes] (1+n, h, w) by each step, made of the one before.

    Args:
        channels: at the size at which CLIP saw the picture.
        image: (3, H, W) uint8, for the CRF, which sees it with a longer side of at most
            CRF_LONGEST or resize_long.
        pixels: (1, 3, h, w) normalised, for PAR.
        refinement: which steps.
        config: rounds of PAR, numbers of the CRF.

    Returns:
        scores (1+n, h', w') by step, of the CRF marginals; empty without a step.
    """
    found: dict[str, Tensor] = {}
    steps = STEPS[refinement.kind]
    if PAR in steps and pixels is not None:
        (channels,) = refine(pixels, [channels], config.par_iterations)
        found[PAR] = channels

    if CRF in steps:
        image = shrunk(image, max(CRF_LONGEST, config.resize_long))
        probs = resize(channels[None], image.shape[-2:])[0]
        # all labels take part, as there are few
        _, found[CRF] = crf(image.permute(1, 2, 0), probs, plausible=0, settings=config)
    return found


def sure_labels(keys: Tensor, channels: Tensor, size: Sequence[int], least: float) -> Tensor:
    """Turn scores [background, n classes] (1+n, h, w) of classes (n,) into labels (*size) uint8;
    IGNORE where the highest score has less than `least`, 0..1, of their sum.
    """
    names = torch.full((IGNORE + 1,), IGNORE, dtype=torch.uint8, device=channels.device)
    names[: len(channels)] = labels_of(keys).to(torch.uint8)
    return names[label_map(channels[None], size, least=least).long()]
