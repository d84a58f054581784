"""Figures of how airy the Python of this repository is: `python -m utils.tools.air`.

One row per package, and one of all: a report for those who write here, which refuses nothing.
"""

import ast
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from utils.common.entry import command
from utils.common.parser import Parser
from utils.common.startup import ROOT

PACKAGES = ("clip", "datasets", "model", "utils")
SCRIPTS = "scripts"  # the row of the files beside the packages
LONG = 15  # lines of a function, from which on its steps should stand apart
WIDE = 100  # characters that a line may have
HEADS = ("lines", f"functions >= {LONG}", "with air", "packed", "conditional", f"lines > {WIDE}")


@dataclass(frozen=True)
class Air:
    """Counts of some source text.

    lines: all of them. long: functions of LONG lines and more, their docstrings included. airy: of
    these, those with an empty line after the docstring. packed: assignments of several values to as
    many names. conditional: expressions `a if b else c`. wide: lines of more than WIDE characters.
    """

    lines: int = 0
    long: int = 0
    airy: int = 0
    packed: int = 0
    conditional: int = 0
    wide: int = 0


def air_of(text: str) -> Air:
    """Count what makes Python source text airy or dense."""
    lines = text.splitlines()
    nodes = list(ast.walk(ast.parse(text)))
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = [each for each in functions if _length(each) >= LONG]

    return Air(
        lines=len(lines),
        long=len(long),
        airy=sum(_has_air(each, lines) for each in long),
        packed=sum(_is_packed(node) for node in nodes),
        conditional=sum(isinstance(node, ast.IfExp) for node in nodes),
        wide=sum(len(line) > WIDE for line in lines),
    )


def _length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return _end(function) - function.lineno + 1


def _end(node: ast.stmt) -> int:
    assert node.end_lineno is not None  # of what was parsed
    return node.end_lineno


def _has_air(function: ast.FunctionDef | ast.AsyncFunctionDef, lines: Sequence[str]) -> bool:
    steps = function.body
    if ast.get_docstring(function) is not None:
        steps = steps[1:]
    if not steps:
        return False
    return any(not line.strip() for line in lines[steps[0].lineno - 1 : _end(function)])


def _is_packed(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Tuple)
        and isinstance(node.value, ast.Tuple)
    )


def total(parts: Iterable[Air]) -> Air:
    """Add counts up."""
    return Air(*map(sum, zip(*map(astuple, parts))))


def sources(root: Path) -> dict[str, list[Path]]:
    """List the Python files of each package, and of the scripts beside them."""
    found = {name: sorted((root / name).rglob("*.py")) for name in PACKAGES}
    found[SCRIPTS] = sorted(root.glob("*.py"))
    return found


def report(rows: dict[str, Air]) -> str:
    """Write a table of counts: a share of the long functions, and rates per thousand lines."""
    table = [("", *HEADS)]
    for name, air in rows.items():
        share = "-"
        if air.long:
            share = f"{air.airy / air.long:.0%}"
        thousands = max(1, air.lines) / 1000
        packed = f"{air.packed / thousands:.1f}"
        conditional = f"{air.conditional / thousands:.1f}"
        table.append(
            (name, f"{air.lines:,}", str(air.long), share, packed, conditional, str(air.wide))
        )

    widths = [max(map(len, column)) for column in zip(*table)]
    lines = ["  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths)) for row in table]
    lines.append("packed assignments and conditional expressions: per thousand lines")
    return "\n".join(lines)


def main() -> None:
    """Read the command line and do what it asks."""
    Parser(description=__doc__).parse_args()
    rows = {}
    for name, files in sources(ROOT).items():
        rows[name] = total(air_of(file.read_text(encoding="utf-8")) for file in files)
    print(report({**rows, "all": total(rows.values())}))


if __name__ == "__main__":
    command(main)()
