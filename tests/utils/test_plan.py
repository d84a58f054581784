"""What a training says before it starts: what it will score, or that it will not, and how long it
takes.
"""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import TRAIN, VAL, run

import test_msc_flip_voc
import train_voc
from datasets.data import Split
from datasets.lists import Item
from datasets.specs import VOC
from utils.common import gpu
from utils.config import CONFIGS, Config, load_config
from utils.run_folder.results import read_results
from utils.splits import image_tags, own_split, split_items
from utils.training.plan import (
    Data,
    Evaluation,
    cpu_time,
    plan,
    planned_evaluation,
)

DEVICE = torch.device("cpu")


def planned(config: Config) -> tuple[Evaluation, str]:
    """What a run of this configuration scores, and the paragraph it starts with."""
    images = split_items(config, config.train_split)
    training = Split(images, image_tags(config, VOC, images))
    validation = split_items(config, config.val_split)
    evaluation = planned_evaluation(config, VOC, training, validation)
    return evaluation, plan(config, VOC, Data(training, validation, evaluation), DEVICE)


@pytest.fixture
def config(toy_voc: Path) -> Config:
    return Config(data_root=str(toy_voc), clip_path="toy", seeds_images=6, eval_images=3)


def test_the_paragraph_names_device_precision_images_tags_and_masks(config: Config) -> None:
    evaluation, said = planned(replace(config, precision="fp32"))
    assert f"voc: {TRAIN} training images with " in said and " on cpu in fp32; " in said
    assert f"validation: {VAL} of {VAL} images have masks; 3 of these images are scored" in said
    assert f"seeds and pseudo labels: train, {TRAIN} of {TRAIN} images have masks; 6 of" in said
    assert "masks are read for these scores alone, nothing is trained on them" in said

    names = [item.name for item in evaluation.seeds.items]
    assert names == [f"toy_train_{k:06d}" for k in range(0, TRAIN, TRAIN // 6)]
    assert [item.name[-1] for item in evaluation.validation] == ["0", "1", "2"]
    assert evaluation.seeds_label == f"train, spread over {TRAIN}"
    assert evaluation.validation_label == f"val, spread over {VAL}"


def test_what_never_acts_is_said(config: Config) -> None:
    late = replace(config, cam="dense", proxy="learned", self_train="labels", max_iters=18000)
    _, said = planned(late)
    assert "--proxy learned never acts, as it begins after iteration 1000000; set --switch" in said
    assert "--self_train labels never acts, as it begins after iteration 18000" in said
    _, said = planned(replace(late, max_iters=18001, switch_iters=18000))
    assert "never acts" not in said


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"clip_path": "toy", "mct_epochs": 1}, "1 epoch from CLIP's image tower;"),
        ({"clip_path": "toy", "init": "deit", "mct_epochs": 2}, "2 epochs from DeiT;"),
        ({"clip_path": "own.pt", "init": "clip_visual"}, "45 epochs from CLIP's image tower;"),
        ({"clip_path": "own.pt"}, "45 epochs from DeiT;"),
    ],
)
def test_what_the_first_stage_starts_from_is_said(
    config: Config, settings: dict[str, object], said: str
) -> None:
    given = {"init": "auto", "mct_epochs": 45, "mct_path": "", **settings}
    assert f"class-token ViT: {said}" in planned(replace(config, **given))[1]


def test_images_without_tags_are_counted(config: Config) -> None:
    _, before = planned(config)
    images = split_items(config, "train")
    tags = image_tags(config, VOC, images, "train")
    tags[[0, 3]] = False
    training = Split(images, tags)
    evaluation = planned_evaluation(config, VOC, training, images)
    said = plan(config, VOC, Data(training, images, evaluation), DEVICE)
    assert "tags each (2 without any, background alone), " in said
    assert "without any" not in before


def test_what_is_scored_depends_on_where_the_run_ends(config: Config) -> None:
    evaluation, said = planned(replace(config, branches="clip", stages="seeds"))
    assert f"seeds and pseudo labels: {TRAIN} of {TRAIN} images have masks; masks are" in said
    assert "validation:" not in said and not evaluation.validation
    assert len(evaluation.seeds) == TRAIN

    evaluation, said = planned(replace(config, stages="classifier"))
    assert "validation:" not in said and not evaluation.validation
    assert f"seeds and pseudo labels: train, {TRAIN} of {TRAIN} images have masks; 6 of" in said
    assert len(evaluation.seeds) == 6


def test_tags_of_seeds_are_those_of_their_images(config: Config) -> None:
    evaluation, _ = planned(config)
    expected = image_tags(config, VOC, evaluation.seeds.items, "train")
    assert (evaluation.seeds.tags.matrix() == expected).all() and expected.any(1).all()


def without(*folders: str) -> Callable[[Path], None]:
    return lambda root: [shutil.rmtree(root / folder) for folder in folders]


def without_masks_of(split: str) -> Callable[[Path], None]:
    def remove(root: Path) -> None:
        for path in root.glob(f"SegmentationClass*/toy_{split}_*.png"):
            path.unlink()

    return remove


@pytest.mark.parametrize(
    ("remove", "first", "scored"),
    [
        (
            without("SegmentationClass", "SegmentationClassAug"),
            "this run will make no score at all, for want of masks",
            (0, 0),
        ),
        (
            without_masks_of("val"),
            "this run will make no validation score, for want of masks",
            (0, 6),
        ),
        (without_masks_of("train"), f"voc: {TRAIN} training images", (3, 0)),
    ],
)
def test_a_run_without_scores_says_so_first(
    remove: Callable[[Path], None],
    first: str,
    scored: tuple[int, int],
    config: Config,
    tmp_path: Path,
) -> None:
    root = shutil.copytree(config.data_root, tmp_path / "voc")
    remove(root)
    evaluation, said = planned(replace(config, data_root=str(root)))
    assert said.startswith(first)
    assert (len(evaluation.validation), len(evaluation.seeds)) == scored


def test_a_missing_list_of_seeds_is_told_and_no_reason_not_to_train(config: Config) -> None:
    evaluation, said = planned(replace(config, seeds_split="nowhere"))
    assert not len(evaluation.seeds)
    assert "seeds and pseudo labels: not scored: list " in said and "nowhere.txt does not" in said
    evaluation, said = planned(replace(config, eval_seeds=False))
    assert not len(evaluation.seeds) and "not scored (--eval_seeds false)" in said


def test_the_first_images_of_a_list_can_be_named(config: Config, tmp_path: Path) -> None:
    assert [item.name for item in split_items(config, "train[:3]")] == [
        f"toy_train_{k:06d}" for k in range(3)
    ]
    listed = tmp_path / "own.txt"
    listed.write_text("toy_train_000005\ntoy_train_000002\n")
    named = f"{listed}[:1]"
    assert [item.name for item in split_items(config, named)] == ["toy_train_000005"]
    assert own_split(replace(config, seeds_split=named), named) == "train"
    assert own_split(config, named) == "val" and own_split(config, "train[:3]") == "train"


def test_the_ready_files_score_what_they_say() -> None:
    voc, coco, toy = (load_config(CONFIGS / f"{name}.yaml") for name in ("voc", "coco", "toy_voc"))
    assert (voc.eval_images, coco.eval_images) == (0, 5000)
    for config in (voc, coco):
        assert (config.eval_seeds, config.seeds_split, config.seeds_images) == (True, "train", 500)
    assert toy.seeds_split == "train[:200]" and toy.seeds_images >= 200  # as its figures are


def test_scores_name_the_images_they_are_over(
    start: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--eval_seeds", "--seeds_images", 6, "--branches", "clip", "--max_iters", 1]
    assert run(train_voc.main, *start, *flags) == 0
    log = (tmp_path / "run/train.log").read_text()
    assert "pseudo label mIoU" in log and f"(train, spread over {TRAIN}, 6 images)" in log
    assert f"(val, spread over {VAL}, 2 images)" in log
    results = read_results(tmp_path / "run")
    assert results["pseudo label"]["split"] == f"train, spread over {TRAIN}"

    capsys.readouterr()
    model = tmp_path / "run/checkpoints/final.pt"
    assert run(test_msc_flip_voc.main, "--model_path", model, "--no_crf", "--device", "cpu") == 0
    said = capsys.readouterr().out
    assert f"masks: {VAL} of {VAL} images have masks" in said
    assert f"pseudo label (train, spread over {TRAIN}, 6)" in said


def test_full_size_on_a_cpu_says_the_days(monkeypatch: pytest.MonkeyPatch) -> None:
    voc = replace(load_config(CONFIGS / "voc.yaml"), precision="bf16")
    tags = np.zeros((10582 + 5, 20), bool)
    tags[:10582, 3] = True  # stage 1 leaves out those without a tag
    training = Split([Item(str(k), Path(), None) for k in range(len(tags))], tags)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")

    # seconds per image at a crop of 320 px: 0.236 in stage 1 with 20 classes, 0.52 in stage 2
    small = replace(voc, mct_crop_size=320, mct_epochs=45)
    hours = (45 * 10582 * 0.236 + 30000 * 4 * 0.52) / 3600
    assert f"about {hours / 24:.1f} days (threads: 2; " in cpu_time(small, training)
    slow = replace(small, precision="fp32")
    assert f"about {3.5 * hours / 24:.1f} days" in cpu_time(slow, training)
    large = replace(small, mct_crop_size=640)
    hours = (4 * 45 * 10582 * 0.236 + 30000 * 4 * 0.52) / 3600
    assert f"about {hours / 24:.1f} days" in cpu_time(large, training)

    alone = replace(voc, branches="clip")
    assert "about 17 hours" in cpu_time(alone, training)
    assert cpu_time(replace(voc, max_iters=10, mct_epochs=0), training) == ""
    hours = 45 * 10582 * 0.236 / 3600
    assert f"about {hours / 24:.1f} days" in cpu_time(replace(small, stages="classifier"), training)
    assert cpu_time(replace(alone, stages="seeds"), training) == ""
    assert cpu_time(replace(voc, clip_path="toy"), training) == ""


@pytest.fixture
def old_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a GPU whose driver is too old for its PyTorch."""
    (tmp_path / "version").write_text("NVRM version: NVIDIA Kernel Module  535.104.05  Sat Aug\n")
    monkeypatch.setattr(gpu, "DRIVER_FILE", tmp_path / "version")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.usefixtures("old_driver")
def test_an_unusable_gpu_stops_training_and_testing_of_full_size(
    start: list[str], trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    auto = ["--device", "auto"]
    assert run(train_voc.main, *start, *auto) == 2
    said = capsys.readouterr().err
    assert "needs driver 580 or newer" in said and said.count("\n") == 1
    assert not (tmp_path / "run").exists()

    model = trained / "checkpoints/final.pt"
    assert run(test_msc_flip_voc.main, "--model_path", model, "--work_dir", tmp_path, *auto) == 2
    assert "or go on without it by --device cpu" in capsys.readouterr().err


@pytest.mark.usefixtures("old_driver")
def test_an_unusable_gpu_is_a_warning_on_the_toy(start: list[str], tmp_path: Path) -> None:
    flags = ["--device", "auto", "--clip_path", "toy", "--branches", "clip", "--max_iters", 1]
    assert run(train_voc.main, *start, *flags, "--skipped_maps", 1, "--early_maps", 3) == 0
    first = (tmp_path / "run/train.log").read_text().splitlines()[0]
    assert "warning: this machine has an NVIDIA GPU that PyTorch cannot use" in first
