"""YAML files: every key once."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import ROOT

from utils.common.errors import UserError
from utils.common.yaml_files import yaml_nodes, yaml_values

TWICE = {
    "at the top": "a: 1\nb: 2\na: 1\n",
    "below": "a:\n  b: 1\n  b: 2\n",
    "in a list": "- {a: 1}\n- {a: 1, 'a': 2}\n",
    "a number": "0: 1\n1: 2\n0: 3\n",
    "in quotes": 'a: 1\n"a": 2\n',
    "in a merged mapping": "x: &x {a: 1, a: 2}\ny: {<<: *x}\n",
}
ONCE = {
    "in two mappings": ("a: {b: 1}\nb: {a: 1}\n", {"a": {"b": 1}, "b": {"a": 1}}),
    "in two entries": ("- a: 1\n- a: 2\n", [{"a": 1}, {"a": 2}]),
    "over a merged one": ("x: &x {a: 1}\ny: {<<: *x, a: 2}\n", {"x": {"a": 1}, "y": {"a": 2}}),
    "after a byte order mark": ("\ufeffa: 1\n", {"a": 1}),
    "in no mapping": ("", None),
}


@pytest.mark.parametrize("text", TWICE.values(), ids=TWICE)
@pytest.mark.parametrize("read", [yaml_values, yaml_nodes])
def test_a_key_that_stands_twice_is_refused(read: Callable, text: str, tmp_path: Path) -> None:
    path = tmp_path / "some.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"some.yaml, line \d has the key '\w' a second time; keep"):
        read(path)


@pytest.mark.parametrize(("text", "values"), ONCE.values(), ids=ONCE)
def test_a_key_may_stand_once_in_each_mapping(text: str, values: object, tmp_path: Path) -> None:
    path = tmp_path / "some.yaml"
    path.write_text(text, encoding="utf-8")
    assert yaml_values(path) == values


def test_one_module_reads_yaml() -> None:
    reading = re.compile(r"yaml\.(\w*load\w*|compose\w*|parse|scan)\b")
    files = [*ROOT.glob("*.py")]
    for package in ("clip", "datasets", "model", "utils"):
        files += (ROOT / package).rglob("*.py")
    assert [file.name for file in files if reading.search(file.read_text())] == ["yaml_files.py"]
