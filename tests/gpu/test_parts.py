"""The parts with a way of their own on a GPU, against the CPU's: boxes, refinement, dense CRF, and
a whole prediction.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ROOT
from torch import Tensor

from clip.resize import MANY, resize
from datasets.lists import Item
from datasets.toy.scene import random_classes, render
from model.boxes import box_mask, boxes_by_products, boxes_by_spreading
from model.par import refine
from utils.inference.crf import PLAUSIBLE, dense_crf
from utils.inference.protocol import Outputs
from utils.inference.segmenter import Segmenter
from utils.metrics import CRF, MULTI, SINGLE

CHECKPOINT = ROOT / "model" / "toy_voc.pt"


def scene(number: int, height: int = 96, width: int = 128) -> Tensor:
    """A drawn picture, (H, W, 3) uint8."""
    rng = np.random.default_rng(number)
    return torch.from_numpy(render(rng, height, width, random_classes(rng)).image)


def agreement(one: Tensor, other: Tensor) -> float:
    """Share of equal labels."""
    return (one.cpu() == other.cpu()).double().mean().item()


@pytest.mark.parametrize("find", [boxes_by_spreading, boxes_by_products])
def test_both_ways_find_the_boxes_of_the_cpu(
    device: torch.device, find: Callable[[Tensor], Tensor]
) -> None:
    strong = torch.rand(12, 10, 14) > 0.6
    expected = boxes_by_spreading(strong)
    found = find(strong.to(device))
    assert found.device.type == device.type
    assert torch.equal(found.cpu()[:, strong], expected[:, strong])  # others hold no box


@pytest.mark.parametrize("clip_edges", [False, True])
def test_boxes_are_those_of_the_cpu(device: torch.device, clip_edges: bool) -> None:
    maps = torch.rand(12, 20, 28) ** 3
    found = box_mask(maps.to(device), 0.4, clip_edges)
    assert torch.equal(found.cpu(), box_mask(maps, 0.4, clip_edges))


def test_refinement_is_that_of_the_cpu(device: torch.device) -> None:
    images = torch.randn(3, 3, 40, 56)
    masks = [torch.rand(channels, 40, 56) for channels in (4, 1, 3)]
    refined = refine(images.to(device), [mask.to(device) for mask in masks], 10)
    for found, expected in zip(refined, refine(images, masks, 10)):
        assert found.device.type == device.type
        torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("channels", [MANY - 1, MANY])
def test_maps_are_resized_as_on_the_cpu(device: torch.device, mode: str, channels: int) -> None:
    maps = torch.randn(2, channels, 14, 9)
    found = resize(maps.to(device), (20, 24), mode)
    assert found.device.type == device.type
    torch.testing.assert_close(found.cpu(), resize(maps, (20, 24), mode))


@pytest.mark.parametrize("plausible", [0.0, PLAUSIBLE])
def test_the_dense_crf_is_that_of_the_cpu(device: torch.device, plausible: float) -> None:
    image = scene(3)
    coarse = torch.randn(1, 6, 8, 10)
    scores = torch.nn.functional.interpolate(coarse, image.shape[:2], mode="bilinear")[0]
    probs = (3 * scores).softmax(0)
    expected = dense_crf(image, probs, plausible=plausible)
    found = dense_crf(image.to(device), probs.to(device), plausible=plausible)
    assert found.device.type == device.type
    assert len(expected.argmax(0).unique()) > 1
    assert agreement(found.argmax(0), expected.argmax(0)) > 0.999
    assert (found.cpu() - expected).abs().mean() < 1e-4


@pytest.mark.parametrize(("precision", "least"), [("fp32", 0.999), ("bf16", 0.99)])
def test_a_prediction_is_that_of_the_cpu(
    device: torch.device, precision: str, least: float
) -> None:
    picture = scene(5, 150, 200).numpy()
    labels = []
    for where, how in (("cpu", "fp32"), (str(device), precision)):
        segmenter = Segmenter.from_checkpoint(
            CHECKPOINT, Outputs(use_crf=True), device=where, precision=how, resize_long=192
        )
        labels.append(torch.from_numpy(segmenter(picture)))
    assert len(labels[0].unique()) > 1
    assert agreement(*labels) > least


def test_a_prediction_set_off_is_the_same_whoever_waits_for_it(device: torch.device) -> None:
    segmenter = Segmenter.from_checkpoint(CHECKPOINT, device=str(device), resize_long=128)
    item = Item("drawn", Path(), None)
    pictures = [scene(number).permute(2, 0, 1) for number in range(4)]
    expected = [segmenter.predict(picture[None])[0].labels for picture in pictures]

    waits = [segmenter.set_off(item, picture, None) for picture in pictures]
    with ThreadPoolExecutor(len(pictures)) as threads:
        results = list(threads.map(lambda wait: wait(), waits))
    for result, labels in zip(results, expected, strict=True):
        found = result.labels
        assert list(found) == [*labels] == [SINGLE, MULTI, CRF]
        for title, each in found.items():
            assert agreement(torch.from_numpy(each), labels[title]) > 0.999
