"""The Python API within programs that have set modes and defaults of PyTorch otherwise."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from helpers import ROOT

from clip.resize import by_products
from datasets.toy.scene import random_classes, render
from model.dense import gaussian_prior
from utils.inference import Labeller, Segmenter
from utils.inference.protocol import Outputs
from utils.inference.refinement import Refinement

QUICK = {"device": "cpu", "precision": "fp32", "resize_long": 64}
Make = Callable[[], Callable[[], np.ndarray]]


@pytest.fixture
def _float64() -> Iterator[None]:
    """Restore the default afterwards; a test sets it."""
    before = torch.get_default_dtype()
    yield
    torch.set_default_dtype(before)


def image() -> np.ndarray:
    """A toy picture."""
    rng = np.random.default_rng(3)
    return render(rng, 80, 96, random_classes(rng)).image


def segmenter(sliding: bool) -> Callable[[], np.ndarray]:
    """A segmenter with the CRF, asked about a picture."""
    options = Outputs(use_crf=True, sliding=sliding)
    made = Segmenter.from_checkpoint(ROOT / "model" / "toy_voc.pt", options, **QUICK)
    return lambda: made(image())


def labeller(kind: str = "none", cam: str = "both") -> Callable[[], np.ndarray]:
    """A labeller with a refinement, asked about two classes of a picture."""
    settings = {**QUICK, "par_iterations": 3, "cam": cam}
    made = Labeller.from_clip("voc", "toy", Refinement(kind, 0.0), **settings)
    return lambda: made(image(), ["cat", "bus"])


CASES: list[Make] = [
    lambda: segmenter(sliding=False),
    lambda: segmenter(sliding=True),
    lambda: labeller("none"),
    lambda: labeller("both"),
]


@pytest.mark.usefixtures("_float64")
@pytest.mark.parametrize("make", CASES)
def test_labels_do_not_depend_on_the_default_precision(make: Make) -> None:
    ask = make()
    expected = ask()
    torch.set_default_dtype(torch.float64)
    assert np.array_equal(ask(), expected)
    assert np.array_equal(make()(), expected)


@pytest.mark.usefixtures("_float64")
def test_tables_are_float32_whatever_the_default_precision() -> None:
    maps = torch.randn(1, 2, 3, 4)
    expected = by_products(maps, (6, 5)), gaussian_prior((3, 4), 2.0)
    torch.set_default_dtype(torch.float64)
    for found, wanted in zip((by_products(maps, (6, 5)), gaussian_prior((3, 4), 2.0)), expected):
        assert found.dtype == torch.float32 and torch.equal(found, wanted)


@pytest.mark.parametrize("cam", ["gradcam", "both"])
def test_labels_in_inference_mode_are_those_outside_it(cam: str) -> None:
    ask = labeller(cam=cam)
    expected = ask()
    with torch.inference_mode():
        assert np.array_equal(ask(), expected)
        made_within = labeller(cam=cam)
    assert np.array_equal(made_within(), expected)


@pytest.mark.parametrize("make", CASES[1:3])
def test_random_numbers_go_on_as_if_nothing_had_been_loaded(make: Make) -> None:
    before = torch.get_rng_state()
    make()
    assert torch.equal(torch.get_rng_state(), before)
