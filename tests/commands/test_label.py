"""Labels from tags without training: what is written, what is not made twice, guessed tags."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT, run
from PIL import Image

from datasets.classes import given_classes
from datasets.predictions import read_journal
from datasets.specs import IGNORE, VOC
from datasets.tags import read_all_tags
from utils.common.entry import command
from utils.inference.labeller import Labeller
from utils.tools import label

QUICK = ["--device", "cpu", "--precision", "fp32", "--resize_long", 64, "--workers", 0, "--quiet"]


@pytest.fixture
def photos(toy_voc: Path, tmp_path: Path) -> Path:
    """Four toy pictures, below a folder."""
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    for number, name in enumerate(("a", "b", "deep/c d", "e")):
        shutil.copy(toy_voc / f"JPEGImages/toy_train_{number:06d}.jpg", folder / f"{name}.jpg")
    return folder


@pytest.fixture
def flags(photos: Path, tmp_path: Path) -> list[object]:
    """Label them quickly with their tags into `tmp_path / "out"`."""
    tags = tmp_path / "tags.csv"
    tags.write_text("image,tags\na.jpg,cat\nb.jpg,dog;Cat\ndeep/c d.jpg,\ne.jpg,bus\n")
    where = ["--images", photos, "--tags", tags, "--out", tmp_path / "out"]
    return [*where, "--classes", "cat, dog, bus", "--clip_path", "toy", *QUICK]


def counted(
    patch: pytest.MonkeyPatch, method: str, stop_at: int | None = None
) -> list[tuple[int, ...]]:
    """A list that grows by the size of every picture that the labeller is asked for from now on;
    Ctrl-C comes before picture `stop_at`.
    """
    seen: list[tuple[int, ...]] = []
    real = getattr(Labeller, method)

    def noted(self: Labeller, image: object, *rest: object) -> object:
        if len(seen) == stop_at:
            raise KeyboardInterrupt
        seen.append(tuple(image.shape[-2:]))
        return real(self, image, *rest)

    patch.setattr(Labeller, method, noted)
    return seen


def written(folder: Path) -> dict[str, bytes]:
    """Content of all files that a run leaves but those that tell the order or the folder."""
    left = (".jsonl", ".lock", ".html")
    files = (file for file in folder.rglob("*") if file.is_file() and not file.name.endswith(left))
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def test_each_picture_gets_labels_of_its_tags_at_its_size(
    flags: list[object], photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command(label.main), *flags) == 0
    said = capsys.readouterr().out
    assert "1 of 4 pictures show no class by their tags, the first is deep/c d" in said
    assert "of these photographs its masks mean nothing" in said
    areas = json.loads((tmp_path / "out/areas.json").read_text())["images"]
    wanted = {"a": {1}, "b": {1, 2}, "deep/c d": set(), "e": {3}}
    assert set(areas) == set(wanted)
    for name, tags in wanted.items():
        labels = Image.open(tmp_path / f"out/prediction/{name}.png")
        assert labels.size == Image.open(photos / f"{name}.jpg").size
        found = set(np.unique(np.array(labels)).tolist())
        assert tags <= found | {0} and found <= tags | {0} and (found & tags or not tags)
        assert (tmp_path / f"out/overlay/{name}.jpg").is_file()
        counts = {area: value["pixels"] for area, value in areas[name]["classes"].items()}
        assert sum(counts.values()) == np.array(labels).size
    assert (tmp_path / "out/report.html").is_file()


def test_an_interrupted_run_goes_on_to_the_same_bytes(flags: list[object], tmp_path: Path) -> None:
    assert run(command(label.main), *flags) == 0
    whole = written(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    with pytest.MonkeyPatch.context() as patch:
        counted(patch, "labels", stop_at=2)
        assert run(command(label.main), *flags) == 130
    with pytest.MonkeyPatch.context() as patch:
        seen = counted(patch, "labels")
        assert run(command(label.main), *flags) == 0
    assert len(seen) == 2 and written(tmp_path / "out") == whole


def test_another_refinement_reads_what_clip_said(flags: list[object], tmp_path: Path) -> None:
    assert run(command(label.main), *flags) == 0
    kept = {name: data for name, data in written(tmp_path / "out").items() if "scores" in name}
    with pytest.MonkeyPatch.context() as patch:
        asked, made = counted(patch, "scores"), counted(patch, "labels")
        other = ("--refine", "none", "--min_confidence", 0.6)
        assert run(command(label.main), *flags, *other) == 0
        assert asked == [] and len(made) == len(kept) == 4
        assert run(command(label.main), *flags, "--cam", "gradcam") == 0
        assert len(asked) == 4


def test_what_clip_said_is_asked_again_where_its_file_is_damaged_or_of_other_tags(
    flags: list[object], tmp_path: Path
) -> None:
    assert run(command(label.main), *flags) == 0
    whole = written(tmp_path / "out")
    (tmp_path / "out/scores/a.safetensors").write_bytes(whole["scores/a.safetensors"][:-9])
    shutil.rmtree(tmp_path / "out/prediction")
    with pytest.MonkeyPatch.context() as patch:
        asked = counted(patch, "scores")
        assert run(command(label.main), *flags) == 0
        assert len(asked) == 1 and written(tmp_path / "out") == whole
        (tmp_path / "tags.csv").write_text("image,tags\na.jpg,dog\nb.jpg,dog;cat\n")
        made = counted(patch, "labels")
        assert run(command(label.main), *flags) == 0
    assert len(asked) == 2 and len(made) == 1  # a alone; b's tags are the same


def test_what_clip_said_of_a_picture_is_not_taken_for_another_of_its_name_and_time(
    flags: list[object], photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "tags.csv").write_text("image,tags\na.jpg,cat\n")
    there, other = tmp_path / "one" / "a.jpg", tmp_path / "two" / "a.jpg"
    for path, source in ((there, "a.jpg"), (other, "b.jpg")):
        path.parent.mkdir()
        shutil.copy(photos / source, path)
        os.utime(path, (0, 0))  # as of what an archive without times held

    with pytest.MonkeyPatch.context() as patch:
        asked = counted(patch, "scores")
        for number, path in enumerate((there, other, other), 1):
            flags[1] = path
            assert run(command(label.main), *flags) == 0
            assert len(asked) == min(number, 2)
    found = written(tmp_path / "out/scores")
    shutil.rmtree(tmp_path / "out")
    assert run(command(label.main), *flags) == 0
    assert found == written(tmp_path / "out/scores")


def test_unsure_pixels_are_not_labelled(flags: list[object], tmp_path: Path) -> None:
    assert run(command(label.main), *flags, "--refine", "par", "--min_confidence", 0.7) == 0
    labels = np.array(Image.open(tmp_path / "out/prediction/a.png"))
    assert 0 < (labels == IGNORE).mean() < 1
    area = json.loads((tmp_path / "out/areas.json").read_text())["images"]["a"]["classes"]
    assert area["not labelled"]["pixels"] == int((labels == IGNORE).sum())


def test_pictures_without_tags_are_left_out_or_guessed_and_guesses_can_be_corrected(
    flags: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tags = tmp_path / "tags.csv"
    tags.write_text("image,tags\na.jpg,cat\n")
    assert run(command(label.main), *flags) == 0
    said = capsys.readouterr().out
    assert "3 of 4 pictures have no tags" in said and "left out" in said
    assert [entry["name"] for entry in read_journal(tmp_path / "out")[1]] == ["a"]

    with pytest.MonkeyPatch.context() as patch:
        made = counted(patch, "labels")
        guess = ("--guess_tags", "--guess_threshold", 0.001)
        assert run(command(label.main), *flags, *guess) == 0
        assert len(made) == 3
        assert "tags of 3 pictures were guessed" in capsys.readouterr().out
        file = tmp_path / "out/guessed_tags.json"
        found = read_all_tags(file, given_classes("cat, dog, bus"))
        assert found.names == ("a", "b", "deep/c d", "e") and found.matrix.any(1).all()

        assert run(command(label.main), *flags, *guess) == 0  # nothing is left to do
        content = json.loads(file.read_text())
        content["tags"]["e"] = [] if content["tags"]["e"] == ["bus"] else ["bus"]
        file.write_text(json.dumps(content))
        corrected = file.read_bytes()
        assert run(command(label.main), *flags, *guess) == 2
        assert "was changed since its tags were guessed" in capsys.readouterr().err

        flags[flags.index(tags)] = file
        assert run(command(label.main), *flags) == 0
        assert len(made) == 4 and file.read_bytes() == corrected


def test_runs_of_fewer_pictures_do_not_make_guessed_tags_seem_corrected(
    flags: list[object], photos: Path, tmp_path: Path
) -> None:
    guess = ("--guess_tags", "--guess_threshold", 0.001)
    (tmp_path / "tags.csv").write_text("image,tags\na.jpg,cat\n")
    file = tmp_path / "out/guessed_tags.json"
    assert run(command(label.main), *flags, *guess) == 0
    assert run(command(label.main), *flags) == 0  # a alone, whose tags are given
    shutil.copy(photos / "a.jpg", photos / "f.jpg")
    assert run(command(label.main), *flags, *guess) == 0
    assert run(command(label.main), "--images", photos / "b.jpg", "--tags", file, *flags[4:]) == 0
    assert run(command(label.main), *flags, *guess) == 0
    names = read_all_tags(file, given_classes("cat, dog, bus")).names
    assert names == ("a", "b", "deep/c d", "e", "f")


def test_an_interrupted_run_with_more_pictures_goes_on_guessing(
    flags: list[object], photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "tags.csv").write_text("image,tags\na.jpg,cat\n")
    flags += ["--guess_tags", "--guess_threshold", 0.001]
    shutil.move(photos / "deep", tmp_path / "later")
    assert run(command(label.main), *flags) == 0
    shutil.move(tmp_path / "later", photos / "deep")
    shutil.copy(photos / "a.jpg", photos / "f.jpg")
    with pytest.MonkeyPatch.context() as patch:
        counted(patch, "labels", stop_at=1)
        assert run(command(label.main), *flags) == 130
    assert run(command(label.main), *flags) == 0
    names = read_all_tags(tmp_path / "out/guessed_tags.json", given_classes("cat, dog, bus")).names
    assert names == ("a", "b", "deep/c d", "e", "f")


def test_a_picture_in_which_clip_sees_no_class_is_left_out(
    flags: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tags.csv").write_text("image,tags\na.jpg,cat\n")
    assert run(command(label.main), *flags, "--guess_tags", "--guess_threshold", 1) == 0
    said = capsys.readouterr().out
    assert "3 of 4 pictures are left out, as they show no class" in said
    areas = json.loads((tmp_path / "out/areas.json").read_text())["images"]
    assert "b.jpg shows no class" in areas["b"]["error"]
    assert [file.name for file in (tmp_path / "out/prediction").iterdir()] == ["a.png"]
    assert not (tmp_path / "out/guessed_tags.json").exists()


def test_the_toy_clip_is_the_default_on_toy_pictures_alone(
    toy_voc: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--classes", "voc", "--tags", toy_voc / "Annotations", "--out", tmp_path / "out"]
    one = ["--images", toy_voc / "JPEGImages/toy_train_000000.jpg"]
    assert run(command(label.main), *one, *flags, *QUICK) == 0
    said = capsys.readouterr().out
    assert "CLIP toy: 20 classes" in said and "mean nothing" not in said
    flags[3] = tmp_path / "t.csv"
    flags[3].write_text("image,tags\na.jpg,cat\n")
    flags[5] = tmp_path / "other"
    assert run(command(label.main), "--images", photos, *flags, *QUICK) == 2
    assert "CLIP file weights/ViT-B-16.pt does not exist" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def changed(name: str, value: object) -> Callable[[list[object]], list[object]]:
    """A change of one flag."""

    def change(flags: list[object]) -> list[object]:
        place = flags.index(name)
        return [*flags[: place + 1], value, *flags[place + 2 :]]

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (changed("--classes", "caat, dog, bus"), "tag 'cat', which is no class, did you mean"),
        (changed("--classes", " , "), "lists 0 classes; give 1 to 254"),
        (changed("--classes", "nowhere.yaml"), "class list nowhere.yaml does not exist"),
        (changed("--classes", "cat, dog, bus, xylophone"), "'a clean origami xylophone.' cannot"),
        (changed("--images", "nowhere"), "--images nowhere is no file, folder or pattern"),
        (changed("--tags", "nowhere.csv"), "--tags nowhere.csv does not exist"),
        (lambda flags: [*flags[:2], *flags[4:]], "there are no tags; give --tags FILE, or --guess"),
        (lambda flags: [*flags, "--min_confidence", 2], "--min_confidence 2 must lie between"),
        (
            lambda flags: [*flags, "--guess_tags", "--guess_threshold", 0],
            "--guess_threshold 0 must lie between",
        ),
        (
            lambda flags: [*flags, "--guess_threshold", 0.1],
            "--guess_threshold 0.1 is of guessed tags; add --guess_tags, or leave it out",
        ),
        (lambda flags: [*flags, "--clip_path", "nowhere.pt"], "nowhere.pt does not exist"),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_written(
    change: Callable[[list[object]], list[object]],
    said: str,
    flags: list[object],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(command(label.main), *change(flags)) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and said in lines[0], lines
    assert not (tmp_path / "out").exists()


def test_photos_of_which_none_has_tags_are_refused(
    flags: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tags.csv").write_text("image,tags\nother.jpg,cat\n")
    assert run(command(label.main), *flags) == 2
    assert "lists no picture of these" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_class_names_of_voc_have_their_prompts() -> None:
    assert given_classes("voc") is VOC


@pytest.mark.heavy
def test_two_processes_write_what_one_does(flags: list[object], tmp_path: Path) -> None:
    assert run(command(label.main), *flags) == 0
    whole = written(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    words = [sys.executable, *launch, "-m", "utils.tools.label", *map(str, flags)]
    subprocess.run(words, cwd=ROOT, check=True, capture_output=True)
    assert written(tmp_path / "out") == whole
