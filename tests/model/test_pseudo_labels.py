"""From CAM rows to label maps, by hand and image by image."""

import pytest
import torch
from torch import Tensor

from clip.resize import resize
from model import pseudo_labels
from model.class_rows import ClassRows
from model.method import Method
from model.outputs import Seeds
from model.pseudo_labels import (
    channels_of,
    label_map,
    make_labels,
    score_maps,
    seed_labels,
    with_background,
)

TAGS = torch.tensor([[0, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]])  # 3 images, 4 classes


def seeds_of(tags: Tensor = TAGS, clip: Tensor | None = None, vit: Tensor | None = None) -> Seeds:
    """Seeds with these CAMs (n, h, w) of the branches."""
    return Seeds(ClassRows.from_tags(tags), torch.zeros(()), clip=clip, vit=vit)


def test_labels_by_hand() -> None:
    rows = ClassRows.from_tags(TAGS)
    scores = torch.tensor([[[0.2, 0.9]], [[0.8, 0.3]], [[0.4, 0.6]]])  # 1 x 2 pixels
    labels = label_map(with_background(scores, rows), rows)
    # class + 1; background 1 - max wins at 0.6 against 0.4
    assert labels.tolist() == [
        [[4, 2]],
        [[0, 0]],
        [[0, 1]],
    ]
    # 0.6^3 does not
    assert label_map(with_background(scores, rows, power=3), rows)[2].tolist() == [[1, 1]]


def test_a_score_that_interpolation_rounds_up_leaves_the_background_none() -> None:
    scores = resize(torch.ones(1, 1, 3, 3), (20, 20))[0]
    assert scores.max() >= 1  # in some versions of PyTorch above it
    for whole in (scores, scores + 1e-6):
        channels = channels_of(whole, power=0.7)
        assert torch.isfinite(channels).all()
        assert channels.argmax(dim=0).all()


def test_scores_are_stretched_and_resized() -> None:
    cams = torch.tensor([[[1.0, 3.0]], [[5.0, 5.0]], [[0.0, 4.0]]])
    scores = score_maps(seeds_of(clip=cams), (1, 4))["clip"]
    for row in (0, 2):
        torch.testing.assert_close(scores[row, 0], torch.tensor([0.0, 0.25, 0.75, 1.0]))
    assert not scores[1].any()  # a flat map


def test_fused_scores_are_the_mean_of_both() -> None:
    clip, vit = torch.rand(3, 4, 4), torch.rand(3, 4, 4) * 1e-3
    scores = score_maps(seeds_of(clip=clip, vit=vit), (8, 8))
    torch.testing.assert_close(scores["fused"], (scores["clip"] + scores["vit"]) / 2)
    assert scores["vit"].max() > 0.9  # however small its range was


@pytest.mark.parametrize(
    "method", [Method(par_iterations=2), Method(par_iterations=2, label_fusion="max_id")]
)
def test_a_batch_agrees_with_each_image_alone(method: Method) -> None:
    images, clip, vit = torch.randn(3, 3, 64, 48), torch.rand(3, 4, 3), torch.rand(3, 4, 3)
    together = make_labels(images, seeds_of(clip=clip, vit=vit), method).combined
    for image, rows in enumerate((slice(0, 2), slice(2, 2), slice(2, 3))):
        alone = seeds_of(TAGS[image, None], clip[rows], vit[rows])
        assert torch.equal(
            make_labels(images[image, None], alone, method).combined[0], together[image]
        )
    assert not together[1].any()


def test_labels_hold_tagged_classes_only() -> None:
    method = Method(par_iterations=2, background_power_fused=4)
    labels = make_labels(
        torch.randn(3, 3, 64, 64),
        seeds_of(clip=torch.rand(3, 4, 4), vit=torch.rand(3, 4, 4)),
        method,
    )
    assert [set(label.unique().tolist()) for label in labels.combined] == [{0, 2, 4}, {0}, {0, 1}]


def test_padding_is_ignored() -> None:
    valid = torch.ones(3, 32, 32, dtype=torch.bool)
    valid[1, 20:] = False
    labels = make_labels(
        torch.randn(3, 3, 32, 32), seeds_of(clip=torch.rand(3, 2, 2)), Method(), valid
    )
    for label in (labels.combined, labels.affinity, labels.clip):
        assert torch.equal(label == 255, ~valid)


@pytest.mark.parametrize(
    ("choices", "refinements", "own"),
    [
        ({}, 1, (None, None)),
        ({"affinity_labels": "clip"}, 2, ("map", None)),
        ({"label_fusion": "max_id"}, 2, ("map", "map")),
    ],
)
def test_refinements_are_not_run_in_vain(
    monkeypatch: pytest.MonkeyPatch,
    choices: dict[str, str],
    refinements: int,
    own: tuple[str | None, str | None],
) -> None:
    calls = []
    monkeypatch.setattr(
        pseudo_labels,
        "refine",
        lambda images, masks, *rest: calls.append(masks[0].shape[-2:]) or masks,
    )
    seeds = seeds_of(clip=torch.rand(3, 2, 2), vit=torch.rand(3, 2, 2))
    labels = make_labels(torch.randn(3, 3, 32, 32), seeds, Method(**choices))
    assert len(calls) == refinements
    assert [label is not None for label in (labels.clip, labels.vit)] == [
        name is not None for name in own
    ]
    assert (labels.affinity is labels.clip) == (choices.get("affinity_labels") == "clip")
    # published: ViT labels at patch size
    assert ((2, 2) in calls) == (choices.get("label_fusion") == "max_id")


def test_the_larger_number_wins_when_labels_are_joined_by_it() -> None:
    seeds = seeds_of(clip=torch.rand(3, 4, 4), vit=torch.rand(3, 4, 4))
    method = Method(par_iterations=1, label_fusion="max_id", affinity_labels="clip")
    labels = make_labels(torch.randn(3, 3, 64, 64), seeds, method)
    assert torch.equal(labels.combined, torch.maximum(labels.clip, labels.vit))
    assert labels.affinity is labels.clip
    by_name = seed_labels(seeds, (64, 64), method)
    assert torch.equal(by_name["fused"], torch.maximum(by_name["clip"], by_name["vit"]))


@pytest.mark.parametrize("branch", ["clip", "vit"])
def test_one_branch_alone_makes_the_labels(branch: str) -> None:
    seeds = seeds_of(**{branch: torch.rand(3, 4, 4)})
    labels = make_labels(torch.randn(3, 3, 64, 64), seeds, Method(par_iterations=1))
    assert labels.combined is getattr(labels, branch) and labels.affinity is labels.combined
    assert list(seed_labels(seeds, (64, 64), Method())) == [branch]
