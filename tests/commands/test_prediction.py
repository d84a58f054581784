"""Prediction of a list: it goes on where it stopped, names what it cannot read, and says how large
each class is.
"""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT, VAL, run
from PIL import Image

import test_msc_flip_voc
from datasets.predictions import FILE, read_journal
from utils.inference import predict as testing
from utils.inference import segmenter
from utils.inference.predict import GUESSED
from utils.inference.summary import report_skipped
from utils.tools.label import report_unseen, report_without_class

CHECKPOINT = ROOT / "model" / "toy_voc.pt"


@pytest.fixture
def flags(trained: Path, tmp_path: Path) -> list[object]:
    """Test the trained run quickly, results in `tmp_path / "out"`."""
    checkpoint = trained / "checkpoints" / "final.pt"
    return [
        "--model_path",
        checkpoint,
        "--work_dir",
        tmp_path / "out",
        "--no_crf",
        "--device",
        "cpu",
    ]


@pytest.fixture
def photos(tmp_path: Path) -> list[object]:
    """Predict three pictures with the shipped checkpoint, small and without CRF."""
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for number, name in enumerate(("a.png", "b.png", "deep/c d.jpg")):
        Image.new("RGB", (40 + number, 30), (60 * number, 200, 40)).save(tmp_path / "in" / name)
    where = ["--images", tmp_path / "in", "--work_dir", tmp_path / "out", "--device", "cpu"]
    return ["--model_path", CHECKPOINT, *where, "--no_crf", "--resize_long", 64]


def counted(patch: pytest.MonkeyPatch, stop_at: int | None = None) -> list[int]:
    """A list that grows by every image predicted from now on; Ctrl-C comes before image
    `stop_at`.
    """
    seen, real = [], segmenter.predict_batch

    def predict(*args: object) -> list[segmenter.Prediction]:
        if len(seen) == stop_at:
            raise KeyboardInterrupt
        seen.append(1)
        return real(*args)

    patch.setattr(segmenter, "predict_batch", predict)
    return seen


def results(folder: Path) -> dict[str, object]:
    return json.loads((folder / "results.json").read_text())


def test_an_interrupted_test_goes_on_to_the_same_table(
    flags: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(test_msc_flip_voc.main, *flags) == 0
    whole = results(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    with pytest.MonkeyPatch.context() as patch:
        counted(patch, stop_at=2)
        assert run(test_msc_flip_voc.main, *flags) == 130
    assert "the same command goes on with the images that are left" in capsys.readouterr().err
    assert not (tmp_path / "out" / "results.json").exists()
    with (tmp_path / "out" / FILE).open("a") as file:
        file.write('{"name": "torn')
    with pytest.MonkeyPatch.context() as patch:
        seen = counted(patch)
        assert run(test_msc_flip_voc.main, *flags) == 0
    assert (
        len(seen) == VAL - 2
        and f"2 of {VAL} images are finished already" in capsys.readouterr().out
    )
    assert results(tmp_path / "out") == whole


def test_scores_of_some_images_are_not_called_those_of_all(
    flags: list[object], toy_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = shutil.copytree(toy_voc, tmp_path / "data")
    for mask in data.glob("SegmentationClass*/*val_000000.png"):
        mask.unlink()
    assert run(test_msc_flip_voc.main, *flags, "--data_root", data) == 0
    split = f"val, those of {VAL} with masks"
    assert f"single scale ({split}, {VAL - 1})" in capsys.readouterr().out
    assert {result["split"] for result in results(tmp_path / "out").values()} == {split}


def test_pictures_of_ones_own_leave_the_test_of_the_training_alone(
    trained: Path, photos: list[object], tmp_path: Path
) -> None:
    copy = shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("tensorboard"))
    flags = ["--model_path", copy / "checkpoints" / "final.pt", "--no_crf", "--device", "cpu"]
    assert run(test_msc_flip_voc.main, *flags) == 0
    files = ("images.jsonl", "report.html", "prediction")
    before = {name: (copy / name).stat().st_mtime_ns for name in files}
    assert run(test_msc_flip_voc.main, *flags, "--images", tmp_path / "in") == 0
    assert {name: (copy / name).stat().st_mtime_ns for name in files} == before
    assert {"prediction", "overlay", "areas.json", "report.html"} <= {
        path.name for path in (copy / "pictures").iterdir()
    }


def edited(file: Path, was: str, now: str) -> None:
    """Edit the first place of a journal that matches."""
    text, places = re.subn(was, now, file.read_text(), count=1)
    assert places == 1
    file.write_text(text)


@pytest.mark.parametrize(
    ("change", "again"),
    [
        (lambda out, data: None, 0),
        (lambda out, data: next((out / "prediction").iterdir()).unlink(), 1),
        (
            lambda out, data: os.utime(next((data / "SegmentationClass").glob("*val*")), (1, 1)),
            1,
        ),
        (lambda out, data: (out / FILE).unlink(), VAL),
        (lambda out, data: ["--scales", 1], VAL),
        (lambda out, data: edited(out / FILE, r"\[\[0,\d+", "[[0,21"), 1),
        (lambda out, data: edited(out / FILE, r'"pixels":{"\d+', '"pixels":{"21'), 1),
    ],
    ids=[
        *("nothing", "a lost PNG", "a new mask", "a lost journal", "another setting"),
        *("a label outside the classes", "pixels of a label outside the classes"),
    ],
)
def test_only_what_changed_is_predicted_again(
    change: object, again: int, flags: list[object], toy_voc: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(toy_voc, tmp_path / "data")
    flags = [*flags, "--data_root", data]
    assert run(test_msc_flip_voc.main, *flags) == 0
    more = change(tmp_path / "out", data) or []
    with pytest.MonkeyPatch.context() as patch:
        seen = counted(patch)
        assert run(test_msc_flip_voc.main, *flags, *more) == 0
    assert len(seen) == again and len([*read_journal(tmp_path / "out")[1]]) == VAL


def test_journals_of_all_processes_are_read(flags: list[object], tmp_path: Path) -> None:
    assert run(test_msc_flip_voc.main, *flags) == 0
    whole, file = results(tmp_path / "out"), tmp_path / "out" / FILE
    header, *lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join([header, *lines[:1]]))
    file.with_name("images-1.jsonl").write_text("".join(lines[1:]))
    with pytest.MonkeyPatch.context() as patch:
        seen = counted(patch)
        assert run(test_msc_flip_voc.main, *flags) == 0
    assert (
        not seen
        and results(tmp_path / "out") == whole
        and not file.with_name("images-1.jsonl").exists()
    )


def test_a_bad_image_stops_or_is_skipped_and_named(
    photos: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in" / "b.png").write_text("no picture")
    assert run(test_msc_flip_voc.main, *photos) == 2
    assert "b.png cannot be read (its content is no picture);" in capsys.readouterr().err
    assert [entry["name"] for entry in read_journal(tmp_path / "out")[1]] == ["a"]
    assert run(test_msc_flip_voc.main, *photos, "--on_bad_image", "skip") == 0
    said = capsys.readouterr().out
    assert (
        "1 of 3 images were skipped" in said
        and "b.png cannot be read" in said.split("were skipped")[1]
    )
    images = json.loads((tmp_path / "out" / "areas.json").read_text())["images"]
    assert set(images) == {"a", "b", "deep/c d"} and "error" in images["b"]


def test_skipped_and_left_out_pictures_are_named_in_one_pass(
    capsys: pytest.CaptureFixture[str],
) -> None:
    entries = [{"name": "a"}, {"name": "b", "error": "b is torn"}]
    entries += [{"name": name, "error": "", GUESSED: 0.5} for name in "cd"]
    report_skipped(iter(entries))
    assert capsys.readouterr().out == (
        "1 of 4 images were skipped, which no result counts:\n  b is torn\n"
    )
    report_without_class(iter(entries))
    assert "2 of 4 pictures are left out" in (said := capsys.readouterr().out)
    assert "the first is c;" in said
    report_skipped(iter(entries[:1]))
    report_without_class(iter(entries[:2]))
    assert capsys.readouterr().out == ""


def test_a_tag_that_no_pixel_got_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    entries = [
        {"name": "a", "tags": ["cat"], "pixels": {"0": 3, "1": 5}},
        {"name": "b", "tags": ["cat", "dog"], "pixels": {"0": 3, "2": 5}},
        {"name": "c", "tags": ["dog"], "pixels": {"0": 3, "255": 5}},
        {"name": "d", "error": "d is torn", "pixels": {}},
        {"name": "e", "tags": [], "pixels": {"0": 8}},
    ]
    report_unseen(iter(entries), ("background", "cat", "dog"))
    said = capsys.readouterr().out
    assert said.startswith("2 of 5 pictures have a tag that no pixel got, the first is b (cat);")
    report_unseen(iter(entries[:1]), ("background", "cat", "dog"))
    assert capsys.readouterr().out == ""


def test_a_picture_that_is_predicted_anew_and_fails_leaves_nothing_of_before(
    photos: list[object], tmp_path: Path
) -> None:
    kinds = ("prediction", "prediction_cmap", "overlay", "logits")
    assert run(test_msc_flip_voc.main, *photos, "--save_logits") == 0
    assert all(list((tmp_path / "out" / kind).glob("b.*")) for kind in kinds)
    (tmp_path / "in" / "b.png").write_text("no picture")
    assert run(test_msc_flip_voc.main, *photos, "--on_bad_image", "skip") == 0
    assert not [file for kind in kinds for file in (tmp_path / "out" / kind).glob("b.*")]
    assert len(list((tmp_path / "out" / "prediction").rglob("*.png"))) == 2
    assert not list((tmp_path / "out" / "logits").rglob("*.npy"))  # none are asked for now


def test_areas_are_those_of_the_labels(photos: list[object], tmp_path: Path) -> None:
    assert run(test_msc_flip_voc.main, *photos, "--sliding") == 0
    content = json.loads((tmp_path / "out" / "areas.json").read_text())
    page = (tmp_path / "out" / "report.html").read_text()
    found = {name for image in content["images"].values() for name in image["classes"]}
    assert found and all(f"</span>{name} " in page for name in found)
    assert content["tags"] == "none" and "windows of 64 px" in content["protocol"]
    for name, image in content["images"].items():
        labels = np.array(Image.open(tmp_path / "out" / "prediction" / f"{name}.png"))
        assert (
            list(labels.shape) == image["size"]
            and (tmp_path / "out" / "overlay" / f"{name}.jpg").is_file()
        )
        assert sum(area["pixels"] for area in image["classes"].values()) == labels.size
        assert image["classes"].get("background", {"pixels": 0})["pixels"] == int(
            (labels == 0).sum()
        )
        assert sum(area["share"] for area in image["classes"].values()) == pytest.approx(
            1, abs=1e-4
        )


def test_tags_restrict_the_images_they_name(
    photos: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    classes = list(segmenter.Segmenter.from_checkpoint(CHECKPOINT, device="cpu").spec.classes)
    path = tmp_path / "tags.json"
    content = {
        "format": 1,
        "dataset": "voc",
        "classes": classes,
        "source": "me",
        "tags": {"a": ["cat"], "x": ["dog"]},
    }
    path.write_text(json.dumps(content))
    assert run(test_msc_flip_voc.main, *photos, "--tags", path) == 0
    assert "1 of them restricted to their tags" in capsys.readouterr().out
    images = json.loads((tmp_path / "out" / "areas.json").read_text())["images"]
    assert images["a"]["tags"] == ["cat"] and set(images["a"]["classes"]) <= {"background", "cat"}
    assert "tags" not in images["b"]
    path.write_text(json.dumps({**content, "tags": {"x": ["dog"]}}))
    for words, said in (
        (photos, "names none of the 3 images"),
        (photos[:2], "restricts predictions of --images alone"),
    ):
        assert run(test_msc_flip_voc.main, *words, "--tags", path, "--data_root", tmp_path) == 2
        assert said in capsys.readouterr().err or words is not photos


def test_flags_that_cannot_go_together_leave_what_was_predicted_as_it_is(
    photos: list[object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(test_msc_flip_voc.main, *photos) == 0
    journal = tmp_path / "out" / "images.jsonl"
    before = journal.read_bytes()
    capsys.readouterr()
    (tmp_path / "page.pt").write_text("<html></html>")

    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    with_crf = [word for word in photos if word != "--no_crf"]
    for words, said in (
        ([*with_crf, "--crf_backend", "pydensecrf"], "--crf_backend pydensecrf is not installed"),
        ([*photos, "--eval_set", "val"], "--eval_set val and --images are two things to predict"),
        ([*photos, "--clip_path", tmp_path / "page.pt"], "page.pt cannot be read (it is a web"),
    ):
        assert run(test_msc_flip_voc.main, *words) == 2
        assert said in capsys.readouterr().err
    assert journal.read_bytes() == before


def test_patterns_are_expanded(photos: list[object], tmp_path: Path) -> None:
    photos[3] = tmp_path / "in" / "**" / "*.jpg"
    assert run(test_msc_flip_voc.main, *photos) == 0
    assert [path.name for path in (tmp_path / "out" / "prediction").iterdir()] == ["c d.png"]


def test_a_folder_that_cannot_be_written_is_named(
    photos: list[object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(*_: object) -> list[str]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(testing, "write_labels", full)
    assert run(test_msc_flip_voc.main, *photos) == 1
    assert "No space left on device; free space or name another folder" in capsys.readouterr().err


def test_the_effective_settings_are_printed(
    photos: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(test_msc_flip_voc.main, *photos, "--print_config") == 0
    printed = capsys.readouterr().out
    assert "resize_long: 64\n" in printed and "branches: fusion\n" in printed
