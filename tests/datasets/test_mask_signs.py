"""Masks that would make a score meaningless are named before it is made."""

from pathlib import Path

import numpy as np
import pytest
from helpers import run
from PIL import Image

from datasets.lists import Item
from datasets.mask_signs import refuse_suspicious
from datasets.prepare import __main__ as prepare
from datasets.specs import palette
from utils.common.console import begin_notices
from utils.common.entry import command
from utils.common.errors import UserError
from utils.tools import score

SIZE = (12, 8)


def pair(
    folder: Path,
    number: int,
    labels: object,
    orientation: int = 1,
    colours: list[int] | None = None,
) -> Item:
    """A picture of SIZE as stored and its mask, either an array or values that are drawn."""
    image, mask = folder / f"{number}.jpg", folder / f"{number}.png"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", SIZE).save(image, exif=exif)
    values = labels
    if not isinstance(labels, np.ndarray):
        values = np.resize(np.array(labels, np.uint8), SIZE[0] * SIZE[1]).reshape(SIZE[::-1])
    drawn = Image.fromarray(values)
    if colours:
        drawn.putpalette(colours)
    drawn.save(mask)
    return Item(str(number), image, mask)


@pytest.mark.parametrize("labels", [[[0, 255]], [[0, 255], [0]], [[255]], [[0], [255]]])
def test_0_and_255_alone_are_refused(labels: list[list[int]], tmp_path: Path) -> None:
    items = [pair(tmp_path, number, values) for number, values in enumerate(labels)]
    with pytest.raises(UserError, match="hold 0 and 255 alone") as caught:
        refuse_suspicious(items, 20)
    assert "write the number of the class" in str(caught.value) and "0.png" in str(caught.value)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_masks_of_the_pixels_as_stored_are_refused(orientation: int, tmp_path: Path) -> None:
    items = [pair(tmp_path, 0, [0, 1]), pair(tmp_path, 1, [0, 1], orientation)]
    with pytest.raises(UserError, match=r"1 masks, first .*1.png, have the size .* as stored"):
        refuse_suspicious(items, 20)
    turned = np.rot90(np.resize(np.array([0, 1], np.uint8), SIZE[::-1])).copy()
    refuse_suspicious([pair(tmp_path, 0, turned, orientation)], 20)


def test_labels_of_no_class_are_refused_as_no_score_would_count_them(tmp_path: Path) -> None:
    items = [pair(tmp_path, number, [0, number, 255]) for number in range(6)]
    refuse_suspicious(items, 5)
    with pytest.raises(
        UserError, match=r"2 masks, first .*4.png, .* outside 0\.\.3 .* as 4, whose"
    ):
        refuse_suspicious(items, 3)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("RGB", "has mode RGB, not labels; save its labels as 8-bit grey"),
        ("RGBA", "has mode RGBA, not labels; save its labels as 8-bit grey"),
        ("I;16", "has mode I;16, not labels; save it as palette"),
        ("JPEG", "is a JPEG whatever its name"),
        ("size", "is 6 x 4 but its image .*1.jpg is 12 x 8; make the mask again"),
        ("damaged", "cannot be read"),
    ],
)
def test_masks_that_cannot_be_used_are_refused_before_any_work(
    kind: str, said: str, tmp_path: Path
) -> None:
    items = [pair(tmp_path, 0, [0, 1]), pair(tmp_path, 1, [0, 1])]
    file = items[1].mask
    with Image.open(file) as opened:
        labels = opened.copy()
    if kind == "size":
        labels.resize((6, 4), Image.Resampling.NEAREST).save(file)
    elif kind == "damaged":
        file.write_bytes(file.read_bytes()[:40])
    elif kind == "JPEG":
        labels.save(file, "JPEG")
    else:
        labels.convert(kind).save(file)

    with pytest.raises(UserError, match=rf"1 of 2 masks .* the first: mask .*1.png {said}"):
        refuse_suspicious(items, 20)
    refuse_suspicious(items, 20, faults=False)


PERMUTED = palette()[[0, 15, 1, 2]].ravel().tolist()


@pytest.mark.parametrize(
    ("labels", "orientation", "colours", "said"),
    [
        ([0, 1], 3, None, "are turned by EXIF; make sure"),
        ([0, 1], 2, None, "are turned by EXIF; make sure"),
        ([0, 1], 4, None, "are turned by EXIF; make sure"),
        ([0], 1, None, "are background alone"),
        ([3], 1, None, "is one label all over"),
        ([1, 255], 1, None, "is one label all over"),
        ([1, 2, 255], 1, None, "has background (0), and some have 255"),
        ([0, 1, 2], 1, PERMUTED, "in the colours of other labels"),
    ],
)
def test_what_is_odd_is_said_and_scored(
    labels: list[int],
    orientation: int,
    colours: list[int] | None,
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    begin_notices()
    refuse_suspicious([pair(tmp_path, 0, labels, orientation, colours)], 20)
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("labels", "colours"),
    [
        ([0, 1], None),
        ([0, 1, 255], None),
        ([0, 20, 255], palette().ravel().tolist()),
        ([0, 1], [0, 0, 0, 255, 255, 255]),
        ([0, 1, 2], [0, 0, 0, 255, 0, 0, 0, 255, 0]),
    ],
)
def test_sound_masks_are_left_alone(
    labels: list[int],
    colours: list[int] | None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    begin_notices()
    refuse_suspicious([pair(tmp_path, 0, labels, colours=colours)], 20)
    assert capsys.readouterr().err == ""


def test_every_command_that_scores_names_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("photos/cat", "masks/cat"):
        (tmp_path / folder).mkdir(parents=True)
    for number in range(4):
        item = pair(tmp_path, number, [0, 255])
        item.image.rename(tmp_path / "photos" / "cat" / item.image.name)
        item.mask.rename(tmp_path / "masks" / "cat" / item.mask.name)
    (tmp_path / "classes.yaml").write_text("classes: [cat]\n")
    flags = ["--images", tmp_path / "photos", "--classes", tmp_path / "classes.yaml"]
    flags += ["--masks", tmp_path / "masks", "--out", tmp_path / "out"]
    assert run(command(prepare.main), "custom", *flags) == 2
    assert "hold 0 and 255 alone" in capsys.readouterr().err
    folders = ["--predictions", tmp_path / "masks", "--masks", tmp_path / "masks"]
    assert run(command(score.main), *folders, "--classes", tmp_path / "classes.yaml") == 2
    assert "hold 0 and 255 alone" in capsys.readouterr().err
