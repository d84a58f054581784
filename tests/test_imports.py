"""Who imports whom: every package stands on lower floors alone."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from helpers import ROOT

PACKAGES = ("clip", "datasets", "model", "utils")
GROUND = "utils.common"
FLOORS = {  # what a package may import, beside itself
    GROUND: (),
    "clip": (GROUND,),
    "datasets": (GROUND,),
    "model": (GROUND, "clip"),
    "utils": (GROUND, "clip", "datasets", "model"),
}


def is_entry(module: str) -> bool:
    """Whether a module is run, not imported."""
    package, _, name = module.rpartition(".")
    return "." not in module or name == "__main__" or package == "utils.tools"


def lies_in(module: str, package: str) -> bool:
    """Whether a module is a package or lies in it."""
    return module == package or module.startswith(package + ".")


def floor_of(module: str) -> str:
    """The floor a module belongs to."""
    return next(package for package in FLOORS if lies_in(module, package))


def nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those under `if TYPE_CHECKING:`, which is never run."""
    left = [tree]
    while left:
        yield (node := left.pop())
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            left += ast.iter_child_nodes(node)


@cache
def imports() -> dict[str, set[str]]:
    """Modules of this repository that each of its modules imports, anywhere in its text."""
    files = [*ROOT.glob("*.py")]
    for package in PACKAGES:
        files += (ROOT / package).rglob("*.py")
    names = {}
    for file in files:
        module = ".".join(file.relative_to(ROOT).with_suffix("").parts)
        names[module.removesuffix(".__init__")] = file

    found = {}
    for module, file in names.items():
        said = set()
        for node in nodes(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                said |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{module} has a relative import"
                said |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        found[module] = (said & set(names)) - {module}

    empty = {name for name, file in names.items() if file.name == "__init__.py" and not found[name]}
    return {module: used - empty for module, used in found.items()}


def test_the_search_finds_imports() -> None:
    assert {"clip.model", "clip.tokenizer", "utils.common.errors"} <= imports()["clip.text"]
    assert "utils.common.distributed" in imports()["utils.training.loop"]
    assert "utils.cli" in imports()["train_voc"]


def test_every_floor_stands_on_lower_ones() -> None:
    for module, used in imports().items():
        if is_entry(module) and "." not in module:
            continue
        floor = floor_of(module)
        for name in used:
            assert floor_of(name) in (floor, *FLOORS[floor]), f"{module} imports {name}"


def test_the_ground_holds_only_what_several_packages_use() -> None:
    users = {module: set() for module in imports() if lies_in(module, GROUND) and module != GROUND}
    for module, used in imports().items():
        for name in used & users.keys():
            users[name].add(".".join(module.split(".")[:2]))
    for module, packages in users.items():
        inner = packages == {GROUND}  # a part of another one there
        assert len(packages) > 1 or inner, f"{module} is used by {packages} alone; it belongs there"


def test_entry_modules_are_imported_by_nobody() -> None:
    for module, used in imports().items():
        assert not [name for name in used if is_entry(name)], (module, used)


def test_there_are_no_cycles() -> None:
    left = dict(imports())
    while free := [module for module, used in left.items() if not used & left.keys()]:
        left = {module: used for module, used in left.items() if module not in free}
    assert not left


def test_entry_scripts_can_be_imported_without_running() -> None:
    scripts = [path.stem for path in ROOT.glob("*.py")]
    assert len(scripts) >= 4
    code = (
        f"import sys; sys.argv = ['x', '--help']; import {', '.join(scripts)}; print('imported')\n"
        "assert 'matplotlib' not in sys.modules  # a second of every command's start"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "imported\n", "")


def test_another_package_of_the_same_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "__init__.py").touch()
    code = (
        "import datasets, sys; sys.path.insert(0, sys.argv[1])\n"
        "from utils.common.entry import check_imports\n"
        "from utils.common.errors import UserError\n"
        "try: check_imports()\n"
        "except UserError as error: print(error)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(ROOT)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": ""},
    )
    assert f"the package datasets is imported from {tmp_path.resolve()}" in ran.stdout
    assert str(ROOT) in ran.stdout


@pytest.mark.parametrize(
    "smell", ["/home/", "/root/", "strict=False", ".cuda()", "weights_only=False"]
)
def test_no_path_of_a_machine_and_no_switched_off_strictness_in_the_code(smell: str) -> None:
    files = [*ROOT.glob("*.py")]
    for package in PACKAGES:
        files += (ROOT / package).rglob("*.py")
    for file in files:
        assert smell not in file.read_text(encoding="utf-8"), file
