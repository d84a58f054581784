"""Seeds of one whole image: at its size, with and without the CRF."""

from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from torch import Tensor

from clip.resize import resize
from datasets.data import Split
from datasets.lists import Item
from datasets.transforms import CLIP_MEAN, CLIP_STD, normalise
from model.cvf import CVF
from model.method import BEGINNING, Phase
from model.pseudo_labels import channels_of
from utils.config import Config
from utils.inference.crf import CRFSettings, dense_crf
from utils.inference.multi_scale import resize_long
from utils.inference.seeds import crf_label, image_seeds, padded, resized
from utils.run_folder.recorder import Recorder
from utils.training.run import Run
from utils.training.validation import score_seeds

CLIP_ES = Config(
    branches="clip",
    statistics="clip",
    seed_size="resized",
    seed_refinement="crf",
    seed_confidence=0.95,
    crf_pos_xy_std=1.0,
    crf_bi_xy_std=67.0,
    crf_bi_rgb_std=3.0,
    device="cpu",
    precision="fp32",
)


@pytest.fixture
def model() -> CVF:
    """A tiny model of CLIP alone."""
    torch.manual_seed(0)
    return tiny.cvf(branches="clip").eval()


def picture(height: int, width: int) -> Tensor:
    """A picture (3, H, W) uint8 of two colours and some noise."""
    image = torch.randint(0, 40, (3, height, width))
    image[:, :, width // 3 :] += 150
    return image.to(torch.uint8)


def tags(*classes: int) -> Tensor:
    """Tags (K,) of an image."""
    return torch.zeros(tiny.CLASSES).index_fill(0, torch.tensor(classes, dtype=torch.long), 1)


def test_a_picture_is_stretched_to_whole_patches_bicubically() -> None:
    image = picture(50, 70)
    stretched = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((80, 64), Image.BICUBIC)
    expected = torch.from_numpy(np.array(stretched)).permute(2, 0, 1)[None]
    assert torch.equal(resized(image, CLIP_ES), normalise(expected, CLIP_MEAN, CLIP_STD))


def test_seeds_have_the_size_of_the_picture_however_it_is_brought_to_patches(model: CVF) -> None:
    reflected = replace(CLIP_ES, seed_size="padded")
    for size, same in (((64, 48), True), ((50, 70), False)):
        image = picture(*size)
        one, other = (image_seeds(model, image, tags(1, 3), c) for c in (CLIP_ES, reflected))
        for seeds in (one, other):
            maps = (seeds.scores["clip"], seeds.cams["clip"])
            assert all(each.shape == (2, *size) for each in maps)
            assert seeds.pseudo.shape == seeds.confident.shape == torch.Size(size)
        assert torch.equal(one.scores["clip"], other.scores["clip"]) is same


@pytest.mark.parametrize("refinement", ["par", "crf"])
def test_a_photograph_is_seen_as_training_sees_it_and_labelled_at_its_size(
    model: CVF, refinement: str
) -> None:
    config = replace(CLIP_ES, seed_refinement=refinement, train_long=64)
    image = picture(96, 128)
    small = resize_long(image[None].float(), 64)[0].round().to(torch.uint8)
    seeds = image_seeds(model, image, tags(1, 3), config)
    expected = image_seeds(model, small, tags(1, 3), config)
    assert expected.pseudo.shape == (48, 64)
    for name, maps in (*seeds.scores.items(), *seeds.cams.items()):
        assert maps.shape == (2, 96, 128), name
    assert torch.equal(seeds.scores["clip"], resize(expected.scores["clip"][None], (96, 128))[0])
    for found, few in ((seeds.pseudo, expected.pseudo), (seeds.confident, expected.confident)):
        assert torch.equal(found, few.repeat_interleave(2, 0).repeat_interleave(2, 1))

    none = image_seeds(model, image, tags(), config)
    assert none.pseudo.shape == (96, 128) and none.scores["clip"].shape == (0, 96, 128)
    for same in (replace(config, train_long=128), replace(config, train_long=0)):
        own = image_seeds(model, image, tags(1, 3), same)
        assert torch.equal(own.pseudo, image_seeds(model, image, tags(1, 3), same).pseudo)
        assert not torch.equal(own.scores["clip"], seeds.scores["clip"])


def test_training_scores_the_seeds_of_photographs_as_it_sees_them(
    model: CVF, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = picture(96, 128)
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / "a.png")
    Image.fromarray(np.full((96, 128), 2, np.uint8)).save(tmp_path / "m.png")
    split = Split([Item("a", tmp_path / "a.png", tmp_path / "m.png")], tags(1, 3)[None].bool())
    config = replace(CLIP_ES, train_long=64, workers=0, quiet=True)
    nowhere = cast(Recorder, None)  # scoring records nothing
    run = Run(config, torch.device("cpu"), 0, 1, tmp_path, nowhere)

    given = []
    seeds = model.seeds
    monkeypatch.setattr(model, "seeds", lambda *seen: given.append(seen[0].shape) or seeds(*seen))
    scores = score_seeds(model, split, run, BEGINNING)
    assert given == [(1, 3, 48, 64)]

    pseudo = replace(config, seed_size="padded", seed_refinement="par")
    labels = image_seeds(model, image, tags(1, 3), pseudo).pseudo
    expected = torch.bincount(labels.flatten(), minlength=tiny.CLASSES + 1)
    assert scores["pseudo label"].counts[2].tolist() == expected.tolist()


def test_the_label_is_the_crfs_with_the_recipes_constants(model: CVF) -> None:
    image = torch.randint(0, 256, (3, 64, 48)).to(torch.uint8)  # noise, of which no label is sure
    seeds = image_seeds(model, image, tags(1, 3), CLIP_ES)
    channels = channels_of(seeds.scores["clip"], 1.0)
    assert torch.allclose(channels[0], 1 - seeds.scores["clip"].amax(0))

    marginals = dense_crf(
        image.permute(1, 2, 0), channels, CRFSettings(10, 1.0, 3.0, 67.0, 3.0, 4.0)
    )
    sure, winner = marginals.max(0)
    labels = torch.tensor([0, 2, 4])[winner]
    assert torch.equal(seeds.pseudo, labels)
    assert torch.equal(seeds.confident, labels.masked_fill(sure < 0.95, 255))
    assert 0 < (seeds.confident == 255).float().mean() < 1


@pytest.mark.parametrize("seed_size", ["padded", "resized"])
def test_the_crf_gets_the_scores_that_the_network_has_joined(seed_size: str) -> None:
    torch.manual_seed(7)  # weights by which two thirds of the pixels change
    method = {"branches": "fusion", "self_train": "scores", "self_train_share": 0.7}
    model = tiny.cvf(**method).eval()
    config = replace(CLIP_ES, **method, seed_size=seed_size)
    phase = Phase(self_training=True)
    image = picture(50, 70)
    seeds = image_seeds(model, image, tags(1, 3), config, phase)

    pixels = (padded if seed_size == "padded" else resized)(image, config)
    own = model(pixels, tags(1, 3)[None], phase).labels.seeds.own[0]
    shown = (64, 80) if seed_size == "padded" else (50, 70)
    joined = 0.3 * channels_of(seeds.scores["fused"], model.method.background_power_fused)
    joined += 0.7 * resize(own[None], shown)[0].softmax(dim=0)[:, :50, :70]
    label, _ = crf_label(image, seeds.keys, joined, config)
    assert torch.equal(seeds.pseudo, label)
    alone = image_seeds(model, image, tags(1, 3), config).pseudo
    assert not torch.equal(seeds.pseudo, alone)


def test_cams_and_seeds_give_labels_with_the_backgrounds_power(model: CVF) -> None:
    seeds = image_seeds(model, picture(64, 48), tags(2), CLIP_ES)
    scores = torch.tensor([[[0.2, 0.5, 0.9]]])
    assert seeds.labels(scores, 1.0).tolist() == [[0, 0, 3]]
    assert seeds.labels(scores, 2.0).tolist() == [[0, 3, 3]]


def test_a_picture_without_tags_is_background(model: CVF) -> None:
    seeds = image_seeds(model, picture(64, 48), tags(), CLIP_ES)
    assert seeds.pseudo.unique().tolist() == seeds.confident.unique().tolist() == [0]
    assert seeds.labels(seeds.cams["clip"], 1.0).unique().tolist() == [0]
