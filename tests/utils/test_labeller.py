"""The Labeller: every step from tags to labels, on pictures of any form and size."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate
from vit_files import dino, saved

from datasets.specs import IGNORE
from datasets.toy.scene import random_classes, render
from model.pseudo_labels import channels_of
from utils.common.errors import UserError
from utils.inference import Labeller
from utils.inference.crf import dense_crf
from utils.inference.kept_scores import asked
from utils.inference.labeller import CAM, SEED
from utils.inference.refinement import CRF, PAR, Refinement


@pytest.fixture(scope="module")
def labeller() -> Labeller:
    """The toy CLIP with the classes of VOC, quick."""
    quick = {"device": "cpu", "precision": "fp32", "resize_long": 128, "par_iterations": 3}
    return Labeller.from_clip("voc", "toy", **quick)


def refined(labeller: Labeller, kind: str, least: float = 0.0) -> Labeller:
    """The same CLIP with another refinement."""
    given = (labeller.model, labeller.spec, labeller.config)
    return Labeller(*given, Refinement(kind, least))


def picture(height: int = 96, width: int = 112) -> tuple[np.ndarray, list[str]]:
    """A toy picture with its tags."""
    rng = np.random.default_rng(3)
    scene = render(rng, height, width, random_classes(rng))
    names = Labeller.from_clip("voc", "toy", device="cpu").spec.classes
    return scene.image, [names[k] for k in sorted(scene.classes)]


def test_a_picture_gets_background_and_its_tags_alone_at_its_size(
    labeller: Labeller, tmp_path: Path
) -> None:
    image, tags = picture()
    Image.fromarray(image).save(tmp_path / "a.png")
    labels = labeller(tmp_path / "a.png", tags)
    assert labels.shape == image.shape[:2] and labels.dtype == np.uint8
    assert {labeller.classes[label] for label in np.unique(labels)} == {"background", *tags}
    forms = (image, Image.fromarray(image), torch.from_numpy(image).permute(2, 0, 1))
    for form in forms:
        assert np.array_equal(labeller(form, tags), labels)
    assert np.array_equal(labeller(image, [tag.upper() for tag in tags[::-1]]), labels)


@pytest.mark.parametrize("size", [(5, 300), (700, 90), (33, 47)])
def test_labels_have_the_size_of_any_picture(labeller: Labeller, size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    scores = labeller.scores(torch.from_numpy(image).permute(2, 0, 1), "cat")
    assert max(scores.seeds.shape[-2:]) <= 128 // 16
    assert labeller(image, "cat").shape == size


def test_a_picture_without_tags_is_background(labeller: Labeller) -> None:
    for tags in ([], ["background"]):
        assert set(labeller(picture()[0], tags).ravel()) == {0}


def test_an_unknown_tag_is_refused_with_the_nearest_class(labeller: Labeller) -> None:
    with pytest.raises(UserError, match="tag 'caat', which is no class, did you mean 'cat'"):
        labeller(picture()[0], "caat")


def test_the_steps_are_those_of_the_refinement_each_made_of_the_one_before(
    labeller: Labeller,
) -> None:
    image, tags = picture()
    pixels = torch.from_numpy(image).permute(2, 0, 1)
    steps = refined(labeller, "both").steps(image, tags)
    assert list(steps.labels) == [CAM, SEED, PAR, CRF]
    for kind, last in (("none", SEED), ("par", PAR)):
        assert np.array_equal(refined(labeller, kind)(image, tags), steps.labels[last])
    assert np.array_equal(steps.final, refined(labeller, "both")(image, tags))

    seeds = steps.scores.seeds.float()
    channels = channels_of(
        interpolate(seeds[:, None], image.shape[:2], mode="bilinear")[:, 0],
        labeller.config.background_power_clip,
    )
    names = np.array([0, *(steps.scores.keys + 1).tolist()])
    assert np.array_equal(steps.labels[SEED], names[channels.argmax(0)])
    marginals = dense_crf(pixels.permute(1, 2, 0), channels, labeller.config)
    alone = refined(labeller, "crf")(image, tags)
    assert (alone == names[marginals.argmax(0)]).mean() > 0.999


def test_pixels_less_sure_than_asked_for_do_not_count(labeller: Labeller) -> None:
    image, tags = picture()
    for kind in ("none", "par", "crf"):
        free, sure = (refined(labeller, kind, least)(image, tags) for least in (0.0, 0.7))
        kept = sure != IGNORE
        assert 0 < kept.mean() < 1 and np.array_equal(free[kept], sure[kept])


@pytest.mark.parametrize(
    ("given", "said"),
    [(("best",), "--refine best is unknown"), (("crf", 1.5), "--min_confidence 1.5 must lie")],
)
def test_a_refinement_that_cannot_be_is_refused(given: tuple, said: str) -> None:
    with pytest.raises(UserError, match=said):
        Refinement(*given)


def test_classes_may_be_words_and_guessed_ones_are_those_that_clip_sees(
    labeller: Labeller,
) -> None:
    own = Labeller.from_clip(["cat", "aeroplane"], "toy", device="cpu", precision="fp32")
    assert own.classes == ("background", "cat", "aeroplane")
    image = picture()[0]
    shares = labeller.probabilities(image)
    assert 0 < shares.sum() < 1  # the rest is background
    threshold = shares.sort().values[-2].item()
    assert len(labeller.guess(image, threshold)) == 2
    assert labeller.guess(image, 1.0) == []


def test_a_list_of_one_name_is_no_data_set() -> None:
    with pytest.raises(UserError, match="voc"):  # the toy CLIP knows no such word
        Labeller.from_clip(["voc"], "toy", device="cpu")


def test_the_toy_clip_names_a_word_it_never_saw() -> None:
    with pytest.raises(UserError, match="xylophone"):
        Labeller.from_clip("cat, xylophone", "toy", device="cpu")


def test_settings_of_a_labeller_are_those_of_a_configuration(labeller: Labeller) -> None:
    assert labeller.config.skipped_maps == 1  # of the toy
    other = replace(labeller.config, cam="gradcam")
    image, tags = picture()
    given = Labeller.from_clip(
        "voc", "toy", device="cpu", precision="fp32", resize_long=128, cam="gradcam"
    )
    assert given.config.cam == other.cam
    assert not np.array_equal(
        given.steps(image, tags).labels[CAM], labeller.steps(image, tags).labels[CAM]
    )


def test_a_proxy_of_dino_reads_its_weights_and_what_is_trained_is_refused(
    tmp_path: Path,
) -> None:
    file = saved(tmp_path / "dino.pth", dino())
    given = {"device": "cpu", "precision": "fp32", "resize_long": 128, "par_iterations": 3}
    proxy = {"dino_path": str(file), "dino_use": "proxy", "proxy": "dino", "cam": "dense"}
    image, tags = picture()
    own = Labeller.from_clip("voc", "toy", **given, **proxy).steps(image, tags).labels[CAM]
    usual = Labeller.from_clip("voc", "toy", **given, cam="dense").steps(image, tags).labels[CAM]
    assert not np.array_equal(own, usual)
    with pytest.raises(UserError, match="labels are made here without any training"):
        Labeller.from_clip("voc", "toy", reweight="prediction")


def test_what_another_dino_said_is_not_read_again(tmp_path: Path) -> None:
    file = tmp_path / "dino.pth"
    given = {"device": "cpu", "precision": "fp32", "dino_path": str(file), "dino_use": "proxy"}
    found = []
    for _ in range(2):
        saved(file, dino())
        found.append(asked(Labeller.from_clip("voc", "toy", **given, proxy="dino", cam="dense")))
    assert found[0].pop("dino") != found[1].pop("dino") and found[0] == found[1]


def test_maps_that_are_not_finite_are_said(
    labeller: Labeller, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, tags = picture()
    monkeypatch.setattr(labeller.model.text, "data", labeller.model.text * float("nan"))
    with pytest.raises(UserError, match="maps of a picture of 112 x 96 px are not finite"):
        labeller(image, tags)
