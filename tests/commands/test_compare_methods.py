"""The comparison of methods: which rows there are, what is trained for them, and what it leaves."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers import counted, run, signalled
from PIL import Image

import train_voc
from datasets.layouts import items
from utils.common.entry import command
from utils.config import RECIPES
from utils.report.methods import Score
from utils.tools.compare_methods import __main__ as compare
from utils.tools.compare_methods import rows as rows_of
from utils.tools.compare_methods.given_labels import MASKS, LabelledCrops, with_labels
from utils.tools.compare_methods.rows import read_rows
from utils.tools.compare_methods.steps import Step, done
from utils.tools.compare_methods.trials import STAGE_1

MAIN = command(compare.main)
STAGE_1_STEPS = ["classifier"] * 2
STAGE_2_STEPS = ["segmenter"] * 4


@pytest.fixture
def settings(toy_voc: Path, quick: list[str], tmp_path: Path) -> Path:
    """A configuration file of the quick training."""
    values = {
        flag.removeprefix("--"): yaml.safe_load(value)
        for flag, value in zip(quick[::2], quick[1::2])
    }
    values |= {"data_root": str(toy_voc), "train_split": "train"}
    path = tmp_path / "quick.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture
def flags(settings: Path, tmp_path: Path) -> list[object]:
    """Flags of a comparison of one seed in the folder `tmp_path / "compare"`."""
    folder = tmp_path / "compare"
    return ["--data", settings, "--seeds", 0, "--work_dir", folder, "--no_crf", "--quiet"]


def summary(tmp_path: Path) -> dict[str, Any]:
    """What the comparison's JSON holds."""
    return json.loads((tmp_path / "compare" / "comparison.json").read_text())


def scores(content: dict[str, Any], title: str) -> dict[str, dict[str, float]]:
    """Scores under a title by row and seed."""
    (measure,) = (each for each in content["measures"] if each["title"] == title)
    return {line["row"]: line["by_seed"] for line in measure["lines"]}


def test_rows_share_all_they_agree_on_and_nothing_is_done_twice(
    flags: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ["cvf", "near=radius:2", "tested=scales:1", "masks"]
    with pytest.MonkeyPatch.context() as patch:
        steps = counted(patch)
        assert run(MAIN, *flags, "--rows", *rows) == 0
        # one stage 1 of all; `tested` differs from `cvf` in the test alone
        assert steps == STAGE_1_STEPS + STAGE_2_STEPS * 3
        table = capsys.readouterr().out

        assert run(MAIN, *flags, "--rows", *rows) == 0
        assert len(steps) == 2 + 4 * 3
        assert capsys.readouterr().out.split("mIoU in percent", 1)[1] in table

    content = summary(tmp_path)
    assert [row["name"] for row in content["rows"]] == ["cvf", "near", "tested", "masks"]
    assert content["rows"][1]["changed"] == {"radius": 2}
    single, labels = scores(content, "single scale"), scores(content, "pseudo label")
    assert list(single) == ["cvf", "near", "tested", "masks"]
    assert list(labels) == ["cvf", "near", "tested"]
    assert single["tested"] == single["cvf"] and labels["tested"] == labels["cvf"]

    for row in content["rows"]:
        assert set(row["costs"]) == {"stage 1", "stage 2", "scores"}
        for cost in row["costs"].values():
            assert cost["cpu_minutes"] > 0 and cost["minutes"] > 0
            assert 0.1 < cost["gigabytes"] < 100


def test_labels_that_are_given_teach_what_the_same_masks_do(
    flags: list[object], toy_voc: Path, tmp_path: Path
) -> None:
    labels = tmp_path / "labels"
    shutil.copytree(toy_voc / "SegmentationClassAug", labels)
    rows = ["masks", f"given=labels:{labels}"]
    assert run(MAIN, *flags, "--branches", "clip", "--rows", *rows) == 0
    single = scores(summary(tmp_path), "single scale")
    assert single["given"] == single["masks"]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda file: file.unlink(), "lacks label maps of 1 of 24 training images, first toy_"),
        (lambda file: Image.new("L", (96, 72), 21).save(file), "hold labels outside 0..20"),
        (lambda file: Image.new("L", (96, 96), 1).save(file), "make the mask again"),
    ],
)
def test_labels_that_do_not_fit_are_refused_before_any_training(
    spoil: Callable[[Path], None],
    said: str,
    flags: list[object],
    toy_voc: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    labels = tmp_path / "labels"
    shutil.copytree(toy_voc / "SegmentationClassAug", labels)
    spoil(sorted(labels.glob("toy_train_*.png"))[0])
    with pytest.MonkeyPatch.context() as patch:
        steps = counted(patch)
        assert run(MAIN, *flags, "--rows", f"given=labels:{labels}") == 2
    assert not steps
    assert said in capsys.readouterr().err


def test_labels_alone_are_scored_without_stage_2(
    flags: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ["cvf", "strong=box_threshold:0.9,background_power_fused:3", "loss=w_attn:0.5", "masks"]
    with pytest.MonkeyPatch.context() as patch:
        steps = counted(patch)
        only = ("--labels_only", "--labels_split", "train[:6]")
        assert run(MAIN, *flags, *only, "--rows", *rows) == 0
        assert steps == STAGE_1_STEPS

    said = capsys.readouterr().out
    assert "loss: the same scores as cvf" in said
    assert "masks: not run: it is trained on labels that are given" in said
    assert "strong: the same" not in said

    content = summary(tmp_path)
    assert {measure["images"] for measure in content["measures"]} == {6}
    titles = [measure["title"] for measure in content["measures"]]
    assert titles[-4:] == ["CLIP seed", "ViT seed", "fused seed", "pseudo label"]
    found = scores(content, "fused seed")
    assert found["loss"] == found["cvf"] != found["strong"]


def test_labels_that_are_given_need_a_stage_that_learns_them(
    flags: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(MAIN, *flags, "--rows", "given=clip_es,masks") == 2
    assert "given cannot run: it is trained on labels that are given" in capsys.readouterr().err


def test_a_stopped_comparison_goes_on_where_it_stopped(
    flags: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ("--rows", "clip", "steep=clip,lr:0.001")
    with pytest.MonkeyPatch.context() as patch:
        steps = counted(patch, at=5, event=signalled)
        assert run(MAIN, *flags, *rows) == 130
        assert "the same command goes on" in capsys.readouterr().err
        assert len(steps) == 6
        assert [row["costs"] == {} for row in summary(tmp_path)["rows"]] == [False, True]

        assert run(MAIN, *flags, *rows) == 0
        assert steps == STAGE_2_STEPS * 2
    whole = scores(summary(tmp_path), "single scale")

    shutil.rmtree(tmp_path / "compare")
    assert run(MAIN, *flags, *rows) == 0
    assert scores(summary(tmp_path), "single scale") == whole


@pytest.mark.drawn
def test_a_row_that_cannot_run_is_told_and_the_others_go_on(
    flags: list[object],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    shutil.copy(RECIPES / "weclip.yaml", recipes)
    monkeypatch.setattr(rows_of, "RECIPES", recipes)
    rows = ("best", "deep=dense_blocks:9", "weclip")
    assert run(MAIN, *flags, "--labels_only", "--rows", *rows) == 0

    said = capsys.readouterr().out
    assert "best: not run: there is no configs/recipes/best.yaml yet" in said
    assert "deep: not run: --dense_blocks 9 are too many" in said
    content = summary(tmp_path)
    assert [bool(row["reason"]) for row in content["rows"]] == [True, True, False]
    assert list(scores(content, "pseudo label")) == ["weclip"]

    assert run(MAIN, *flags, "--labels_only", "--rows", "best") == 2
    assert "best cannot run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("wecilp", "no recipe wecilp, did you mean 'weclip'?"),
        ("a=weclip,zzz", "no recipe zzz; choose from"),
        ("a=radios:3", "no setting radios, did you mean 'radius'?"),
        ("a=radius:many", "radius is 'many'; it must be of type int"),
        ("a=radius:0", "--radius 0 must be at least 1"),
        ("a=pad_images:maybe", "it must be of type bool"),
        ("a=cam:both,seed:3", "seed is the same for all rows; give --seeds"),
        ("a/b=radius:3", "'a/b' is no name of a row"),
        ("cvf=radius:3", "two rows cvf"),
    ],
)
def test_a_bad_row_is_one_sentence_before_anything_runs(
    given: str,
    said: str,
    flags: list[object],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(MAIN, *flags, "--rows", "cvf", given) == 2
    error = capsys.readouterr().err
    assert said in error and len(error.splitlines()) == 1
    assert not (tmp_path / "compare").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--reference", "clap"], "--reference clap is no row"),
        (["--seed", 3], "--seed is no flag of a comparison; give --seeds"),
        (["--mct_path", "vits/{seed}.pt"], "--mct_path vits/0.pt does not exist"),
        (["--other_root", "nowhere"], "nowhere"),
        (["--data", "toy_vocc"], "--config toy_vocc does not exist, did you mean 'toy_voc'?"),
    ],
)
def test_a_bad_flag_is_one_sentence(
    arguments: list[object], said: str, flags: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(MAIN, *flags, "--rows", "cvf", *arguments) == 2
    error = capsys.readouterr().err
    assert said in error and len(error.splitlines()) == 1


def test_a_given_vit_leaves_stage_1_out_unless_a_row_changes_it(
    flags: list[object], trained: Path, tmp_path: Path
) -> None:
    shutil.copy(trained / "checkpoints" / "classifier.pt", tmp_path / "vit_0.pt")
    with pytest.MonkeyPatch.context() as patch:
        steps = counted(patch)
        given = ("--mct_path", tmp_path / "vit_{seed}.pt")
        rows = ("cvf", "near=radius:2", "longer=mct_epochs:2")
        assert run(MAIN, *flags, *given, "--rows", *rows) == 0
    assert steps == STAGE_2_STEPS * 2 + STAGE_1_STEPS * 2 + STAGE_2_STEPS
    costs = [list(row["costs"]) for row in summary(tmp_path)["rows"]]
    assert costs == [["stage 2", "scores"]] * 2 + [["stage 1", "stage 2", "scores"]]


def test_all_rows_have_the_budget_of_the_data_unless_a_switch_changes_it(settings: Path) -> None:
    given = ["mctformer_plus", "long=weclip,max_iters:8", "weclip"]
    mct, long, weclip = read_rows(given, [str(settings)], {})
    assert mct.config.mct_epochs == 1 and mct.config.stages == "classifier"
    assert mct.notes == ("mct_epochs 1, of the data, in place of the recipe's 45",)
    assert (long.config.max_iters, weclip.config.max_iters) == (8, 4)
    assert long.config.warmup_iters == 2 * weclip.config.warmup_iters == 100
    assert weclip.config.branches == "clip" and weclip.changed["fill"] == "black"
    assert not weclip.notes and "max_iters" not in weclip.changed


def test_stage_1_depends_on_none_of_the_settings_that_rows_may_share_it_in(
    start: list[str], tmp_path: Path
) -> None:
    assert {"crop_size", "max_iters", "cam", "w_attn", "eval_every"}.isdisjoint(STAGE_1)
    assert {"seed", "mct_lr", "vit_logit_scale", "fill", "scale_min", "precision", "tags"} <= set(
        STAGE_1
    )

    tensors = []
    others = ("--crop_size", 96, "--cam", "dense", "--lr", 0.1, "--batch_size", 3)
    for name, changed in (("one", ()), ("other", others)):
        folder = tmp_path / name
        arguments = (*start, "--stages", "classifier", "--work_dir", folder, *changed)
        assert run(train_voc.main, *arguments) == 0
        file = folder / "checkpoints" / "classifier.pt"
        tensors.append(torch.load(file, weights_only=True)["model"])
    one, other = tensors
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_step_is_known_by_its_settings_and_keeps_its_costs(tmp_path: Path) -> None:
    folders = []

    def work(folder: Path) -> dict[str, Score]:
        folders.append(folder)
        if len(folders) == 1:
            sum(range(3_000_000))
            raise KeyboardInterrupt
        return {"pseudo label": Score(float(len(folders)), "val", 3)}

    def do(name: str, **settings: object) -> Step:
        return done(tmp_path, name, settings, "cpu", work)[0]

    with pytest.raises(KeyboardInterrupt):
        do("one", radius=3, scales=[1.0])
    (before,) = (json.loads(file.read_text()) for file in tmp_path.glob("*/step.json"))
    assert before["cpu"] > 0 and not before["finished"]

    step = do("one", radius=3, scales=[1.0])
    assert step.finished and step.cpu >= before["cpu"] and step.seconds > before["seconds"]
    assert do("another name", radius=3, scales=[1.0]) == step
    # what did not exist then had the value that runs had before: 0.1 where the default is 0.1
    assert do("later version", radius=3, scales=[1.0], w_attn=0.1) == step
    assert do("one", radius=4, scales=[1.0]).scores["pseudo label"].value == 3
    assert [folder.name for folder in folders] == ["one", "one", "one-2"]


def test_masks_are_cropped_as_the_images_are(toy_voc: Path) -> None:
    images = items("voc", toy_voc, "train")
    maps = with_labels(images, MASKS).masks
    data = LabelledCrops(maps, images, np.zeros((len(images), 20), bool), 64, (0.5, 0.75))
    padded = 0
    for index in range(6):
        sample = data[0, index]
        labels = sample["labels"]
        assert labels.shape == (64, 64) and labels.dtype == torch.uint8
        # what is no picture has no label; the drawn masks themselves may hold a rim of 255
        outside = ~sample["valid"]
        assert (labels[outside] == 255).all()
        assert (labels[sample["valid"]] != 255).any()
        padded += int(outside.sum())
    assert padded > 0
