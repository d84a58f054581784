"""Numbers of other people's runs, each with where it stands (utils/references.yaml)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

from utils.common.errors import UserError
from utils.common.yaml_files import yaml_values

REFERENCES = Path(__file__).with_suffix(".yaml")

_SOURCE = {"address": str, "opened": date, "what": str}
_NUMBERS = {"recipe": str, "name": str, "split": str, "source": str, "rows": list}
_NUMBERS_MAY = {"quoted_by": str, "note": str, "unit": str, "window": int}
_ROW = {"value": float}
_ROW_MAY = {"step": int, "line": int, "tolerance": float, "others": list, "note": str}


@dataclass(frozen=True)
class Source:
    """A page or log that was opened: its address, when, and what it is."""

    address: str
    opened: date
    what: str

    @property
    def short(self) -> str:
        """Return what it is, up to the first comma."""
        return self.what.partition(",")[0].partition(";")[0]


@dataclass(frozen=True)
class Reference:
    """One number of somebody else's run.

    recipe: configuration whose runs it may be compared with. name: as metrics.csv or the health
    command calls it; losses are before their weight. split: images it was scored on, or "weights".
    step: in `unit`; None is the end of the run. tolerance: as the source gives it. others: what
    further people got from the same code. window: how many units, up to `step`, it is the mean of;
    0 for a score. quoted_by: who passes it on, where its own page was not opened; else empty.
    """

    recipe: str
    name: str
    split: str
    step: int | None
    value: float
    source: Source
    line: int | None = None
    unit: str = "iterations"
    tolerance: float | None = None
    others: tuple[float, ...] = ()
    window: int = 0
    quoted_by: str = ""
    note: str = ""

    @property
    def address(self) -> str:
        """Return where the number stands, to the line."""
        if not self.line:
            return self.source.address
        return f"{self.source.address}#L{self.line}"

    @property
    def band(self) -> tuple[float, float]:
        """Return the least and greatest of what is known: the value, its tolerance, what others
        got.
        """
        slack = self.tolerance or 0.0
        known = (self.value - slack, self.value + slack, *self.others)
        return min(known), max(known)


@cache
def read_references(path: Path = REFERENCES) -> tuple[Reference, ...]:
    """Read every number of the file. Raises UserError on an entry that is not what it should be."""
    content = yaml_values(path)
    _check(content, {"sources": dict, "numbers": list}, {}, f"{path}")

    sources = {}
    for key, given in content["sources"].items():
        _check(given, _SOURCE, {}, f"{path}: source {key}")
        sources[key] = Source(**given)

    references: list[Reference] = []
    for entry in content["numbers"]:
        _check(entry, _NUMBERS, _NUMBERS_MAY, f"{path}: numbers")
        place = f"{path}: {entry['recipe']}, {entry['name']}"
        if entry["source"] not in sources:
            raise UserError(f"{place} has the source {entry['source']}, which is not described")

        common = {**entry, "source": sources[entry["source"]]}
        references += (_reference(common, row, place) for row in common.pop("rows"))
    return tuple(references)


def _reference(common: Mapping[str, Any], row: dict[str, Any], place: str) -> Reference:
    _check(row, _ROW, _ROW_MAY, place)
    others = tuple(float(value) for value in row.get("others", ()))
    tolerance = row.get("tolerance")
    if tolerance is not None:
        tolerance = float(tolerance)

    return Reference(
        **{
            **common,
            "step": None,
            **row,
            "value": float(row["value"]),
            "tolerance": tolerance,
            "others": others,
        }
    )


def _check(given: Any, must: Mapping[str, type], may: Mapping[str, type], place: str) -> None:
    """Raise UserError unless `given` has all keys of `must`, no others than those of `may`, and
    values of their types.
    """
    if not isinstance(given, dict):
        raise UserError(f"{place} must hold `key: value` lines")
    for name in must:
        if name not in given:
            raise UserError(f"{place} lacks the key {name}")

    known = {**must, **may}
    for name, value in given.items():
        if name not in known:
            raise UserError(f"{place} has an unknown key {name}; remove it")
        kind = (float, int) if known[name] is float else known[name]
        if isinstance(value, bool) or not isinstance(value, kind):
            raise UserError(
                f"{place}: {name} is {value!r}; it must be of type {known[name].__name__}"
            )


def of_recipe(recipe: str, references: Iterable[Reference]) -> tuple[Reference, ...]:
    """Return the numbers that runs of a recipe may be compared with."""
    return tuple(each for each in references if each.recipe == recipe)


def nearest(name: str, split: str, step: int, references: Iterable[Reference]) -> Reference | None:
    """Return the number of that name and split whose step is nearest; None without any.

    Of equally near ones the earlier. A number of the end of a run is not nearest to any step.
    """
    known = [
        (abs(each.step - step), each.step, each)
        for each in references
        if each.name == name and each.split == split and each.step is not None
    ]
    if not known:
        return None
    return min(known, key=lambda found: found[:2])[-1]
