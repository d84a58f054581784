"""The confusion matrix against a loop and hand-computed scores."""

import math

import numpy as np
import pytest
import torch

from datasets.specs import COCO, VOC
from utils.metrics import (
    CRF,
    MULTI,
    SINGLE,
    TEST_TITLES,
    ConfusionMatrix,
    final_title,
    format_table,
)


def random_labels(seed: int, classes: int, *extra: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.choice([*range(classes), *extra], (13, 17)).astype(np.uint8)


def test_counts_match_a_loop():
    truth, prediction = random_labels(0, 4, 255, 200), random_labels(1, 4)
    expected = np.zeros((4, 4), int)
    for t, p in zip(truth.flat, prediction.flat):
        if t < 4:
            expected[t, p] += 1
    matrix = ConfusionMatrix(4)
    matrix.update(prediction, truth)
    assert matrix.counts.dtype == torch.int64
    assert matrix.counts.tolist() == expected.tolist()


def test_scores_by_hand():
    # Truth: class 0 twice, 1 once, 2 never, 3 never; class 2 is predicted once, class 3 nowhere.
    matrix = ConfusionMatrix(4)
    matrix.update(torch.tensor([0, 2, 1, 0]), torch.tensor([0, 0, 1, 255]))
    assert matrix.iou().dtype == torch.float64
    assert matrix.iou()[:3].tolist() == [0.5, 1.0, 0.0]
    assert math.isnan(matrix.iou()[3])
    assert matrix.miou() == 0.75
    assert matrix.mean_accuracy() == 0.75
    assert matrix.pixel_accuracy() == pytest.approx(2 / 3)
    assert matrix.present() == 2


def test_counts_of_parts_add_up_to_those_of_the_whole():
    whole, parts = ConfusionMatrix(5), [ConfusionMatrix(5), ConfusionMatrix(5)]
    for seed, part in enumerate(parts):
        truth, prediction = random_labels(seed, 5, 255), random_labels(seed + 9, 5)
        whole.update(prediction, truth)
        part.update(torch.from_numpy(prediction).long(), torch.from_numpy(truth))
    assert torch.equal(parts[0].counts + parts[1].counts, whole.counts)


def test_nothing_counted_is_nan():
    matrix = ConfusionMatrix(3)
    matrix.update(np.zeros((2, 2), np.uint8), np.full((2, 2), 255, np.uint8))
    assert math.isnan(matrix.miou())
    assert math.isnan(matrix.pixel_accuracy())
    assert matrix.present() == 0


def test_counts_of_an_image_are_kept_as_pairs_and_images_are_counted():
    matrix, again = ConfusionMatrix(3), ConfusionMatrix(3)
    matrix.update(np.array([[0, 2]]), np.array([[1, 2]]))
    again.add_pairs(matrix.pairs())
    again.add_pairs([])  # of an image whose every pixel is ignored
    again.sum_over_processes()  # there is one
    assert again.counts.tolist() == matrix.counts.tolist() and (matrix.images, again.images) == (
        1,
        2,
    )


def test_bad_predictions_are_refused():
    matrix = ConfusionMatrix(3)
    with pytest.raises(ValueError, match="outside 0..2"):
        matrix.update(np.array([3]), np.array([0]))
    with pytest.raises(ValueError, match="differ in shape"):
        matrix.update(np.zeros((2, 3)), np.zeros((3, 2)))
    for label in (-1, 256, 300):  # 300 would count as the next row's label 44
        for maps in (([label], [0]), ([0], [label])):
            with pytest.raises(ValueError, match="outside 0..255"):
                matrix.update(*map(np.array, maps))
    matrix.update(np.array([3]), np.array([255]))
    assert matrix.counts.sum() == 0


def test_the_final_result_is_known_by_its_name_and_not_its_place():
    assert final_title([CRF, MULTI, SINGLE]) == CRF and final_title({MULTI: 0, SINGLE: 1}) == MULTI
    with pytest.raises(ValueError, match="not in tuple"):
        final_title([SINGLE, "another"])


def test_the_mean_of_the_classes_in_a_table_is_its_miou():
    """Of a class that is predicted but not in the truth, the table shows no IoU."""
    matrix = ConfusionMatrix(3)
    matrix.update(np.array([0, 1, 2, 2]), np.array([0, 1, 1, 0]))
    row, *classes = [
        line.split() for line in format_table([("one", matrix)], "abc").splitlines()[1:]
    ]
    shown = {name: iou for name, iou in zip(classes[-1][::2], classes[-1][1::2])}
    assert shown == {"a": "50.00", "b": "50.00", "c": "-"} and row[2] == "50.00"


@pytest.mark.parametrize("spec", [VOC, COCO])
@pytest.mark.parametrize("results", [1, 3])
def test_table_fits_and_shows_every_class(spec, results):
    labels = len(spec.label_names)
    matrix = ConfusionMatrix(labels)
    matrix.update(np.array([0, 1, 0]), np.array([0, 1, 1]))
    titles = TEST_TITLES[:results]
    table = format_table([(title, matrix) for title in titles], spec.label_names)
    lines = table.splitlines()
    assert max(map(len, lines)) <= 100
    assert f"2 of {labels} classes present" in lines[results]
    assert all(title in line for title, line in zip(titles, lines[1:]))
    assert " ".join(lines[results].split()).startswith(
        f"[{results}] {titles[-1]} 50.00 66.67 75.00"
    )
    assert all(table.count(name) >= 1 for name in spec.label_names)
    assert table.count("50.00") == 3 * results
    assert sum(line.split().count("-") for line in lines) == (labels - 2) * results
