"""Lists of images without an object for each: they hold what they were given, in little memory."""

import pickle
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from datasets.data import Split
from datasets.lists import Item, Items, TagTable, Texts, spread

ODD = ["a", "", "Küche/深い", "\udce4 as a file system has it", "a"]
MASKED = Item("b", Path("b.jpg"), Path("m/b.png"))
PLAIN = Item("c", Path("sub/c.jpg"), None)


def test_a_sample_is_spread_over_the_whole_list() -> None:
    assert spread(range(2003), 200)[::199] == (0, 1992) and len(spread(range(2003), 200)) == 200
    assert spread([], 3) == () and spread("ab", 3) == spread("ab", 0) == ("a", "b")


def test_texts_come_back_as_they_were() -> None:
    texts = Texts(ODD)
    assert list(texts) == ODD == [texts[place] for place in range(len(texts))]
    assert texts[-1] == "a" and list(texts[1:4:2]) == ODD[1:4:2]
    assert texts.filled.tolist() == [True, False, True, True, True]
    assert list(pickle.loads(pickle.dumps(texts))) == ODD
    with pytest.raises(IndexError):
        texts[len(ODD)]


def test_images_come_back_with_and_without_masks() -> None:
    images = Items.of([MASKED, PLAIN])
    assert list(images) == [MASKED, PLAIN] and images.masked.tolist() == [True, False]
    assert list(images[::-1]) == list(images.at(np.array([1, 0]))) == [PLAIN, MASKED]
    assert list(images.without_masks()) == [Item("b", Path("b.jpg"), None), PLAIN]
    assert Items.of(images) is images


@pytest.mark.parametrize("classes", [1, 8, 20, 81])
def test_tags_come_back(classes: int) -> None:
    matrix = np.random.default_rng(0).random((7, classes)) < 0.2
    tags = TagTable.of(matrix)
    assert (tags.matrix() == matrix).all() and tags.total() == matrix.sum() and len(tags) == 7
    assert all((tags[place] == row).all() for place, row in enumerate(matrix))
    assert (tags.at([3, 1]).matrix() == matrix[[3, 1]]).all()
    assert (tags.tagged == matrix.any(1)).all()


def test_an_image_takes_its_characters_its_tags_and_24_bytes() -> None:
    def files() -> Iterator[tuple[str, str, str]]:
        return ((f"{k:020d}", f"/data/images/{k:020d}.jpg", "") for k in range(20_000))

    tracemalloc.start()
    split = Split(Items(files()), np.ones((20_000, 80), bool))
    held = tracemalloc.get_traced_memory()[0] / len(split)
    tracemalloc.stop()
    assert held < 20 + 37 + 80 / 8 + 24 + 20  # buffers that grow are somewhat larger than full


def test_a_split_of_which_all_are_tagged_is_not_copied() -> None:
    split = Split([MASKED, PLAIN], np.array([[True], [True]]))
    assert split.tagged() is split
