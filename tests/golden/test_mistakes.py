"""Deliberate mistakes: each is put in, and the arrays of its file must tell."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import golden_excel
import golden_weclip_plus
import pytest
import torch
import torch.nn.functional as F
from golden_file import GoldenFile
from test_family import CHECKS, FILES, case_of
from torch import Tensor

from model import criterion
from model.boxes import box_mask
from model.class_rows import ClassRows
from model.cvf import CVF
from model.decoder import predicted_affinity
from model.losses import IGNORE
from model.proxy import centred_cosine
from model.targets import dice_loss
from utils.config import Config

TOLD = "differs by|equal on"


@dataclass(frozen=True)
class Mistake:
    """A misreading of one case, and what puts it in."""

    case: str
    what: str
    put_in: Callable[[], AbstractContextManager[Any]]

    def __str__(self) -> str:
        return f"{self.case}: {self.what}"


def excel_with(**wrong: Any) -> Callable[[], AbstractContextManager[Any]]:
    """The recipe of ExCEL with wrong settings."""
    right = golden_excel.recipe
    return lambda: patch(
        "golden_excel.recipe", lambda golden, name: replace(right(golden, name), **wrong)
    )


def instead(target: str, wrong: Any) -> Callable[[], AbstractContextManager[Any]]:
    """Something else under a name."""
    return lambda: patch(target, wrong)


def unchanged(model: CVF, tokens: list[Tensor]) -> list[Tensor]:
    """Each block's output, not changed in place."""
    return [each[:, 1:] for each in (*tokens, model.clip.blocks[-1](tokens[-1]))]


def never_replaced(*given: Any) -> criterion.Replaced:
    """Labels that stay as they are."""
    _, labels, *_ = given
    nowhere = torch.zeros_like(labels.combined, dtype=torch.bool)
    return criterion.Replaced(labels.combined, labels.affinity, labels.combined, nowhere)


def affinity_too(*given: Any) -> criterion.Replaced:
    """Labels of affinity replaced with those of the segmentation."""
    right = REPLACE(*given)
    return replace(right, affinity=right.combined)


def sure_earlier(
    logits: Tensor, labels: Any, allowed: Tensor | None, method: Any
) -> criterion.Replaced:
    """Labels replaced where the network is sure to 0.7."""
    return REPLACE(logits, labels, allowed, replace(method, self_train_at=0.7))


REPLACE = criterion.replace_labels


def plus_with(**wrong: Any) -> Callable[[], AbstractContextManager[Any]]:
    """The recipe of WeCLIP+ with wrong settings, which only the arrays may tell."""
    right = golden_weclip_plus.recipe

    def recipe(num_labels: int, **sizes: Any) -> Config:
        return replace(right(num_labels, **sizes), **wrong)

    changes = {"recipe": recipe, "same_constants": lambda *_: None}
    return lambda: patch.multiple(golden_weclip_plus, **changes)


def next_channel(logits: Tensor, rows: ClassRows, classes: str) -> Tensor:
    """The probability of the label before that of the class."""
    return rows.pick(logits.detach().softmax(dim=1)[:, :-1])


def weighted_first(maps: Tensor, **given: Any) -> Tensor:
    """Boxes of a CAM that was weighted already, here by itself."""
    return BOXES(maps * maps, **given)


@contextmanager
def clip_alone() -> Iterator[None]:
    """Affinity predicted from CLIP's features, not from both."""
    heads = {"dot": lambda fused: predicted_affinity(fused.chunk(2, dim=-1)[0])}
    with patch("model.head.AFFINITY_HEADS", heads):
        yield


def bicubic(images: Tensor, size: Sequence[int]) -> Tensor:
    """A picture resized in another way."""
    return F.interpolate(images, tuple(size), mode="bicubic")


BOXES = box_mask


@contextmanager
def own_argmax() -> Iterator[None]:
    """Each predictor learns its own labels."""
    right = criterion.cross_loss

    def wrong(opinions: list[Tensor], *rest: Any) -> Tensor:
        return sum(right([opinion, opinion], *rest) / 2 for opinion in opinions)

    with patch("model.criterion.cross_loss", wrong):
        yield


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """The loss that asks the network to be as unsure as its target."""
    return -(targets * logits.log_softmax(dim=1)).sum(dim=1).mean()


def renormalised(logits: Tensor, targets: Tensor) -> Tensor:
    """Collision with targets that are brought to sum to 1."""
    y = targets / targets.sum(dim=1, keepdim=True)
    return -((logits.softmax(dim=1) * y).sum(dim=1) + 1e-8).log().mean()


def balanced(loss: Tensor, labels: Tensor) -> Tensor:
    """Half of the means over background and over foreground."""
    parts = torch.stack([labels == 0, (labels != 0) & (labels != IGNORE)])
    means = [(loss * part).sum() / part.sum().clamp(min=1) for part in parts]
    return sum(means) / 2


def candidates(join: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """The loss on two candidates whose log-probabilities are joined in another way."""

    def wrong(logits: Tensor, labels: Tensor, others: Tensor, doubtful: Tensor) -> Tensor:
        log_p = logits.log_softmax(dim=1)
        known = labels.masked_fill(labels == IGNORE, 0)
        first, second = (log_p.gather(1, each[:, None])[:, 0] for each in (known, others))
        return balanced(-torch.where(doubtful, join(first, second), first), labels)

    return wrong


def over_all(logits: Tensor, labels: Tensor) -> Tensor:
    """One cross-entropy over all pixels."""
    return F.cross_entropy(logits, labels, ignore_index=IGNORE)


def over_labelled(logits: Tensor, labels: Tensor, published: bool) -> Tensor:
    """Dice over the classes that are there, whatever is asked for."""
    return dice_loss(logits, labels)


EXCEL = {
    "mean over heads": excel_with(dense_heads="mean"),
    "q and k only": excel_with(dense_parts="qk"),
    "unit length over channels": excel_with(dense_maps="surgery"),
    "last five maps as head means": excel_with(clip_map="mean"),
    "raw products": excel_with(affinity_head="dot"),
    "no proxy": excel_with(proxy="none"),
    "maps nearest to the prediction": excel_with(map_selection="fit"),
    "boxes up to the border": excel_with(clip_box_edges=False),
    "own labels among the tags alone": excel_with(predicted_classes="tags"),
    "mean per image": instead("golden_excel.joint", centred_cosine),
    "features without aliasing": instead("golden_excel.changed_in_place", unchanged),
    "labels of affinity never replaced": instead("model.criterion.replace_labels", never_replaced),
}
PLUS = {
    "Grad-CAM from block 11": plus_with(cam_skip=0),
    "boxes kept": plus_with(boxes=True),
    "maps of one block more": plus_with(late_maps=7),
    "maps nearest to the prediction": plus_with(map_selection="fit"),
    "prediction among the tags alone": plus_with(predicted_classes="tags"),
    "CAMs without weights": plus_with(reweight="none"),
    "cosines": plus_with(affinity_head="cosine"),
    "probability of the channel before": instead("model.seeds.cam_weights", next_channel),
    "affinity from CLIP alone": clip_alone,
    "picture resized bicubically": instead("model.dino.resize", bicubic),
    "table without the 0.1": instead("model.dino.OFFSET", 1e-6),
    "the own argmax": own_argmax,
}
PLUS_COCO = {
    "boxes of the weighted CAM": instead("model.seeds.box_mask", weighted_first),
    "boxes up to the border": plus_with(clip_box_edges=False),
    "maps of two blocks less": plus_with(late_maps=6),
}
TARGETS = {
    "soft cross-entropy": instead("golden_family.collision_loss", soft_cross_entropy),
    "targets renormalised": instead("golden_family.collision_loss", renormalised),
    "the smaller log-probability": instead(
        "golden_family.candidate_loss", candidates(torch.minimum)
    ),
    "the mean of two probabilities": instead(
        "golden_family.candidate_loss",
        candidates(lambda a, b: torch.logaddexp(a, b) - torch.log(torch.tensor(2.0))),
    ),
    "Dice over classes present": instead("golden_family.dice_loss", over_labelled),
    "one cross-entropy": instead("golden_family.losses.seg_loss", over_all),
}
STEP = {
    "affinity of replaced labels": instead("model.criterion.replace_labels", affinity_too),
    "self-training at 0.7": instead("model.criterion.replace_labels", sure_earlier),
    "never replaced": instead("model.criterion.replace_labels", never_replaced),
    "the own argmax": own_argmax,
}
MISTAKES = [
    Mistake(case, what, put_in)
    for case, group in (
        ("excel_forward", EXCEL),
        ("targets", TARGETS),
        ("weclip_plus_forward", PLUS),
        ("weclip_plus_forward_coco", PLUS_COCO),
        ("weclip_plus_step", STEP),
    )
    for what, put_in in group.items()
]


@pytest.mark.heavy
@pytest.mark.parametrize("mistake", MISTAKES, ids=str)
def test_a_mistake_is_caught(mistake: Mistake) -> None:
    path = next((path for path in FILES.values() if case_of(path) == mistake.case), None)
    if path is None:
        pytest.skip(f"no file of {mistake.case}")
    with mistake.put_in(), pytest.raises(AssertionError, match=TOLD) as caught:
        CHECKS[mistake.case](GoldenFile(path))
    print(caught.value)
