"""Methods beside each other: means over seeds and paired differences, as table, JSON and page."""

import json
import math
import re
import statistics
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from utils.common.files import encoded, written_whole
from utils.metrics import CAMS, TEST_TITLES, TITLES
from utils.report import plots
from utils.report.page import write_page

ORDER = (*CAMS.values(), *TITLES.values(), *TEST_TITLES)
STAGES = ("stage 1", "stage 2", "scores")  # of a row's costs, one after the other
CLEAR = 2  # standard errors that a difference must exceed to be called clear
CELL = 14  # characters of a table's column


@dataclass(frozen=True)
class Score:
    """mIoU in percent over `images` images of a split."""

    value: float
    split: str
    images: int


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, its standard error (nan of one seed), and the number of seeds."""

    mean: float
    error: float
    seeds: int

    @property
    def clear(self) -> bool:
        """Return True if the mean is further from 0 than `CLEAR` standard errors."""
        return abs(self.mean) > CLEAR * self.error

    def text(self, form: str = ".1f") -> str:
        """Return it as "61.3 (0.4)", of one seed without the error."""
        mean = f"{self.mean:{form}}"
        if math.isnan(self.error):
            return mean
        return f"{mean} ({self.error:.1f})"


def estimate(values: Sequence[float]) -> Estimate:
    """Return mean and standard error of some values: their sample deviation / sqrt(n)."""
    error = math.nan
    if len(values) > 1:
        error = statistics.stdev(values) / math.sqrt(len(values))
    return Estimate(statistics.fmean(values), error, len(values))


@dataclass(frozen=True)
class Line:
    """A row's scores in one measure, by seed, and what they come to.

    ahead: score - that of the reference row, of the seeds that both have; lead: what these come to,
    None where there are none.
    """

    row: str
    by_seed: dict[int, float]
    score: Estimate
    ahead: dict[int, float]
    lead: Estimate | None


@dataclass(frozen=True)
class Measure:
    """All rows' scores under one title on the images of one root."""

    root: str
    split: str
    images: int
    title: str
    lines: tuple[Line, ...]

    @property
    def where(self) -> str:
        """Return the split in a word, such as "train" for "train, spread over 1464" or
        "train[:200]".
        """
        return re.split(r"[,\[]", Path(self.split).name)[0]

    def line(self, row: str) -> Line | None:
        """Return the scores of a row, if it has any."""
        return next((line for line in self.lines if line.row == row), None)


@dataclass(frozen=True)
class RowCost:
    """What a stage costs per seed: minutes of processor time and by the clock (means), and the
    most memory in units of 10^9 bytes.
    """

    cpu_minutes: float
    minutes: float
    gigabytes: float


@dataclass(frozen=True)
class MethodRow:
    """A line of a comparison but for its scores.

    reason: why it did not run, or not to its end; "" otherwise. changed: settings that differ from
    those of the data. costs: by stage, of `STAGES`.
    """

    name: str
    reason: str = ""
    changed: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    costs: dict[str, RowCost] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """Everything that a comparison tells.

    reference: row that the others are compared with. facts: what it was made with, in words.
    """

    data: str
    reference: str
    seeds: tuple[int, ...]
    facts: dict[str, str]
    rows: tuple[MethodRow, ...]
    measures: tuple[Measure, ...]


# row -> seed -> root -> title
Scores = Mapping[str, Mapping[int, Mapping[str, Mapping[str, Score]]]]


def measures(scores: Scores, roots: Sequence[str], reference: str) -> tuple[Measure, ...]:
    """Put scores together by root and title; roots, titles and rows each in their order."""
    found = []
    for root in roots:
        for title in ORDER:
            table = {
                row: {
                    seed: by_root[root][title]
                    for seed, by_root in by_seed.items()
                    if title in by_root.get(root, {})
                }
                for row, by_seed in scores.items()
            }
            table = {row: by_seed for row, by_seed in table.items() if by_seed}
            if table:
                found.append(_measure(root, title, table, reference))

    return tuple(found)


def _measure(
    root: str, title: str, table: Mapping[str, Mapping[int, Score]], reference: str
) -> Measure:
    beside = table.get(reference, {})
    lines = []
    for row, by_seed in table.items():
        values = {seed: score.value for seed, score in by_seed.items()}
        ahead = {}
        if row != reference:
            ahead = {seed: values[seed] - beside[seed].value for seed in values if seed in beside}
        lead = None
        if ahead:
            lead = estimate(list(ahead.values()))
        lines.append(Line(row, values, estimate(list(values.values())), ahead, lead))

    first = next(iter(next(iter(table.values())).values()))
    return Measure(root, first.split, first.images, title, tuple(lines))


def same_scores(comparison: Comparison) -> dict[str, str]:
    """Return the rows whose every score is that of a row above them, to the digit, with that
    row.
    """
    seen: dict[str, str] = {}
    found = {}
    for row in comparison.rows:
        own = [
            (measure.root, measure.title, line.by_seed)
            for measure in comparison.measures
            if (line := measure.line(row.name))
        ]

        if own:
            first = seen.setdefault(repr(own), row.name)
            if first != row.name:
                found[row.name] = first

    return found


def remarks(comparison: Comparison) -> dict[str, str]:
    """Return what else must be known of rows, by their names."""
    said = {}
    same = same_scores(comparison)
    for row in comparison.rows:
        parts = list(row.notes)
        if row.name in same:
            parts.append(f"the same scores as {same[row.name]}: nothing scored here depends on it")

        if row.reason:
            fate = "not run"
            if any(measure.line(row.name) for measure in comparison.measures):
                fate = "not run to its end"
            parts.append(f"{fate}: {row.reason}")

        if parts:
            said[row.name] = "; ".join(parts)

    return said


def table(comparison: Comparison) -> str:
    """Return a comparison as text: per root the means and the paired differences, then costs."""
    blocks = []
    for root in dict.fromkeys(measure.root for measure in comparison.measures):
        own = [measure for measure in comparison.measures if measure.root == root]
        block = _block(comparison, own, lambda line: line.score.text())
        blocks.append(f"{root}: mIoU in percent, mean (standard error)\n{block}")
        if any(line.lead for measure in own for line in measure.lines):
            title = f"{root}: difference to {comparison.reference}, seed by seed"
            block = _block(comparison, own, _lead)
            blocks.append(f"{title}, mean (standard error), * beyond {CLEAR} of them\n{block}")

    if costs := [row for row in comparison.rows if row.costs]:
        blocks.append(_costs(costs))
    blocks += [f"{name}: {said}" for name, said in remarks(comparison).items()]
    return "\n\n".join(blocks)


def _lead(line: Line) -> str:
    if line.lead is None:
        return ""
    text = line.lead.text("+.1f")
    if line.lead.clear:
        text += "*"
    return text


def _block(comparison: Comparison, found: Sequence[Measure], cell: Callable[[Line], str]) -> str:
    heads = []
    for measure in found:
        where = f"{measure.where}, {measure.images}"
        heads.append([*textwrap.wrap(measure.title, CELL - 2), where[: CELL - 1]])
    height = max(map(len, heads))
    columns = [[""] * (height - len(head)) + head for head in heads]
    wide = _longest(comparison.rows)
    lines = [" " * wide + "".join(f"{word:>{CELL}}" for word in words) for words in zip(*columns)]

    for row in comparison.rows:
        scored = [measure.line(row.name) for measure in found]
        cells = [cell(line) if line else "" for line in scored]
        if any(cells):
            lines.append(f"{row.name:{wide}}" + "".join(f"{text or '-':>{CELL}}" for text in cells))
    return "\n".join(lines)


def _longest(rows: Sequence[MethodRow]) -> int:
    return max(len(row.name) for row in rows)


def _stages(rows: Sequence[MethodRow]) -> list[str]:
    """Return the stages that any row has, in their order."""
    return [stage for stage in STAGES if any(stage in row.costs for row in rows)]


def _costs(rows: Sequence[MethodRow]) -> str:
    stages = _stages(rows)
    wide = _longest(rows)
    lines = [
        "per seed: CPU minutes (a stage that rows share is counted in each), peak memory\n"
        f"{'':{wide}}" + "".join(f"{stage:>{CELL}}" for stage in (*stages, "together", "GB"))
    ]
    for row in rows:
        known = {stage: cost.cpu_minutes for stage, cost in row.costs.items()}
        minutes = [known.get(stage, 0.0) for stage in stages]
        peak = max(cost.gigabytes for cost in row.costs.values())
        cells = "".join(f"{value:{CELL}.1f}" for value in (*minutes, sum(minutes), peak))
        lines.append(f"{row.name:{wide}}{cells}")
    return "\n".join(lines)


def write_json(comparison: Comparison, path: Path) -> None:
    """Write all that a comparison tells; what is not known is null. Others may write it, too."""
    content = json.dumps(_plain(asdict(comparison)), indent=1, ensure_ascii=False)
    with written_whole(path, own=True) as file:
        file.write(encoded(content))


def write_methods(comparison: Comparison, path: Path) -> Path:
    """Write the page of a comparison, and return its path."""
    page = {
        "comparison": comparison,
        "roots": list(dict.fromkeys(measure.root for measure in comparison.measures)),
        "remarks": remarks(comparison),
        "plots": [
            (measure, *_plots(number, measure, comparison.reference))
            for number, measure in enumerate(comparison.measures)
        ],
        "stages": _stages(comparison.rows),
        "clear": CLEAR,
    }
    return write_page("methods.html.j2", page, path)


def _plots(number: int, measure: Measure, reference: str) -> tuple[Any, Any]:
    """Draw the scores of a measure, and if there are any the differences to the reference."""
    scores = [(line.row, list(line.by_seed.values()), line.score) for line in measure.lines]
    leads = [
        (line.row, list(line.ahead.values()), line.lead) for line in measure.lines if line.lead
    ]
    drawn = plots.estimates(f"scores-{number}", scores, "mIoU, %")
    beside = None
    if leads:
        beside = plots.estimates(
            f"leads-{number}", leads, f"difference to {reference}, points", zero=True
        )
    return drawn, beside


def _plain(value: Any) -> Any:
    """Return a value as JSON holds it: nan is null."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and math.isnan(value):
        return None
    return value
