"""A run goes on only as the training that began it: with its settings, images and tags."""

import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import counted, run, same_weights, signalled

import train_voc
from datasets.data import Split
from datasets.layouts import items
from datasets.lists import Item
from datasets.specs import VOC
from datasets.tag_sources import find_tags
from datasets.tags import Tags, write_tags
from utils.common.errors import UserError
from utils.config import CONFIG_FILE, Config, load_config
from utils.run_folder.checkpoint import checkpoint_of
from utils.run_folder.resuming import check_settings

LISTS = Path("ImageSets") / "Segmentation"


@pytest.fixture
def again(trained: Path, start: list[str], tmp_path: Path) -> list[str]:
    """Flags that resume a copy of the whole training `trained`, in `tmp_path / "run"`."""
    shutil.copytree(trained, tmp_path / "run")
    return [*start, "--resume"]


def refusal(capsys: pytest.CaptureFixture[str], folder: Path, *flags: object) -> str:
    """The one sentence by which training is refused, nothing in the run folder being changed."""
    before = (folder / CONFIG_FILE).read_bytes()
    assert run(train_voc.main, *flags) == 2
    assert (folder / CONFIG_FILE).read_bytes() == before

    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("crop_size", "96"),
        ("statistics", "clip"),
        ("box_threshold", "0.5"),
        ("radius", "3"),
        ("w_pat", "0.2"),
        ("lr", "0.001"),
        ("max_iters", "5"),
        ("seed", "1"),
    ],
)
def test_what_makes_another_training_is_refused(
    name: str, value: str, again: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "run" / CONFIG_FILE
    said = refusal(capsys, tmp_path / "run", *again, f"--{name}", value)
    assert f"{own} was trained with {name} " in said
    assert f"go on with --config {own} and without --{name}" in said


def test_of_another_length_max_iters_is_told_and_not_what_follows_it(tmp_path: Path) -> None:
    began, asked = (load_config("toy_voc", {"max_iters": length}) for length in (60, 70))
    assert began.self_train_iters != asked.self_train_iters
    with pytest.raises(UserError, match="with max_iters 60, not 70; .* without --max_iters"):
        check_settings(asked, asdict(began), tmp_path / CONFIG_FILE, tmp_path)


def test_a_run_without_memory_for_its_first_step_begins_anew_with_a_smaller_batch(
    start: list[str], tmp_path: Path
) -> None:
    def refuse() -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    with pytest.MonkeyPatch.context() as patch:
        counted(patch, 1, refuse)
        assert run(train_voc.main, *start) == 1
    assert (tmp_path / "run" / CONFIG_FILE).is_file()
    assert run(train_voc.main, *start, "--batch_size", 1, "--resume") == 0
    assert "batch_size: 1\n" in (tmp_path / "run" / CONFIG_FILE).read_text()


def test_pseudo_labels_made_without_training_keep_their_settings(
    start: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seeds = [*start, "--branches", "clip", "--stages", "seeds"]
    assert run(train_voc.main, *seeds) == 0
    capsys.readouterr()
    said = refusal(capsys, tmp_path / "run", *seeds, "--resume", "--box_threshold", 0.7)
    assert "was trained with box_threshold 0.4, not 0.7" in said


def test_the_refusal_says_how_to_go_on(again: list[str], tmp_path: Path) -> None:
    flags = ["--work_dir", tmp_path / "run"]  # as the copied file names the folder it comes from
    assert run(train_voc.main, "--config", tmp_path / "run" / CONFIG_FILE, *flags, "--resume") == 0


def test_when_self_training_begins_matters_to_runs_that_do_it_alone(tmp_path: Path) -> None:
    """So that a run of an earlier version, which did not know of it, goes on."""
    stored = asdict(Config(self_train_iters=18000))
    check_settings(Config(self_train_iters=288), stored, tmp_path / CONFIG_FILE, tmp_path)
    stored = asdict(Config(self_train="labels", self_train_iters=18000))
    later = Config(self_train="labels", self_train_iters=288)
    with pytest.raises(UserError, match="was trained with self_train_iters 18000, not 288"):
        check_settings(later, stored, tmp_path / CONFIG_FILE, tmp_path)
    with pytest.raises(UserError, match="was trained with self_train 'labels', not 'none'"):
        check_settings(Config(), stored, tmp_path / CONFIG_FILE, tmp_path)


def test_what_says_where_and_how_a_run_is_watched_may_change(
    again: list[str], tmp_path: Path
) -> None:
    other = {
        "val_split": "train",
        "workers": 1,
        "log_every": 2,
        "eval_every": 1,
        "keep": 2,
        "resize_long": 32,
        "quiet": "true",
        "on_bad_image": "skip",
    }
    flags = [word for name, value in other.items() for word in (f"--{name}", value)]
    assert run(train_voc.main, *again, *flags) == 0
    assert "val_split: train\n" in (tmp_path / "run" / CONFIG_FILE).read_text()


def test_a_run_goes_on_where_its_data_moved_to(
    trained: Path, start: list[str], toy_voc: Path, tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        counted(patch, 4, signalled)
        assert run(train_voc.main, *start) == 130
    shutil.copytree(toy_voc, tmp_path / "moved")
    listed = shutil.copy(toy_voc / LISTS / "train_aug.txt", tmp_path / "same.txt")
    flags = ["--data_root", tmp_path / "moved", "--train_split", listed]
    assert run(train_voc.main, *start, *flags, "--resume") == 0
    assert same_weights(tmp_path / "run", trained)


def test_other_images_are_refused(
    again: list[str], toy_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = (toy_voc / LISTS / "train_aug.txt").read_text().split()
    for count in (len(names) - 1, len(names)):
        listed = tmp_path / "other.txt"
        listed.write_text("\n".join(reversed(names[:count])))
        said = refusal(capsys, tmp_path / "run", *again, "--train_split", listed)
        assert f"was trained on other images than --train_split {listed} lists" in said


def test_other_tags_are_refused(
    again: list[str], toy_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [item.name for item in items("voc", toy_voc, "train_aug")]
    matrix = find_tags("voc", toy_voc, "train_aug", names, VOC)
    file = tmp_path / "tags.json"
    write_tags(file, VOC, Tags(tuple(names), matrix, "the same"))
    assert run(train_voc.main, *again, "--tags", file) == 0

    matrix[3, 7] ^= True
    write_tags(file, VOC, Tags(tuple(names), matrix, "one other"))
    said = refusal(capsys, tmp_path / "run", *again, "--tags", file)
    assert f"was trained with other tags than --tags {file} has" in said


@pytest.mark.parametrize("found", [None, 7])
def test_a_checkpoint_that_does_not_know_its_data_goes_on_and_says_so(
    found: object, again: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for stage in ("classifier", "segmenter"):
        path = checkpoint_of(tmp_path / "run", stage)
        torch.save({**torch.load(path, weights_only=True), "data": found}, path)
    assert run(train_voc.main, *again) == 0
    assert "whether they are the same could not be checked" in capsys.readouterr().out


def test_a_fingerprint_tells_names_tags_and_their_order() -> None:
    def split(names: str, tags: np.ndarray, folder: str = "a") -> Split:
        return Split([Item(name, Path(folder) / name, None) for name in names], tags)

    tags = np.eye(3, 20).astype(bool)
    mark = split("abc", tags).fingerprint
    assert split("abc", tags, folder="b").fingerprint == mark
    other = split("acb", tags).fingerprint
    assert other["images"] != mark["images"] and other["tags"] == mark["tags"]
    other = split("abc", tags[::-1]).fingerprint
    assert other["images"] == mark["images"] and other["tags"] != mark["tags"]


def test_parts_of_a_split_keep_their_tags() -> None:
    found = [Item(name, Path(name), None) for name in "abc"]
    split = Split(found, np.array([[True], [False], [True]]))
    assert [item.name for item in split.tagged().items] == ["a", "c"]
    assert split.tagged().tags.matrix().tolist() == [[True], [True]]
    assert len(split.at((0, 2))) == 2 and len(split) == 3
    assert list(split.at((2,)).items) == [split.items[2]]
