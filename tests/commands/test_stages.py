"""Where a run ends: pseudo labels without training, the class-token ViT alone, or everything."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import crash, final_weights, metrics, run
from PIL import Image
from torch import Tensor

import train_voc
from datasets.data import Split
from datasets.layouts import items
from datasets.pictures import load_mask
from datasets.specs import VOC
from model.method import BEGINNING
from utils.config import load_config
from utils.metrics import ConfusionMatrix
from utils.run_folder.results import read_results
from utils.splits import training_data
from utils.training import classifier, loop, pseudo_masks, validation
from utils.training.run import Stage

CLIP_ES = ("--config", "toy_voc", "clip_es")
FEW = 5  # pictures


def seeds_run(toy_voc: Path, quick: list[str], folder: Path, *flags: object) -> Path:
    """Run folder of CLIP-ES's recipe on a few toy pictures, with the tiny CLIP."""
    names = (toy_voc / "ImageSets" / "Segmentation" / "train.txt").read_text().split()
    few = folder.with_name("few.txt")
    few.write_text("\n".join(names[:FEW]))
    settings = (*CLIP_ES, *quick, "--data_root", toy_voc, "--work_dir", folder)
    flags = ("--train_split", few, "--par_iterations", 0, *flags)
    assert run(train_voc.main, *settings, *flags) == 0
    return folder


def test_clip_es_makes_and_scores_labels_and_trains_nothing(
    toy_voc: Path, quick: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "train_step", None)  # a step would raise
    folder = seeds_run(toy_voc, quick, tmp_path / "run", "--seed_confidence", 0.6)
    assert not list((folder / "checkpoints").iterdir())
    said = (folder / "train.log").read_text()
    assert said.rstrip().endswith(f"pseudo labels: {folder / 'pseudo_labels'}")

    results = read_results(folder)
    assert list(results) == ["CLIP CAM", "CLIP seed", "pseudo label"]
    assert {result["images"] for result in results.values()} == {FEW}
    rows = (folder / "metrics.csv").read_text()
    assert "evaluation,0,CLIP CAM," in rows and "evaluation,0,pseudo label," in rows

    labels = sorted((folder / "pseudo_labels").iterdir())
    assert len(labels) == FEW
    images = {path.stem: path for path in (toy_voc / "JPEGImages").iterdir()}
    unsure = 0.0
    for file in labels:
        found = load_mask(file)
        width, height = Image.open(images[file.stem]).size
        assert found.shape == (height, width)
        unsure += (found == 255).mean()
    assert 0 < unsure < FEW


def test_stopped_labels_go_on_to_the_same_results(
    toy_voc: Path, quick: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = seeds_run(toy_voc, quick, tmp_path / "whole")
    made: list[object] = []
    stop_at = 3
    real = pseudo_masks.image_seeds

    def noted(*given: object) -> object:
        made.append(given)
        if len(made) == stop_at:
            crash()
        return real(*given)

    monkeypatch.setattr(pseudo_masks, "image_seeds", noted)
    with pytest.raises(AssertionError, match="130 == 0"):
        seeds_run(toy_voc, quick, tmp_path / "run")

    names = sorted(file.name for file in (tmp_path / "run" / "pseudo_labels").iterdir())
    stop_at = 0
    made.clear()
    folder = seeds_run(toy_voc, quick, tmp_path / "run", "--resume")
    assert "2 of 5 images are finished already" in (folder / "train.log").read_text()
    assert len(names) == 2 and len(made) == FEW - 2
    assert read_results(folder) == read_results(whole)
    assert labels_of(folder) == labels_of(whole)

    made.clear()
    (folder / "pseudo_labels" / names[0]).unlink()
    seeds_run(toy_voc, quick, folder, "--resume")
    assert len(made) == 1 and read_results(folder) == read_results(whole)


def test_labels_of_other_tags_are_made_anew_and_those_of_another_list_are_told(
    toy_voc: Path, quick: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = seeds_run(toy_voc, quick, tmp_path / "run")
    made: list[object] = []
    real = pseudo_masks.image_seeds
    monkeypatch.setattr(pseudo_masks, "image_seeds", lambda *a: made.append(a) or real(*a))
    entries = [json.loads(line) for line in (folder / "labelled" / "images.jsonl").open()][1:]
    tags = {
        entry["name"]: [VOC.label_names[int(label)] for label in entry["tags"]] for entry in entries
    }
    several = next(name for name, classes in tags.items() if len(classes) > 1)
    tags[several] = tags[several][:1]
    written = tmp_path / "tags.json"
    written.write_text(json.dumps(tags))

    seeds_run(toy_voc, quick, folder, "--resume", "--tags", written)
    assert len(made) == 1

    fewer = ("--train_split", f"{tmp_path / 'few.txt'}[:2]")
    seeds_run(toy_voc, quick, folder, "--resume", "--tags", written, *fewer)
    said = (folder / "train.log").read_text()
    assert f"note: {FEW - 2} of {FEW} label maps" in said and "an earlier list had them" in said


def labels_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (folder / "pseudo_labels").iterdir()}


def test_labels_are_neither_mixed_nor_written_over(
    toy_voc: Path, quick: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = seeds_run(toy_voc, quick, tmp_path / "run")
    split = ("--train_split", tmp_path / "few.txt", "--par_iterations", 0)
    places = ("--data_root", toy_voc, "--work_dir", folder)
    assert run(train_voc.main, *CLIP_ES, *quick, *places, *split) == 2
    assert "already holds a run; add --resume" in capsys.readouterr().err

    seeds_run(toy_voc, quick, folder, "--resume", "--crf_bi_rgb_std", 30)
    assert "other settings (crf_bi_rgb_std): every image is" in capsys.readouterr().out


def test_labels_are_scored_before_unsure_pixels_are_left_out(
    toy_voc: Path, quick: list[str], tmp_path: Path
) -> None:
    strict = seeds_run(toy_voc, quick, tmp_path / "strict", "--seed_confidence", 1)
    lenient = seeds_run(toy_voc, quick, tmp_path / "lenient", "--seed_confidence", 0)
    assert read_results(strict) == read_results(lenient)

    name = sorted((lenient / "pseudo_labels").iterdir())[0].name
    assert 255 not in load_mask(lenient / "pseudo_labels" / name)
    assert (load_mask(strict / "pseudo_labels" / name) == 255).mean() > 0.5

    matrix = ConfusionMatrix(21)
    for file in (lenient / "pseudo_labels").iterdir():
        truth = load_mask(toy_voc / "SegmentationClassAug" / file.name)
        matrix.update(load_mask(file), truth)
    assert matrix.counts.tolist() == read_results(lenient)["pseudo label"]["counts"]


def test_the_crfs_constants_and_the_way_to_whole_patches_change_the_labels(
    toy_voc: Path, quick: list[str], tmp_path: Path
) -> None:
    def counts(name: str, *flags: object) -> str:
        folder = seeds_run(toy_voc, quick, tmp_path / name, *flags)
        return json.dumps(read_results(folder)["pseudo label"]["counts"])

    usual = counts("usual")
    assert counts("again") == usual
    assert counts("wide", "--crf_bi_rgb_std", 30) != usual
    assert counts("padded", "--seed_size", "padded") != usual
    assert counts("par", "--seed_refinement", "par") != usual


def test_without_masks_labels_are_made_and_nothing_is_scored(
    without_masks: Path, quick: list[str], tmp_path: Path
) -> None:
    folder = seeds_run(without_masks, quick, tmp_path / "run", "--eval_seeds", "false")
    assert len(list((folder / "pseudo_labels").iterdir())) == FEW
    assert read_results(folder) == {}


def test_weclip_trains_on_the_toy(toy_voc: Path, quick: list[str], tmp_path: Path) -> None:
    flags = (*quick, "--data_root", toy_voc, "--work_dir", tmp_path / "run", "--visualise", 0)
    assert run(train_voc.main, "--config", "toy_voc", "weclip", *flags) == 0
    weights = final_weights(tmp_path / "run")
    assert {name.split(".")[0] for name in weights} == {"fusion", "decoder"}
    assert not (tmp_path / "run" / "checkpoints" / "classifier.pt").exists()


def test_mctformer_plus_ends_with_the_vit(
    toy_voc: Path, quick: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = (*quick, "--data_root", toy_voc, "--work_dir", tmp_path / "run")
    flags = ("--mct_epochs", 1, "--mct_batch_size", 12)
    assert run(train_voc.main, "--config", "toy_voc", "mctformer_plus", *settings, *flags) == 0
    files = [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()]
    assert files == ["classifier.pt"]
    assert (
        f"--mct_path {tmp_path / 'run' / 'checkpoints' / 'classifier.pt'}"
        in (tmp_path / "run" / "train.log").read_text()
    )

    # what ended there goes on from there
    assert (
        run(
            train_voc.main,
            "--config",
            tmp_path / "run" / "config.yaml",
            "--stages",
            "all",
            "--resume",
        )
        == 0
    )
    assert (tmp_path / "run" / "checkpoints" / "final.pt").is_file()


def test_each_stage_has_a_beta2_of_its_own(
    start: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {}

    def noted(stage: Stage, *arguments: Any) -> dict[str, Tensor]:
        found[stage.name] = {group["betas"] for group in stage.optimiser.param_groups}
        return train_step(stage, *arguments)

    train_step = loop.train_step
    monkeypatch.setattr(loop, "train_step", noted)
    flags = ("--mct_adam_beta2", 0.8, "--adam_beta2", 0.7, "--eval_images", 0)
    assert run(train_voc.main, *start, *flags) == 0
    assert found == {"classifier": {(0.9, 0.8)}, "segmenter": {(0.9, 0.7)}}


def test_stage_1_alone_scores_the_seeds_that_stage_2_would_begin_with(
    start: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phases = []

    def noted(*arguments: Any) -> dict[str, ConfusionMatrix]:
        phases.append(arguments[-1])
        return score_seeds(*arguments)

    score_seeds = validation.score_seeds
    monkeypatch.setattr(validation, "score_seeds", noted)
    flags = [*start, "--stages", "classifier", "--eval_seeds", "--switch_iters", "1"]
    assert run(train_voc.main, *flags) == 0
    rows = metrics(tmp_path / "run")
    assert any(row.startswith(b"evaluation,0,ViT seed,") for row in rows)

    assert run(train_voc.main, *flags, "--resume") == 0
    assert phases == [BEGINNING, BEGINNING] and metrics(tmp_path / "run") == rows


def test_a_run_that_was_ended_in_its_last_look_at_tags_makes_up_for_it(
    start: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = [*start, "--stages", "classifier"]
    with monkeypatch.context() as patch:
        patch.setattr(classifier, "report_tags", lambda *_: crash())
        assert run(train_voc.main, *flags) == 130

    for _ in range(2):
        assert run(train_voc.main, *flags, "--resume") == 0
        looks = [row for row in metrics(tmp_path / "run") if row.startswith(b"tag evaluation,2,")]
        assert len(looks) == 2  # class mAP and image mAP


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--stages", "seeds"], "--stages seeds trains nothing, but --branches fusion needs"),
        (
            ["--stages", "seeds", "--branches", "clip", "--reweight", "prediction"],
            "has learned to predict, but --stages seeds trains nothing; use --reweight none",
        ),
        (
            ["--stages", "classifier", "--branches", "clip"],
            "--stages classifier trains the ViT, which --branches clip leaves out",
        ),
        (
            ["--stages", "classifier", "--mct_path", "vit.pt"],
            "--stages classifier trains the ViT, which --mct_path leaves out",
        ),
    ],
)
def test_stages_that_have_nothing_to_do_are_refused(
    flags: list[str], said: str, start: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(train_voc.main, *start, *flags) == 2
    assert said in capsys.readouterr().err


def test_padding_is_black_where_the_recipe_says_so(
    toy_voc: Path, quick: list[str], tmp_path: Path
) -> None:
    images = items("voc", str(toy_voc), "train", None)
    split = Split(images, np.ones((len(images), 20), bool))
    for names, colour in ((["toy_voc"], (124, 116, 104)), (["toy_voc", "weclip"], (0, 0, 0))):
        data = training_data(split, load_config(names, {"scale_min": 0.3, "scale_max": 0.4}), 192)
        sample = data[0, 0]
        padding = sample["image"][:, ~sample["valid"]]
        assert padding.shape[1] > 0
        assert padding.unique(dim=1)[:, 0].tolist() == list(colour)
