"""A run beside the numbers of its recipe: which recipe it is, and what is printed and drawn."""

import csv
from datetime import date
from pathlib import Path

import pytest
from helpers import run

import train_voc
from utils.config import Config, load_config, save_config
from utils.health.findings import suiting
from utils.metrics import SINGLE
from utils.recipe import LossesBeside, beside_end, beside_score, recipe_of, references_of
from utils.references import Reference, Source, read_references
from utils.report.folder import read_run
from utils.report.page import bands, others, write_report
from utils.run_folder.results import read_results
from utils.training import classifier, pseudo_masks, stages, validation

LOG = Source("https://example.org/log.txt", date(2026, 11, 25), "their log, one run")


def reference(name: str, step: int | None, value: float, **about: object) -> Reference:
    """A number of a log, of the training images unless said otherwise."""
    facts = {"recipe": "x", "split": "train_aug", "source": LOG, "window": 2, **about}
    return Reference(name=name, step=step, value=value, **facts)


@pytest.fixture(autouse=True)
def shipped() -> None:
    """The shipped numbers, whatever file another test read."""
    read_references.cache_clear()


@pytest.mark.parametrize(
    ("given", "changes", "recipe"),
    [
        ("weclip_voc", {}, "weclip_voc"),
        ("weclip_coco", {}, "weclip_coco"),
        ("clip_es_voc", {"train_split": "train_aug"}, "clip_es_voc"),
        ("weclip_voc", {"seed": 3, "eval_images": 100, "precision": "fp32"}, "weclip_voc"),
        ("weclip_voc", {"batch_size": 8}, ""),
        ("weclip_voc", {"max_iters": 300}, ""),
        ("weclip_voc", {"clip_path": "toy"}, ""),
        ("weclip_voc", {"resize_long": 448}, ""),
    ],
)
def test_a_run_is_a_recipe_by_its_settings(
    given: str, changes: dict[str, object], recipe: str
) -> None:
    assert recipe_of(load_config(given, changes)) == recipe


@pytest.mark.parametrize(("year", "compared"), [("2014", True), ("2017", False)])
def test_numbers_of_coco_2014_are_not_held_against_other_lists(
    year: str, compared: bool, tmp_path: Path
) -> None:
    (tmp_path / "annotations").mkdir()
    for split in ("train", "val"):
        (tmp_path / f"{split}{year}").mkdir()
        (tmp_path / "annotations" / f"instances_{split}{year}.json").touch()

    for flags in ({}, {"val_split": "own/list.txt"}):
        config = load_config("weclip_coco", {"data_root": str(tmp_path), **flags})
        assert recipe_of(config) == "weclip_coco"
        assert bool(references_of(config)) == compared
        assert bool(suiting("images", "val", config)) == compared
    assert suiting("CLIP scale", "weights", config, of_data=False)


def test_a_saved_run_is_still_its_recipe(tmp_path: Path) -> None:
    save_config(load_config("weclip_voc"), tmp_path / "config.yaml")
    assert recipe_of(load_config(tmp_path / "config.yaml")) == "weclip_voc"
    assert recipe_of(load_config(["toy_voc", "weclip"])) == ""
    assert not references_of(Config(batch_size=7))


def test_losses_are_told_as_means_of_the_window_without_their_weight() -> None:
    known = [reference("seg", 4, 1.39), reference("affinity", 4, 0.398), reference("seg", 8, 1.0)]
    beside = LossesBeside(known, "train_aug", {"seg": 1.0, "affinity": 0.1})
    said = {}
    for step in range(1, 7):
        said[step] = beside.told(step, {"seg": float(step), "affinity": 0.1 * step, "lr": 9.0})
    assert {step for step, line in said.items() if line} == {4}
    there = "(their log at this point 1.39)"
    assert said[4] == f"seg 3.5 {there}, affinity 3.5 (their log at this point 0.398)"


def test_a_step_between_two_logs_is_named_and_a_window_that_is_not_whole_is_not_told() -> None:
    known = [reference("seg", 4, 1.5)]
    beside = LossesBeside(known, "train_aug", {"seg": 1.0})
    assert [beside.told(step, {"seg": 2.0}) for step in (3, 5)] == [
        "",
        "seg 2 (their log at iteration 4: 1.5)",
    ]

    wide = [reference("seg", 204, 1.5, window=200)]
    resumed = LossesBeside(wide, "train_aug", {"seg": 1.0})
    assert not any(resumed.told(step, {"seg": 2.0}) for step in range(101, 220))


def test_stages_counted_in_epochs_have_their_own_numbers() -> None:
    known = [
        reference("cls", 2, 0.45, unit="epochs", window=1),
        reference("seg", 2, 1.0),
        reference("cls", 2, 0.9, unit="epochs", window=1, split="train"),
    ]
    beside = LossesBeside(known, "train_aug", {"cls": 1.0, "seg": 1.0}, per_epoch=2.5)
    said = [beside.told(step, {"cls": step / 10, "seg": 1.0}) for step in range(1, 9)]
    assert [line for line in said if line] == ["cls 0.45 (their log at this point 0.45)"]
    assert said.index("cls 0.45 (their log at this point 0.45)") == 4


def test_scores_are_told_beside_the_nearest_of_the_same_images() -> None:
    known = [reference(SINGLE, 2000, 42.769, split="val"), reference("CLIP seed", None, 70.8)]
    assert beside_score(SINGLE, "val", 2000, 2000, known) == " (their log at this point 42.77)"
    assert beside_score(SINGLE, "val", 3000, 3000, known) == " (their log at iteration 2000: 42.77)"
    assert beside_score(SINGLE, "val", 4000, 2000, known) == ""
    assert beside_score(SINGLE, "val, spread over 1449", 2000, 2000, known) == ""
    assert beside_end("CLIP seed", "train_aug", known) == " (their log: 70.8)"
    assert beside_end("CLIP seed", "train", known) == ""


@pytest.mark.drawn
def test_a_training_prints_and_draws_them(
    start: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = (
        reference("seg", 2, 1.39),
        reference("affinity", 2, 0.4),
        reference("cls", 1, 0.7, unit="epochs", window=1),
        reference(SINGLE, 3, 42.0, split="val", others=(40.0,)),
    )
    for module in (classifier, stages, validation):
        monkeypatch.setattr(module, "references_of", lambda config: known)
    assert run(train_voc.main, *start, "--eval_images", 0, "--w_attn", 0.5, "--eval_seeds") == 0

    folder = tmp_path / "run"
    log = (folder / "train.log").read_text()
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))

    def mean(name: str, weight: float) -> str:
        values = [
            float(row["value"])
            for row in rows
            if (row["stage"], row["name"]) == ("segmenter", name) and int(row["iteration"]) < 3
        ]
        assert len(values) == 2
        return f"{sum(values) / 2 / weight:.4g}"

    line = next(line for line in log.splitlines() if "segmenter iteration 2: " in line)
    assert f"seg {mean('seg', 1.0)}" in line and "(their log at this point 1.39)" in line
    assert f"affinity {mean('affinity', 0.5)}" in line
    assert "classifier iteration 2: cls 0." in log and "(their log at this point 0.7)" in log
    assert "(val, 4 images) (their log at this point 42)" in log

    monkeypatch.setattr("utils.report.page.references_of", lambda config: known)
    found = read_run(folder)
    assert bands(found, "segmenter") == {"seg": [(2, 1.39, 1.39)], "affinity": [(2, 0.2, 0.2)]}
    assert bands(found, "evaluation") == {SINGLE: [(3, 40.0, 42.0)]}
    page = write_report(folder).read_text()
    assert "seg, others" in page and "affinity, others" in page

    labels = {"name": "pseudo label", "split": "train, spread over 24"}
    ends = (reference(step=4, value=77.0, **labels), reference(step=3, value=70.0, **labels))
    monkeypatch.setattr("utils.report.page.references_of", lambda config: ends)
    assert others(found) == {"pseudo label": "77, their log"}


def test_a_seeds_run_prints_them_where_every_image_has_a_mask(
    start: list[str], toy_voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = (reference("CLIP seed", None, 70.8),)
    monkeypatch.setattr(pseudo_masks, "references_of", lambda config: known)
    flags = ["--branches", "clip", "--stages", "seeds"]
    assert run(train_voc.main, *start, *flags) == 0
    assert "images) (their log: 70.8)" in (tmp_path / "run" / "train.log").read_text()
    assert read_results(tmp_path / "run")["CLIP seed"]["images"] == 24

    monkeypatch.setattr("utils.report.page.references_of", lambda config: known)
    assert "others: 70.8, their log" in write_report(tmp_path / "run").read_text()
