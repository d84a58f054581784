"""A finding, and how a number is held against one with a source."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from utils.common.errors import UserError
from utils.config import Config, load_config
from utils.recipe import of_other_images
from utils.references import Reference, read_references

OK = "ok"
SUSPICIOUS = "suspicious"
WRONG = "wrong"
UNKNOWN = "-"  # nothing with a source to be held against


@dataclass(frozen=True)
class Finding:
    """What was found of one thing, and what was expected, with its source; `expected` may be ""."""

    verdict: str
    what: str
    found: str
    expected: str = ""

    def __str__(self) -> str:
        line = f"{self.verdict:12}{self.what}: {self.found}"
        if self.expected:
            line += f"; expected {self.expected}"
        return line


def suiting(name: str, split: str, config: Config, of_data: bool = True) -> list[Reference]:
    """Return the numbers of a name and split whose configuration has the same data set, if
    `of_data`, and networks of the same size: those of the toy are its own.
    """
    if of_data and of_other_images(config):
        return []
    found = []
    for each in read_references():
        if (each.name, each.split, each.step) == (name, split, None):
            theirs = load_config(each.recipe)
            same_data = theirs.dataset == config.dataset or not of_data
            if same_data and theirs.full_size == config.full_size:
                found.append(each)
    return found


def stated(reference: Reference) -> str:
    """Return a number as it is expected, with its source."""
    low, high = reference.band
    value = f"{reference.value:,.6g}"
    if reference.value >= 1e6:
        value = f"{reference.value:,.0f}"
    if low < high:
        value += f" ({low:g} to {high:g})"

    source = reference.source.short
    if reference.quoted_by:
        source += f", as quoted by {reference.quoted_by}"
    return f"{value} ({source}, {reference.address})"


def counted(what: str, value: float, references: Sequence[Reference]) -> Finding:
    """Compare a number that is exact, to four digits where it is no count."""
    said = f"{value:.4g}"
    if isinstance(value, int):
        said = f"{value:,}"
    if not references:
        return Finding(UNKNOWN, what, said)

    reference = references[0]
    same = f"{value:.4g}" == f"{reference.value:.4g}"
    if isinstance(value, int):
        same = value == reference.value
    verdict = OK if same else WRONG
    return Finding(verdict, what, said, stated(reference))


def caught(what: str, find: Callable[[], list[Finding]]) -> list[Finding]:
    """Return what `find` does; where it cannot go on, that as a finding of its own."""
    try:
        return find()
    except UserError as error:
        return [Finding(WRONG, what, str(error))]
