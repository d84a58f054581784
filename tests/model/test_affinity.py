"""The transition matrix, the choice of maps and the boxes against loops and hand-made cases."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from model import boxes
from model.affinity import (
    build_affinity,
    propagate,
    select_by_fit,
    select_by_mass,
    transition_matrix,
)
from model.boxes import box_mask
from model.class_rows import ClassRows
from model.method import Method


def naive_boxes(grey_map: Tensor, threshold: float, clip_edges: bool) -> Tensor:
    """Box mask of one map (h, w) by flood fill."""
    height, width = grey_map.shape
    grey = [[int(255 * v) for v in row] for row in grey_map.tolist()]
    cut = int(threshold * max(map(max, grey)))
    todo = {(y, x) for y in range(height) for x in range(width) if grey[y][x] > cut}
    mask = torch.zeros(height, width, dtype=torch.bool)
    while todo:
        front, region = [todo.pop()], []
        while front:
            y, x = front.pop()
            region.append((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & todo
            todo -= near
            front += near
        rows, cols = [y for y, _ in region], [x for _, x in region]
        bottom, right = max(rows) + 1, max(cols) + 1
        if clip_edges:
            bottom, right = min(bottom, height - 1), min(right, width - 1)
        mask[min(rows) : bottom, min(cols) : right] = True
    return mask


@pytest.fixture(params=["boxes_by_spreading", "boxes_by_products"])
def _each_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boxes, "boxes_by_spreading", getattr(boxes, request.param))


@pytest.mark.usefixtures("_each_way")
@pytest.mark.parametrize("clip_edges", [False, True])
@pytest.mark.parametrize("threshold", [0.4, 0.7])
def test_boxes_agree_with_flood_fill(clip_edges: bool, threshold: float) -> None:
    maps = torch.rand(40, 9, 13) ** 3
    expected = torch.stack([naive_boxes(m, threshold, clip_edges) for m in maps])
    assert torch.equal(box_mask(maps, threshold, clip_edges), expected)


@pytest.mark.usefixtures("_each_way")
def test_box_of_a_region_whose_ends_are_far_apart_along_it() -> None:
    spiral = torch.zeros(1, 15, 31)
    spiral[0, ::4] = 1  # long rows, joined at alternate ends: one snake of about 130 cells
    spiral[0, 1:4, -1] = spiral[0, 5:8, 0] = spiral[0, 9:12, -1] = 1
    spiral[0, 13:] = 0
    mask = box_mask(spiral, 0.4)
    assert mask[0, :13].all() and not mask[0, 13:].any()


@pytest.mark.usefixtures("_each_way")
def test_an_empty_map_has_no_box_and_no_maps_are_allowed() -> None:
    assert not box_mask(torch.zeros(2, 4, 5), 0.4).any()
    assert box_mask(torch.zeros(0, 4, 5), 0.4).shape == (0, 4, 5)


def test_edges_belong_to_boxes_unless_clipped() -> None:
    corner = torch.zeros(1, 4, 5)
    corner[0, 2:, 3:] = 1
    assert box_mask(corner, 0.4).sum() == 4
    assert box_mask(corner, 0.4, clip_edges=True).nonzero().tolist() == [[0, 2, 3]]


def test_transition_agrees_with_a_loop() -> None:
    affinity = torch.rand(2, 6, 6) + 0.1
    for matrix, result in zip(affinity.clone(), transition_matrix(affinity)):
        for _ in range(3):
            for column in range(6):
                matrix[:, column] /= matrix[:, column].sum().item()
            for row in range(6):
                matrix[row] /= matrix[row].sum().item()
        symmetric = (matrix + matrix.T) / 2
        torch.testing.assert_close(result, symmetric @ symmetric)


def test_transition_nearly_keeps_totals_and_survives_an_empty_column() -> None:
    affinity = torch.rand(1, 20, 20) + 0.1
    totals = transition_matrix(affinity).sum(1)
    torch.testing.assert_close(totals, torch.ones_like(totals), rtol=0, atol=1e-3)
    affinity[:, :, 3] = 0
    assert torch.isfinite(transition_matrix(affinity)).all()


def stochastic(*shape: int) -> Tensor:
    return torch.rand(*shape).softmax(-1)


def test_fit_keeps_near_maps_whatever_their_scale() -> None:
    predicted = stochastic(1, 8, 8)
    near, far = predicted + 1e-4, torch.eye(8)[None]
    expected = (near / near.sum(-1, keepdim=True)) * predicted
    for scale in (1.0, 11.0):
        torch.testing.assert_close(
            select_by_fit(predicted, torch.stack([scale * far, near])), expected
        )


def test_fit_looks_at_the_shape_of_the_prediction_not_at_its_level() -> None:
    predicted, flat, far = (
        (4 * torch.randn(1, 8, 8)).softmax(-1),
        torch.full((1, 8, 8), 1 / 8),
        torch.eye(8)[None],
    )
    maps = torch.stack([predicted, predicted, flat, far])
    for level in (
        1.0,
        0.1,
    ):  # at a tenth, `flat` would seem as near as the maps that equal the prediction
        torch.testing.assert_close(select_by_fit(level * predicted, maps), level * predicted**2)


def test_mass_keeps_the_heaviest_map() -> None:
    predicted, light = stochastic(1, 8, 8), stochastic(1, 8, 8)
    heavy = 11 * torch.eye(8)[None]
    kept = select_by_mass(predicted, torch.stack([light, heavy, light]))
    torch.testing.assert_close(kept, heavy * predicted, rtol=1e-4, atol=1e-6)


def test_each_image_selects_for_itself() -> None:
    predicted, maps = stochastic(2, 8, 8), stochastic(5, 2, 8, 8)
    both = select_by_fit(predicted, maps)
    for image in range(2):
        alone = select_by_fit(predicted[image, None], maps[:, image, None])
        torch.testing.assert_close(both[image, None], alone)


@pytest.mark.parametrize("select", [select_by_fit, select_by_mass])
def test_equal_maps_are_all_kept(select: Callable[[Tensor, Tensor], Tensor]) -> None:
    # many, as the mean may be rounded below them all
    predicted, one = (
        stochastic(200, 7, 7),
        stochastic(200, 7, 7),
    )
    result = select(predicted, one.expand(7, 200, 7, 7))
    torch.testing.assert_close(result, one * predicted, rtol=1e-4, atol=1e-7)


def test_the_number_of_maps_follows_the_stage() -> None:
    # the earlier the heavier
    clip_maps = [weight * stochastic(1, 6, 6) for weight in range(12, 0, -1)]
    vit_map, predicted = stochastic(1, 6, 6), stochastic(1, 6, 6)
    published = Method(vit_map="summed", map_selection="mass", early_maps=8, late_maps=6)
    early = build_affinity(clip_maps, vit_map, predicted, published, after_switch=False)
    torch.testing.assert_close(early, torch.stack([*clip_maps[-8:], vit_map]).mean(0))
    late = build_affinity(clip_maps, vit_map, predicted, published, after_switch=True)
    torch.testing.assert_close(
        late, select_by_mass(predicted, torch.stack([*clip_maps[-6:], vit_map]))
    )


def test_the_vit_map_is_scaled_or_summed() -> None:
    clip_maps, vit_map, predicted = (
        list(stochastic(3, 1, 6, 6)),
        11 * stochastic(1, 6, 6),
        stochastic(1, 6, 6),
    )

    def mean_with(choice: str) -> Tensor:
        return build_affinity(
            clip_maps, vit_map, predicted, Method(vit_map=choice, early_maps=3), after_switch=False
        )

    torch.testing.assert_close(mean_with("scaled"), torch.stack([*clip_maps, vit_map / 11]).mean(0))
    torch.testing.assert_close(mean_with("summed"), torch.stack([*clip_maps, vit_map]).mean(0))


def test_propagation_agrees_with_a_loop() -> None:
    rows = ClassRows.from_tags(torch.tensor([[1, 1, 0], [0, 0, 0], [0, 0, 1]]))
    transition, cams, mask = torch.rand(3, 6, 6), torch.rand(3, 2, 3), torch.rand(3, 2, 3) > 0.5
    for cut in (None, mask):
        spread = propagate(transition, rows, cams, cut)
        for row, (image, _) in enumerate(rows.index.tolist()):
            source = cams[row] if cut is None else cams[row] * mask[row]
            torch.testing.assert_close(spread[row].flatten(), transition[image] @ source.flatten())
