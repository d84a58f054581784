"""Parts of resized maps, overlapping windows and label maps strip by strip, against the whole."""

import itertools

import pytest
import torch
from torch import Tensor

from clip.resize import resize
from utils.inference import windows
from utils.inference.multi_scale import SMALLEST
from utils.inference.windows import (
    crf_labels,
    crf_labels_by_windows,
    label_map,
    resize_part,
    sliding,
)


def patch_means(images: Tensor) -> Tensor:
    """A segmenter that sees nothing beyond a patch: its mean colours as three logits."""
    return torch.nn.functional.avg_pool2d(images, 16)


@pytest.mark.parametrize(
    ("length", "side", "overlap", "step"),
    [
        (1, 512, 128, 1),
        (512, 512, 128, 16),
        (528, 512, 128, 16),
        (6000, 256, 64, 16),
        (1537, 768, 192, 1),
    ],
)
def test_windows_cover_everything_and_overlap_enough(
    length: int, side: int, overlap: int, step: int
) -> None:
    spans = windows.windows(length, side, overlap, step)
    assert spans[0].start == 0 and spans[-1].stop == length
    assert all(
        span.stop - span.start == min(side, length) and span.start % step == 0 for span in spans
    )
    assert all(here.stop - after.start >= overlap for here, after in itertools.pairwise(spans))


@pytest.mark.parametrize("size", [(50, 70), (9, 200), (13, 17), (1, 1)])
def test_a_part_is_cut_from_the_resized_whole(size: tuple[int, int]) -> None:
    maps = torch.randn(2, 3, 13, 17)
    rows, columns = slice(size[0] // 3, size[0]), slice(size[1] // 4, size[1] // 2 + 1)
    whole = resize(maps, size)
    torch.testing.assert_close(resize_part(maps, size, rows, columns), whole[..., rows, columns])
    torch.testing.assert_close(resize_part(maps, size, rows), whole[..., rows, :])
    picture = torch.randint(256, (1, 3, 40, 30), dtype=torch.uint8)
    expected = resize(picture.float(), size)[..., rows, columns]
    torch.testing.assert_close(
        resize_part(picture, size, rows, columns), expected, rtol=1e-5, atol=1e-3
    )


def test_strips_make_the_same_labels_as_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, allowed = torch.randn(1, 5, 7, 6), torch.tensor([True, False, True, True, False])
    whole = label_map(logits, (61, 45))
    assert torch.equal(whole, resize(logits, (61, 45))[0].argmax(0).to(torch.uint8))
    monkeypatch.setattr(windows, "STRIP", 1)  # a row at a time
    assert torch.equal(label_map(logits, (61, 45)), whole)
    assert set(label_map(logits, (61, 45), allowed).unique().tolist()) == {0, 2, 3}


@pytest.mark.parametrize("size", [(160, 224), (1, 300), (20, 20), (333, 40)])
def test_windows_of_a_local_segmenter_are_the_whole(size: tuple[int, int]) -> None:
    image = torch.randint(256, (1, 3, *size), dtype=torch.uint8)
    scales = (1.0, 0.5)
    single, multi = sliding(patch_means, image, Tensor.float, 64, scales)
    grids = [[max(SMALLEST, round(side * scale / 16) * 16) for side in size] for scale in scales]
    whole = [patch_means(resize(image.float(), grid)) for grid in grids]
    close = {"rtol": 1e-4, "atol": 1e-2}  # of values 0..255
    torch.testing.assert_close(single, whole[0], **close)
    torch.testing.assert_close(
        multi, (whole[0] + resize(whole[1], whole[0].shape[-2:])) / 2, **close
    )


def test_windows_that_disagree_leave_no_seam() -> None:
    calls = []

    def stubborn(images: Tensor) -> Tensor:  # each window one value, 0 and 1 by turns
        calls.append(len(calls) % 2)
        return torch.full(
            (len(images), 1, *(side // 16 for side in images.shape[-2:])), float(calls[-1])
        )

    single, _ = sliding(
        stubborn, torch.zeros(1, 3, 256, 1024, dtype=torch.uint8), Tensor.float, 256, (1.0,)
    )
    assert len(calls) > 3 and {0.0, 1.0} <= {round(value, 2) for value in single.flatten().tolist()}
    assert single[..., 1:].sub(single[..., :-1]).abs().max() < 0.6  # cut hard, the step would be 1


def test_mirror_images_are_turned_back() -> None:
    def left(images: Tensor) -> Tensor:  # a logit that only knows its column
        columns = torch.arange(images.shape[3] // 16.0)
        return columns.expand(len(images), 1, images.shape[2] // 16, -1)

    _, multi = sliding(left, torch.zeros(1, 3, 64, 64, dtype=torch.uint8), Tensor.float, 64, (1.0,))
    torch.testing.assert_close(multi, torch.full((1, 1, 4, 4), 1.5))


def test_the_crf_by_windows_is_that_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    image = resize(torch.rand(1, 3, 5, 7) * 255, (100, 150))[0].to(torch.uint8)
    logits = 2 * torch.randn(1, 4, 7, 10)
    whole = crf_labels(image, logits, None, "torch", 150)
    assert torch.equal(crf_labels_by_windows(image, logits, None, "torch"), whole)
    monkeypatch.setattr(windows, "CRF_SIDE", 96)
    monkeypatch.setattr(windows, "CRF_OVERLAP", 72)
    # With 36 px around each part, about half the bilateral kernel's deviation; the real margin is
    # 96 px.
    assert (crf_labels_by_windows(image, logits, None, "torch") == whole).float().mean() > 0.95


def test_the_crf_of_a_large_picture_is_made_smaller() -> None:
    image, logits = torch.zeros(3, 64, 96, dtype=torch.uint8), torch.randn(1, 3, 4, 6)
    labels = crf_labels(image, logits, torch.tensor([True, True, False]), "torch", 48)
    assert labels.shape == (64, 96) and int(labels.max()) <= 1
