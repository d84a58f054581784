"""What ships trained: the toy CLIP knows unseen scenes, and the toy checkpoint segments pictures as
they come.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ROOT, run
from PIL import Image

import test_msc_flip_voc
from clip.loader import load_clip
from datasets.toy.scene import random_classes, render
from utils.build import restore
from utils.inference.protocol import Outputs, predict
from utils.metrics import MULTI, ConfusionMatrix
from utils.run_folder.checkpoint import checkpoint_config, load_checkpoint
from utils.tools.pretrain_toy_clip import zero_shot_map

CHECKPOINT = ROOT / "model" / "toy_voc.pt"


def test_the_toy_clip_tags_unseen_scenes() -> None:
    assert zero_shot_map(load_clip("toy"), count=150) >= 0.8


def test_the_shipped_checkpoint_segments_unseen_scenes() -> None:
    checkpoint = load_checkpoint(CHECKPOINT, "--model_path")
    config = checkpoint_config(checkpoint["config"], CHECKPOINT, {})
    model, spec = restore(checkpoint, config)
    matrix = ConfusionMatrix(len(spec.classes) + 1)
    for number in range(30):
        rng = np.random.default_rng((31337, number))
        scene = render(rng, 192, 256, random_classes(rng))
        image = torch.from_numpy(scene.image).permute(2, 0, 1)
        labels = predict(model, image, config, Outputs(use_crf=False)).labels[MULTI]
        matrix.update(labels, torch.from_numpy(scene.labels))
    assert matrix.miou() >= 0.4


def test_pictures_of_any_kind_are_predicted_at_their_own_size(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "deep er").mkdir(parents=True)
    pictures = {
        "grey.png": Image.new("L", (40, 30), 90),
        "thin.bmp": Image.new("RGB", (1, 50), "red"),
        "deep er/ÄLPHA.PNG": Image.new("RGBA", (33, 47), (0, 200, 0, 40)),
    }
    for name, picture in pictures.items():
        picture.save(folder / name)
    flags = (
        "--model_path",
        CHECKPOINT,
        "--images",
        folder,
        "--work_dir",
        tmp_path / "out",
        "--device",
        "cpu",
    )
    assert run(test_msc_flip_voc.main, *flags) == 0
    for name, picture in pictures.items():
        predicted = Image.open((tmp_path / "out" / "prediction" / name).with_suffix(".png"))
        assert predicted.mode == "P" and predicted.size == picture.size


@pytest.mark.parametrize("given", ["absent.jpg", "."])
def test_images_that_are_not_there_are_refused(
    given: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--model_path", CHECKPOINT, "--images", tmp_path / given)
    assert run(test_msc_flip_voc.main, *flags) == 2
    assert capsys.readouterr().err.startswith("error: --images")
