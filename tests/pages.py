"""Pages as tests read them: sections, tables, and the commands that they tell people to type."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from helpers import ROOT

# all that is written for users and contributors, but the notes beside test data
PAGES = (
    ROOT / "README.md",
    ROOT / ".github/CONTRIBUTING.md",
    ROOT / "tests" / "README.md",
    ROOT / "tests" / "golden" / "README.md",
    ROOT / "model" / "README.md",
    ROOT / "datasets" / "README.md",
    ROOT / "configs" / "README.md",
    ROOT / "utils" / "README.md",
    ROOT / "utils/CHANGES.md",
    ROOT / "utils" / "tools" / "README.md",
    ROOT / "utils" / "tools" / "benchmark" / "README.md",
)


def section(page: Path, heading: str) -> str:
    """Text below a heading of a page, up to the next heading of its rank or above."""
    lines = []
    rank = 0  # of the heading, once it is found
    for line, level, name in _lines(page):
        if rank and 0 < level <= rank:
            break
        if rank:
            lines.append(line)
        elif name == heading:
            rank = level

    assert rank, f"{page} has no heading {heading!r}"
    return "".join(lines)


def headings(page: Path) -> list[str]:
    """All headings of a page."""
    return [name for _, level, name in _lines(page) if level]


def _lines(page: Path) -> Iterator[tuple[str, int, str]]:
    """Lines of a page, each with rank and text of the heading that it is, or 0 and ""."""
    fenced = False
    for line in page.read_text(encoding="utf-8").splitlines(keepends=True):
        fenced ^= line.startswith("```")
        found = None if fenced else re.match(r"(#+) (.+)", line)  # in a block # begins a comment
        yield (line, len(found[1]), found[2]) if found else (line, 0, "")


def anchors(page: Path) -> set[str]:
    """What links to the headings of a page are called."""
    return {re.sub(r"[^\w -]", "", name).lower().replace(" ", "-") for name in headings(page)}


def table(page: Path, heading: str) -> list[list[str]]:
    """Cells of the rows of the first table under a heading, without its head."""
    found = re.search(r"(?:^\|.*\n)+", section(page, heading), re.M)
    assert found, f"{page} has no table under {heading!r}"
    rows = found.group().splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def code(cell: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", cell)


def blocks(text: str, language: str) -> list[str]:
    """Contents of the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


@dataclass(frozen=True)
class Command:
    """A command of a page: its words, and whether it can be typed as it stands.

    In running text it may be cut short, such as `python -m utils.tools.export --sweep`.
    """

    words: tuple[str, ...]
    whole: bool

    def __str__(self) -> str:
        return shlex.join(self.words)


def block_commands(block: str) -> Iterator[Command]:
    """The commands of a shell block, in their order."""
    for line in block.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while "&&" in words:
            at = words.index("&&")
            yield Command(tuple(words[:at]), True)
            words = words[at + 1 :]
        if words:
            yield Command(tuple(words), True)


def quoted_commands(text: str) -> Iterator[Command]:
    """The commands that stand in backticks, in running text and in tables."""
    rest = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    for quoted in code(rest):
        line = quoted.replace("\n", " ").removesuffix(" ...")
        if re.match(r"(\w+=\S* )*(python3? (-m |\S+\.py)|bash |pip |shellcheck |bandit )", line):
            yield Command(tuple(shlex.split(line)), False)


def commands(text: str) -> list[Command]:
    """All commands of a page."""
    found = [command for block in blocks(text, "bash") for command in block_commands(block)]
    return [*found, *quoted_commands(text)]
