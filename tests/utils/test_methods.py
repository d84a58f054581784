"""Statistics of methods beside each other by hand, and that table, JSON and page tell the same."""

import json
import math
from pathlib import Path

import pytest

from utils.report.methods import (
    Comparison,
    MethodRow,
    RowCost,
    Score,
    estimate,
    measures,
    remarks,
    same_scores,
    table,
    write_json,
    write_methods,
)

pytestmark = pytest.mark.drawn
TITLE = "pseudo label"


def compared(**by_row: dict[int, float]) -> Comparison:
    """A comparison on one root of rows with these scores by seed; `cvf` is the reference."""
    scores = {
        row: {seed: {"data/toy": {TITLE: Score(value, "train", 9)}} for seed, value in own.items()}
        for row, own in by_row.items()
    }
    rows = tuple(MethodRow(row, costs={"stage 2": RowCost(4.25, 2, 1.5)}) for row in by_row)
    found = measures(scores, ["data/toy"], "cvf")
    return Comparison("toy_voc", "cvf", (0, 1, 2), {"budget": "4 iterations"}, rows, found)


def test_a_mean_has_the_standard_error_of_its_values() -> None:
    # deviations -2, -1, 0, 3: variance 14 / 3, standard error sqrt(14 / 3 / 4)
    found = estimate([1.0, 2.0, 3.0, 6.0])
    assert (found.mean, found.seeds) == (3.0, 4)
    assert found.error == pytest.approx(math.sqrt(14 / 12))
    assert found.text() == "3.0 (1.1)" and found.text("+.1f") == "+3.0 (1.1)"

    alone = estimate([5.0])
    assert alone.mean == 5.0 and math.isnan(alone.error) and alone.text() == "5.0"


@pytest.mark.parametrize(
    ("values", "clear"),
    # standard errors 1, 0.5, 0, and none
    [
        ([0.0, 2.0], False),
        ([1.0, 2.0], True),
        ([-1.0, -2.0], True),
        ([0.0, 0.0], False),
        ([9.0], False),
    ],
)
def test_a_difference_is_clear_beyond_two_standard_errors(values: list[float], clear: bool) -> None:
    assert estimate(values).clear == clear


def test_differences_are_paired_by_seed() -> None:
    comparison = compared(cvf={0: 50.0, 1: 60.0, 2: 70.0}, best={2: 72.0, 0: 53.0, 5: 99.0})
    (measure,) = comparison.measures
    ours, best = measure.lines
    assert ours.lead is None and ours.ahead == {}
    assert ours.score.error == pytest.approx(10 / math.sqrt(3))

    # of the seeds that both have, 3 and 2: the seeds' own spread of 10 does not count
    assert best.ahead == {2: 2.0, 0: 3.0}
    assert best.lead.mean == 2.5 and best.lead.error == pytest.approx(0.5)
    assert best.lead.seeds == 2 and best.lead.clear
    assert best.score.seeds == 3


def test_without_the_reference_there_are_no_differences() -> None:
    comparison = compared(clip={0: 50.0}, vit={0: 60.0})
    assert all(line.lead is None for line in comparison.measures[0].lines)
    assert "difference" not in table(comparison)


def test_rows_of_the_same_scores_are_told() -> None:
    comparison = compared(cvf={0: 50.0, 1: 60.0}, a={0: 50.0, 1: 60.0}, b={0: 50.0}, c={})
    assert same_scores(comparison) == {"a": "cvf"}


def test_the_table_tells_means_differences_costs_and_what_did_not_run() -> None:
    comparison = compared(cvf={0: 50.0, 1: 54.0}, best={0: 52.0, 1: 57.0}, bad={})
    late = MethodRow("best", "seed 2: it broke", {}, ("longer",), comparison.rows[1].costs)
    rows = (comparison.rows[0], late, MethodRow("bad", "it has no tokens"))
    comparison = Comparison("toy", "cvf", (0, 1), {}, rows, comparison.measures)

    scores, leads, costs, *said = table(comparison).split("\n\n")
    assert scores.splitlines()[0].startswith("data/toy: mIoU")
    assert [line.split() for line in scores.splitlines()[1:]] == [
        ["pseudo", "label"],
        ["train,", "9"],
        ["cvf", "52.0", "(2.0)"],
        ["best", "54.5", "(2.5)"],
    ]
    assert [line.split() for line in leads.splitlines()[3:]] == [["best", "+2.5", "(0.5)*"]]
    assert costs.splitlines()[-1].split() == ["best", "4.2", "4.2", "1.5"]
    assert said == [
        "best: longer; not run to its end: seed 2: it broke",
        "bad: not run: it has no tokens",
    ]


def test_costs_hold_every_stage_that_some_row_has(tmp_path: Path) -> None:
    whole = compared(cvf={0: 50.0}, mctformer_plus={0: 40.0})
    stages = {"cvf": ("stage 2", "scores"), "mctformer_plus": ("stage 1", "scores")}
    rows = tuple(
        MethodRow(row, costs=dict.fromkeys(own, RowCost(3, 2, 1.5))) for row, own in stages.items()
    )
    comparison = Comparison("toy", "cvf", (0,), {}, rows, whole.measures)
    costs = next(part for part in table(comparison).split("\n\n") if part.startswith("per seed"))
    assert [line.split() for line in costs.splitlines()[2:]] == [
        ["cvf", "0.0", "3.0", "3.0", "6.0", "1.5"],
        ["mctformer_plus", "3.0", "0.0", "3.0", "6.0", "1.5"],
    ]
    page = write_methods(comparison, tmp_path / "page.html").read_text(encoding="utf-8")
    assert all(f"{stage}, CPU min" in page for stage in ("stage 1", "stage 2", "scores"))


def test_the_page_and_the_json_hold_the_same(tmp_path: Path) -> None:
    comparison = compared(cvf={0: 51.23}, **{"<b>best</b>": {0: 64.56}})
    page = write_methods(comparison, tmp_path / "page.html").read_text(encoding="utf-8")
    write_json(comparison, tmp_path / "numbers.json")
    content = json.loads((tmp_path / "numbers.json").read_text(encoding="utf-8"))

    ours, best = content["measures"][0]["lines"]
    assert ours["by_seed"] == {"0": 51.23} and best["ahead"]["0"] == pytest.approx(13.33)
    assert best["lead"]["error"] is None  # of one seed
    for line in (ours, best):
        assert f"{line['score']['mean']:.1f}" in page
    assert f"{best['lead']['mean']:+.1f}" in page
    for row in content["rows"]:
        assert f"{row['costs']['stage 2']['cpu_minutes']:.1f}" in page
    assert all(value in page for value in content["facts"].values())

    assert "<b>best</b>" not in page and "&lt;b&gt;best" in page
    assert page.count("<svg") == 2  # scores, differences
    assert remarks(comparison) == {}
