"""The Segmenter on pictures in every form, one or several, with and without tags."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ROOT
from PIL import Image

from datasets.toy.scene import random_classes, render
from utils.common.errors import UserError
from utils.inference.protocol import Outputs
from utils.inference.segmenter import Segmenter

CHECKPOINT = ROOT / "model" / "toy_voc.pt"


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter.from_checkpoint(
        CHECKPOINT, Outputs(use_crf=False), device="cpu", precision="fp32", resize_long=128
    )


def picture(number: int, height: int = 70, width: int = 90) -> np.ndarray:
    rng = np.random.default_rng(number)
    return render(rng, height, width, random_classes(rng)).image


def test_every_form_of_a_picture_gives_the_same_labels(
    segmenter: Segmenter, tmp_path: Path
) -> None:
    image = picture(1)
    Image.fromarray(image).save(tmp_path / "a.png")
    labels = segmenter(image)
    assert (
        labels.shape == image.shape[:2]
        and labels.dtype == np.uint8
        and labels.max() < len(segmenter.classes) == 21
    )
    forms = (
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        Image.fromarray(image),
        torch.from_numpy(image).permute(2, 0, 1),
    )
    for form in forms:
        assert np.array_equal(segmenter(form), labels)


def test_a_list_comes_back_in_its_order_whatever_the_sizes(segmenter: Segmenter) -> None:
    images = [picture(1), picture(2, 50, 50), picture(3), picture(4, 90, 70)]
    for image, labels in zip(images, segmenter(images)):
        assert labels.shape == image.shape[:2]
        assert (labels == segmenter(image)).mean() > 0.999  # batched: sums in another order


def test_no_pictures_have_no_labels(segmenter: Segmenter) -> None:
    assert segmenter([]) == []
    assert segmenter.predict(torch.zeros(0, 3, 64, 64, dtype=torch.uint8)) == []


def test_a_turned_photograph_is_labelled_as_displayed(segmenter: Segmenter, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture(1)).save(tmp_path / "turned.jpg", exif=exif)
    assert segmenter(tmp_path / "turned.jpg").shape == (90, 70)
    assert segmenter(Image.open(tmp_path / "turned.jpg")).shape == (90, 70)


def test_tags_leave_their_classes_alone(segmenter: Segmenter) -> None:
    image = np.concatenate([picture(number) for number in range(3)])
    free, bound = segmenter(image), segmenter(image, tags=["cat", "bus"])
    chosen = {0, segmenter.classes.index("cat"), segmenter.classes.index("bus")}
    assert set(np.unique(bound)) <= chosen and not set(np.unique(free)) <= chosen
    assert np.array_equal(segmenter(image, tags="cat"), segmenter(image, tags=["cat"]))
    assert np.array_equal(segmenter(image, tags=["Bus", "background", "CAT"]), bound)
    for wrong in ("hors", ["hors"]):
        with pytest.raises(UserError, match="tag 'hors', which is no class, did you mean 'horse'"):
            segmenter(image, tags=wrong)


@pytest.mark.parametrize("tags", [[["cat"], None], ["cat", 3], 3])
def test_tags_that_are_no_names_are_refused(tags: object, segmenter: Segmenter) -> None:
    with pytest.raises(UserError, match="is no list of tags of one picture; give names, such as"):
        segmenter([picture(0), picture(1)], tags=tags)


@pytest.mark.parametrize(
    "form",
    [
        np.zeros((5, 5, 4), np.uint8),
        np.zeros((5, 5)),
        np.zeros((0, 5, 3), np.uint8),
        torch.zeros(3, 5, 5),
        torch.zeros(3, 5, 0, dtype=torch.uint8),
        b"bytes",
        None,
    ],
)
def test_pictures_of_another_form_are_refused(form: object, segmenter: Segmenter) -> None:
    with pytest.raises(ValueError, match="is not? "):
        segmenter(form)


def test_logits_that_are_not_finite_are_said(
    segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(images: torch.Tensor) -> torch.Tensor:
        return torch.full((len(images), len(segmenter.classes), 2, 2), float("nan"))

    monkeypatch.setattr(segmenter.model, "segment", broken)
    with pytest.raises(UserError, match="picture of 90 x 70 px are not finite; the checkpoint"):
        segmenter(picture(1))


FORKED = """
import os, signal, sys
import numpy as np, torch
from utils.inference import Segmenter

torch.set_num_threads(2)
segmenter = Segmenter.from_checkpoint(sys.argv[1], device="cpu", resize_long=128)
image = np.random.default_rng(0).integers(0, 256, (160, 160, 3), np.uint8)
labels = segmenter(image)
if child := os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
signal.alarm(40)
os._exit(7 if (segmenter(image) == labels).mean() > 0.99 else 1)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system forks no processes")
def test_a_forked_process_predicts_what_the_one_before_does() -> None:
    words = [sys.executable, "-c", FORKED, str(CHECKPOINT)]
    ran = subprocess.run(words, cwd=ROOT, check=False)
    assert ran.returncode == 7
