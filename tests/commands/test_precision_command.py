"""Seeds in bf16 beside fp32: the command, what it counts, and towers with outlier channels."""

from pathlib import Path

import pytest
import torch
from helpers import gradcam, run
from torch import nn

from clip.model import VisionTransformer
from model.class_rows import ClassRows
from utils.common.errors import UserError
from utils.inference.seeds import ImageSeeds
from utils.tools.precision import difference, main


def test_the_command_compares_seeds_of_training_images(
    toy_voc: Path, quick: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--config", "toy_voc", "--data_root", str(toy_voc), "--images", "3", *quick]
    assert run(main, *flags) == 0
    said = capsys.readouterr().out
    assert said.startswith("3 images of train_aug, bf16 beside fp32:")
    assert "another label, pseudo label" in said


@pytest.mark.parametrize("images", ["0", "-1"])
def test_no_images_is_refused(images: str) -> None:
    with pytest.raises(UserError, match=f"--images {images} must be at least 1"):
        run(main, "--config", "toy_voc", "--images", images)


def seeds(scores: torch.Tensor, pseudo: torch.Tensor) -> ImageSeeds:
    return ImageSeeds(torch.tensor([4]), {"clip": scores}, {}, pseudo, pseudo)


def test_differences_by_hand() -> None:
    one = seeds(torch.tensor([[[0.9, 0.2], [0.6, 0.1]]]), torch.tensor([[5, 0], [5, 0]]))
    other = seeds(torch.tensor([[[0.9, 0.2], [0.4, 0.1]]]), torch.tensor([[5, 0], [0, 5]]))
    found = difference(one, other, power=1.0)
    assert found.largest == pytest.approx(0.2)
    assert found.mean == pytest.approx(0.05)
    assert (found.seed, found.pseudo) == (0.25, 0.5)


def planted(scale: float) -> VisionTransformer:
    """A tower as wide as ViT-B and half as deep, of random weights, in which a few channels grow
    far beyond the others.
    """
    torch.manual_seed(0)
    tower = VisionTransformer(768, 6, 512, 16, 7)
    with torch.no_grad():
        for block in tower.blocks[2:5]:
            nn.init.normal_(block.mlp.c_proj.bias, std=0.01)
            block.mlp.c_proj.bias[[133, 447, 650]] += scale
    return tower.eval().requires_grad_(False)


@pytest.mark.parametrize("scale", [0.0, 30.0, 100.0])
def test_bf16_finds_the_cams_of_fp32_in_towers_with_outlier_channels(scale: float) -> None:
    tower = planted(scale)
    images = torch.randn(2, 3, 112, 112)
    text = torch.nn.functional.normalize(torch.randn(12, 512), dim=1)
    tags = torch.zeros(2, 6)
    tags[0, 1] = tags[0, 4] = tags[1, 2] = 1
    rows = ClassRows.from_tags(tags)

    cams = []
    for half in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            features = tower.features(images)
            stream, grid = features.tokens[-1], features.grid
            cams.append(gradcam(tower, 4.6, stream, grid, rows, text).cams)
    largest = stream.float().abs().amax(dim=(0, 1)).topk(3).indices
    assert not scale or set(largest.tolist()) == {133, 447, 650}
    assert (cams[0] - cams[1]).abs().mean() < 0.01
    assert (cams[0] - cams[1]).abs().max() < 0.05
