"""Half precision against float32 with the trained toy checkpoint: the same segmentations, CAMs and
pseudo labels.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import ROOT
from torch import Tensor

from clip.resize import resize
from datasets.toy.scene import random_classes, render
from datasets.transforms import STATISTICS, normalise
from model.cvf import CVF
from utils.build import restore
from utils.common.device import autocast, uses_bf16
from utils.config import Config
from utils.inference.multi_scale import multi_scale
from utils.inference.seeds import image_seeds
from utils.metrics import ConfusionMatrix
from utils.run_folder.checkpoint import checkpoint_config, load_checkpoint

CHECKPOINT = ROOT / "model" / "toy_voc.pt"
SIZE = (192, 256)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def toy() -> tuple[CVF, Config]:
    checkpoint = load_checkpoint(CHECKPOINT, "--model_path")
    config = checkpoint_config(checkpoint["config"], CHECKPOINT, {})
    return restore(checkpoint, config)[0], config


def scenes(count: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Unseen pictures: image (3, H, W) uint8, labels (H, W), tags (20,)."""
    for number in range(count):
        rng = np.random.default_rng((4711, number))
        scene = render(rng, *SIZE, random_classes(rng))
        tags = torch.zeros(20).index_fill_(0, torch.tensor(scene.classes), 1.0)
        yield torch.from_numpy(scene.image).permute(2, 0, 1), torch.from_numpy(scene.labels), tags


@torch.no_grad()
def labels(model: CVF, image: Tensor, precision: str) -> Tensor:
    """Labels (H, W), single scale."""
    pixels = normalise(image[None], *STATISTICS["imagenet"])
    with autocast(CPU, precision):
        logits, _ = multi_scale(model.segment, pixels, (1.0,), flip=False)
    return resize(logits, image.shape[-2:]).argmax(1)[0]


@pytest.mark.heavy
def test_a_checkpoint_scores_the_same_in_bf16(toy: tuple[CVF, Config]) -> None:
    matrices, same = {"fp32": ConfusionMatrix(21), "bf16": ConfusionMatrix(21)}, []
    for image, truth, _ in scenes(24):
        found = {precision: labels(toy[0], image, precision) for precision in matrices}
        same.append((found["fp32"] == found["bf16"]).double().mean().item())
        for precision, matrix in matrices.items():
            matrix.update(found[precision], truth)
    score, half = (100 * matrix.miou() for matrix in matrices.values())
    assert score > 40 and abs(score - half) <= 0.3
    assert np.mean(same) >= 0.995


def test_segmentations_stay_the_same_in_bf16(toy: tuple[CVF, Config]) -> None:
    for image, _, _ in scenes(3):
        full, half = (labels(toy[0], image, precision) for precision in ("fp32", "bf16"))
        assert len(full.unique()) > 1 and (full == half).double().mean() >= 0.99


@pytest.mark.parametrize("pictures", [2, pytest.param(8, marks=pytest.mark.heavy)])
def test_cams_and_pseudo_labels_stay_the_same_in_bf16(
    toy: tuple[CVF, Config], pictures: int
) -> None:
    model, config = toy
    apart, same = {"clip": [], "vit": []}, []
    for image, _, tags in scenes(pictures):
        full, half = (
            image_seeds(model, image, tags, replace(config, precision=p)) for p in ("fp32", "bf16")
        )
        for branch, distances in apart.items():
            distances.append((full.scores[branch] - half.scores[branch]).abs().mean().item())
        same.append((full.pseudo == half.pseudo).double().mean().item())
    assert max(np.mean(distances) for distances in apart.values()) <= 0.01
    assert np.mean(same) >= 0.99


@pytest.mark.parametrize(
    ("capability", "has"), [((7, 0), False), ((7, 5), False), ((8, 0), True), ((9, 0), True)]
)
def test_bf16_is_left_alone_on_gpus_that_emulate_it(
    capability: tuple[int, int], has: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    assert uses_bf16(torch.device("cuda", 0), "auto") is has
    assert uses_bf16(torch.device("cuda", 0), "bf16") and not uses_bf16(
        torch.device("cuda", 0), "fp32"
    )
