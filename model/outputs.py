"""What the stages of the method hand on to each other."""

from dataclasses import dataclass

from torch import Tensor

from clip.model import ImageFeatures
from model.class_rows import ClassRows
from model.dino import DinoFeatures
from model.method import Phase


@dataclass(frozen=True)
class VitOutput:
    """What one forward of `ClassTokenViT` gives; the attention maps and CAMs carry no gradient.

    cls_logits (B, K): mean over channels of the class tokens, averaged over the patch sizes.
    patch_logits, patch_large_logits (B, K): pooled `scores`, and the large patches' own; None
    without a patch head, the latter also without large patches.
    cls_embeddings: class tokens (B, K, D), small then large patches, after every block and after
    the exchange.
    scores (B, K, h, w): class logits of every patch; None without a patch head.
    x_patch (B, D, h, w): patch tokens after the last block, no final norm.
    class_to_patch (B, K, h, w): attention of the class tokens to the patches, mean over heads and
    blocks.
    patch_affinity (B, N, N): patch-to-patch attention, mean over heads, SUM over blocks or of the
    block asked for.
    attention: weights (B, heads, K+N, K+N) of every block.
    cams (B, K, h, w): class activation maps, >= 0, sqrt(class_to_patch * relu(scores)) in
    MCTformer+.
    The last four are None or empty unless `maps` of `ClassTokenViT.forward` asks for them.
    """

    cls_logits: Tensor
    patch_logits: Tensor | None
    patch_large_logits: Tensor | None
    cls_embeddings: list[Tensor]
    scores: Tensor | None
    x_patch: Tensor
    class_to_patch: Tensor | None
    patch_affinity: Tensor | None
    attention: list[Tensor]
    cams: Tensor | None


@dataclass(frozen=True)
class HeadOutput:
    """What the trained head makes of what the backbones say: `fused` and `affinity` of `Views`,
    `logits` and `opinions` of `CVFOutput`.
    """

    fused: Tensor
    affinity: Tensor
    logits: Tensor
    opinions: tuple[Tensor, ...]


@dataclass(frozen=True)
class Views:
    """What the networks say of a batch, from which seeds are made.

    clip: tokens and attention maps of blocks 1..L-1. dino, vit: None where there is none. fused
    (B, N, dim): fused tokens, which the decoder reads; DINO's, if it gives features, stand beside
    CLIP's in 2 dim channels. affinity (B, N, N) in 0..1: predicted from them. logits
    (B, K+1, h, w): of the network. phase: what has begun.
    """

    clip: ImageFeatures
    dino: DinoFeatures | None
    vit: VitOutput | None
    fused: Tensor
    affinity: Tensor
    logits: Tensor
    phase: Phase


@dataclass(frozen=True)
class Seeds:
    """CAMs (n, h, w) of the n tagged classes and what they went through; None where a branch makes
    no labels.

    clip_cams: CLIP's, of the kind that `cam` asks for, 0..1. vit_cams: the ViT's, >= 0. clip, vit:
    the same after weights, boxes and transition matrix, >= 0. transition (B, N, N): that matrix.
    boxes (n, h, w) bool: where CLIP's CAMs may spread from. own: the network's own logits
    (1 + its classes, h, w) of each image, where they join the scores.
    """

    rows: ClassRows
    transition: Tensor
    clip_cams: Tensor | None = None
    boxes: Tensor | None = None
    clip: Tensor | None = None
    vit_cams: Tensor | None = None
    vit: Tensor | None = None
    own: list[Tensor] | None = None


@dataclass(frozen=True)
class PseudoLabels:
    """Label maps (B, H, W) long: 0 background, class + 1, 255 not to be trained on.

    combined supervises the segmentation; affinity supervises the predicted affinity, and is
    combined or clip; clip and vit are the branches' own, None where nothing asked for them. soft
    (B, K+1, H, W): the refined scores that combined is the largest of, summing to 1; None unless
    asked for.
    """

    combined: Tensor
    affinity: Tensor
    clip: Tensor | None
    vit: Tensor | None
    seeds: Seeds
    soft: Tensor | None = None


@dataclass(frozen=True)
class CVFOutput:
    """What `CVF.forward` gives the losses.

    logits (B, K+1, h, w): of the network. affinity (B, N, N) in 0..1: the predicted one.
    patch_logits (B, K): the ViT's head on its small patches alone, pooled; None without a ViT that
    learns. labels: pseudo labels, without gradient. opinions: logits (B, K+1, h, w) of each
    predictor alone: the decoder's on CLIP's and on DINO's features, else those of decoder and
    LargeFOV, else the decoder's.
    """

    logits: Tensor
    affinity: Tensor
    patch_logits: Tensor | None
    labels: PseudoLabels
    opinions: tuple[Tensor, ...] = ()
