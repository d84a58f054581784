"""Attention and affinity between patches by how alike their features are.

A proxy is a source of patch features (CLIP's, the ViT's, DINO's or the decoder's) whose likeness
tells a dense read-out of CLIP which patches each patch attends to, alone or beside what CLIP's own
queries, keys and values say.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from clip.model import VisionTransformer
from clip.resize import resize_tokens
from model.dense import dense_tokens, tokens_by_proxy
from model.method import Method
from model.outputs import Views
from utils.common.precision import float32_region


def centred_cosine(
    features: Tensor, scale: float, shift: float = 1.0, joint: bool = False
) -> Tensor:
    """Compute scale * (cosine - shift * mean cosine) between all patches of an image.

    features (B, N, D) of any width and length -> (B, N, N). scale and shift are the gamma and beta
    of ProxyCLIP. joint: the mean is over the whole batch, as published, so that an image's result
    depends on its batch; else over each image. In float32, as the mean of near-equal values is
    taken off them.
    """
    with float32_region(features.device):
        unit = F.normalize(features.float(), dim=-1)
        cosine = unit @ unit.transpose(1, 2)
        mean = cosine.mean() if joint else cosine.mean(dim=(1, 2), keepdim=True)
        return scale * (cosine - shift * mean)


def proxy_attention(
    features: Tensor, scale: float = 3.0, shift: float = 1.0, joint: bool = False
) -> Tensor:
    """Compute attention (B, N, N), rows summing to 1, to those patches that are alike in features.

    Patches less alike than `shift` times the mean get none; a patch that is like none keeps to
    itself, where the published code gives NaN. features (B, N, D) of a proxy: ProxyCLIP (Lan et
    al., ECCV 2024) takes DINO's with shift 1.2, ExCEL's learned proxy (Yang et al., CVPR 2025) the
    decoder's with shift 1.
    """
    scores = centred_cosine(features, scale, shift, joint)
    itself = torch.eye(scores.shape[-1], dtype=torch.bool, device=scores.device)
    unlike = (scores < 0) & ~itself
    return scores.masked_fill(unlike, float("-inf")).softmax(dim=-1)


def cosine_affinity(features: Tensor, scale: float = 3.0, joint: bool = False) -> Tensor:
    """Predict how likely two patches share a label, (B, N, N) in 0..1, from features (B, N, D).

    Sigmoid of centred cosines, which does not saturate as that of raw products does (ExCEL).
    """
    return torch.sigmoid(centred_cosine(features, scale, joint=joint))


def proxy_features(views: Views, method: Method) -> tuple[Tensor, tuple[int, int]] | None:
    """Choose the patch features (B, N, D), float32, that the proxy compares, and their grid (h, w).

    None without a proxy, and before the switch-over for one that is learned.
    """
    if method.proxy == "clip":
        # tokens end with block L-1, which is block -2
        return views.clip.tokens[method.proxy_block + 1][:, 1:].float(), views.clip.grid

    if method.proxy == "vit" and views.vit is not None:
        height, width = views.vit.x_patch.shape[-2:]
        return views.vit.x_patch.flatten(2).transpose(1, 2).float(), (height, width)

    if method.proxy == "dino" and views.dino is not None:
        return views.dino.patches.float(), views.dino.grid

    if method.proxy == "learned" and views.phase.after_switch:
        return views.fused.detach().float(), views.clip.grid
    return None


def read_out(visual: VisionTransformer, views: Views, method: Method) -> Tensor:
    """Read CLIP's last blocks out densely, (B, T, E), as the settings and their proxy say.

    A proxy that is added to other attention is made on CLIP's grid; one that stands alone is made
    on that of its features, and what it reads out is brought to CLIP's.
    """
    tokens = views.clip.tokens[-method.dense_blocks].float()  # those that enter the first of them
    grid = views.clip.grid
    found = proxy_features(views, method)
    if found is None:
        return dense_tokens(visual, tokens, grid, method.readout)

    features, size = found
    alone = method.dense_parts == "proxy"
    if not alone:
        features = resize_tokens(features, size, grid)
        size = grid

    attention = proxy_attention(features, method.proxy_gamma, method.proxy_beta)
    if alone:
        return tokens_by_proxy(visual, tokens, grid, attention, size)
    return dense_tokens(visual, tokens, grid, method.readout, attention)
