"""Pictures: titled rows, legends, and panels of images of any size."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.lists import Item
from datasets.specs import IGNORE, palette
from model.method import BEGINNING
from utils.common.errors import UserError
from utils.drawing import MARGIN, label_name, legend, titled_row
from utils.inference.seeds import ImageSeeds
from utils.metrics import MULTI
from utils.training import panels

NAMES = ("background", "cat", "a very long name of a class", "dog")


def colours_in(picture) -> set[tuple[int, ...]]:
    return {tuple(colour) for colour in np.asarray(picture).reshape(-1, 3).tolist()}


def test_a_legend_shows_the_classes_that_occur() -> None:
    colours = colours_in(legend([np.array([[0, 1]]), np.array([[3, IGNORE]])], NAMES, 400))
    for label in (1, 3, IGNORE):
        assert tuple(palette()[label].tolist()) in colours
    assert tuple(palette()[2].tolist()) not in colours


@pytest.mark.parametrize("width", [60, 200, 500])
def test_a_legend_is_as_wide_as_asked_and_grows_downwards(width: int) -> None:
    picture = legend([np.arange(4)], NAMES, width)
    assert picture.width == width
    assert picture.height >= legend([np.arange(4)], NAMES, 2 * width).height


def test_without_classes_a_legend_is_empty() -> None:
    assert colours_in(legend([np.zeros((2, 2), int)], NAMES, 50)) == {(255, 255, 255)}


def test_a_label_that_no_class_has_is_drawn_under_its_number() -> None:
    assert label_name(7, NAMES) == "label 7"
    assert tuple(palette()[7].tolist()) in colours_in(legend([np.full((2, 2), 7)], NAMES, 200))


def test_panels_refuse_a_mask_of_another_size_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (6, 4)).save(tmp_path / "a.png")
    Image.new("L", (4, 6)).save(tmp_path / "mask.png")
    predicted = SimpleNamespace(labels={MULTI: torch.zeros(4, 6)})
    monkeypatch.setattr(panels, "predict", lambda *_: predicted)
    item = Item("a", tmp_path / "a.png", tmp_path / "mask.png")
    with pytest.raises(UserError, match="mask.png is 4 x 6 but its image"):
        panels._panel(None, item, torch.zeros(3), NAMES, None, 0)


@pytest.mark.parametrize("size", [(1, 1), (5, 90), (90, 5)])
def test_a_row_holds_each_panel_whole(size: tuple[int, int]) -> None:
    shades = [np.full((*size, 3), shade, np.uint8) for shade in (10, 20, 30)]
    row = np.asarray(titled_row([("a long title", shade) for shade in shades]))
    for shade in shades:
        assert (row == shade[0, 0]).all(2).sum() >= size[0] * size[1]
    assert row.shape[0] >= size[0] + 2 * MARGIN


@pytest.mark.parametrize("tagged", [(), (1,), (0, 2)])
def test_a_panel_shows_the_highest_score_of_the_tagged_classes(
    tagged: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    tags, image = torch.zeros(3), np.zeros((4, 6, 3), np.uint8)
    tags[list(tagged)] = 1
    scores = torch.rand(len(tagged), 4, 6)
    seeds = ImageSeeds(tags.nonzero()[:, 0], {"clip": scores}, {}, *[torch.full((4, 6), 2)] * 2)
    monkeypatch.setattr(panels, "image_seeds", lambda *_: seeds)
    monkeypatch.setattr(panels, "heat", lambda _, values: values)
    truth = np.ones((4, 6), np.uint8)
    row, pseudo = panels.method_row(None, image, tags, {"truth": truth}, None, BEGINNING)
    assert [title for title, _ in row] == ["image", "CLIP seed", "pseudo label", "truth"]
    expected = scores.amax(0).numpy() if tagged else np.zeros((4, 6))
    assert np.array_equal(row[1][1], expected) and (pseudo == 2).all()
