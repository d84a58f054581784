"""Class activation maps of CLIP: which patches raise the probability of a tagged class (Grad-CAM on
the text match).
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import record_function

from clip.model import VisionTransformer
from model.class_rows import ClassRows
from model.precision import float32_region, to_device


@dataclass(frozen=True)
class GradCAM:
    """Grad-CAM of all tagged classes of a batch, without gradient.

    cams (n, h, w) in 0..1, rows as in `ClassRows`; probs (B, K+M): class probabilities over the
    tagged classes and all background texts, 0 for untagged classes; channel_weights (n, C):
    gradient of each row's probability, mean over patches; activations (B, N, C).
    """

    cams: Tensor
    probs: Tensor
    channel_weights: Tensor
    activations: Tensor


def normalise(maps: Tensor, eps: float = 1e-7) -> Tensor:
    """Maps (n, h, w), each brought to 0..1: (m - min) / (eps + max(m - min)). A constant map
    becomes 0.
    """
    maps = maps - maps.amin(dim=(-2, -1), keepdim=True)
    return maps / (eps + maps.amax(dim=(-2, -1), keepdim=True))


def text_probabilities(
    patches: Tensor, text: Tensor, logit_scale: float, allowed: Tensor
) -> Tensor:
    """Patch tokens (B, N, E) in the joint space, texts (T, E), allowed (B, T) bool -> probabilities
    (B, T).

    Softmax of exp(logit_scale) * cosine between the mean patch and each allowed text
    (model/README.md, "Grad-CAM").
    """
    image = F.normalize(patches.mean(dim=1), dim=-1)
    logits = image @ F.normalize(text, dim=-1).T * math.exp(logit_scale)
    return torch.softmax(logits.masked_fill(~allowed, float("-inf")), dim=-1)


@record_function("Grad-CAM")
def gradcam(
    visual: VisionTransformer,
    logit_scale: float,
    tokens: Tensor,
    grid: tuple[int, int],
    rows: ClassRows,
    text: Tensor,
    block: int = -1,
) -> GradCAM:
    """Grad-CAM at the first LayerNorm of `visual.blocks[block]`, for all images and tagged classes
    at once.

    tokens (B, T, C): the residual stream that enters that block; text (K+M, E): text features, K
    classes then M >= 1 background words; logit_scale: CLIP's own, a logarithm. The channel weight
    is the patch mean of d probability / d activation, the residual path being constant; map =
    relu(weighted sum of the activations), normalised twice as published (CLIP-ES). Builds its
    own graph under `torch.no_grad` too, but not in inference mode. Under autocast the blocks
    run in half precision; all that follows them (text match, weighted sum, min-max) in float32.
    """
    # One copy of an image for each of its classes, or one if it has none. Copies do not mix, so a
    # single backward of the summed probabilities gives every row its own gradient.
    images, classes, tagged, first = rows.copies()
    allowed = to_device(rows.allowed(len(text)), tokens.device)[images]
    stream = tokens.detach().float()[images]
    activations = visual.blocks[block].ln_1(stream).detach()
    shift = torch.zeros_like(stream[:, :1], requires_grad=True)

    with torch.enable_grad():
        last = _run(visual, stream, activations, shift, block)
        with float32_region(tokens.device):
            # The mean patch may be taken before the linear projection: the same number, and little
            # left to project.
            mean = visual.ln_post(last.float()[:, 1:]).mean(dim=1, keepdim=True)
            probs = text_probabilities(mean @ visual.proj, text, logit_scale, allowed)
            (gradient,) = torch.autograd.grad(probs.gather(1, classes[:, None]).sum(), shift)

    patches = activations[:, 1:]
    weights = gradient[tagged, 0] / patches.shape[1]
    with float32_region(tokens.device):
        cams = torch.relu(torch.einsum("nc,npc->np", weights, patches[tagged])).unflatten(1, grid)

    return GradCAM(normalise(normalise(cams)), probs.detach()[first], weights, patches[first])


def _run(
    visual: VisionTransformer, stream: Tensor, activations: Tensor, shift: Tensor, block: int
) -> Tensor:
    """Blocks from `block` on -> last tokens (m, T, C).

    stream (m, T, C) enters the first of them; activations are its ln_1 output, to whose patches
    shift (m, 1, C) is added.
    """
    first, *later = list(visual.blocks)[block:]
    stream = first.mix(stream, first.attn(activations, shift=shift))
    for following in later:
        stream = following(stream)
    return stream
