"""Reading YAML: plain values alone, every key once, with errors that name the line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from utils.common.errors import UserError


def yaml_values(path: Path, called: str = "") -> Any:
    """Read the plain values of a YAML file: dictionaries, lists, texts, numbers, dates.

    Args:
        path: of a file in UTF-8, with or without a byte order mark.
        called: what an error begins with, such as "--config FILE"; by default the path.

    Raises:
        UserError: the file cannot be read, is not YAML, or a key stands twice in one mapping.
    """
    return _parsed(path, called, None, yaml.load)


def yaml_nodes(path: Path, text: str | None = None) -> yaml.Node | None:
    """Read a YAML file, or its text where the caller has decoded it, as nodes, which know their
    line and hold every scalar as it is written; None of an empty one. Aliases and tags construct
    nothing. Raises UserError as `yaml_values`.
    """
    return _parsed(path, "", text, yaml.compose)


class _KeyTwice(yaml.MarkedYAMLError):
    """A key that stands in a mapping already."""


class _Loader(yaml.SafeLoader):
    """PyYAML's loader of plain values, but for keys that stand twice, of which it takes the
    last.
    """

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Compose a mapping. Raises _KeyTwice where two of its keys are the same text."""
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            name = key.value.strip()
            if name in seen:
                raise _KeyTwice(problem=name, problem_mark=key.start_mark)
            seen.add(name)
        return node


def _parsed(path: Path, called: str, text: str | None, parse: Callable[..., Any]) -> Any:
    """Return what `parse`, a function of PyYAML, makes of a file."""
    called = called or str(path)
    try:
        if text is None:
            text = path.read_text(encoding="utf-8-sig")
        return parse(text, Loader=_Loader)

    except _KeyTwice as error:
        raise UserError(
            f"{called}{_line(error)} has the key {error.problem!r:.80} a second time; keep one"
        ) from None
    except yaml.MarkedYAMLError as error:
        raise UserError(
            f"{called}{_line(error)} is not YAML ({_short(error.problem)}); mend that line"
        ) from None
    # ValueError: no such date, no UTF-8
    except (yaml.YAMLError, ValueError, RecursionError, OSError) as error:
        raise UserError(
            f"{called} is not YAML ({_short(error)}); mend it, and save it as plain UTF-8 text"
        ) from None


def _short(reason: object) -> str:
    """Return what PyYAML says on one line."""
    return " ".join(str(reason).split())[:120]


def _line(error: yaml.MarkedYAMLError) -> str:
    """Return `, line N` where an error stands."""
    line = 1
    if error.problem_mark:
        line += error.problem_mark.line
    return f", line {line}"
