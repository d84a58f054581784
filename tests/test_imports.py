"""Who imports whom (design: "Imports"; style: direction of imports)."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("clip", "datasets", "model", "utils")
LEAF = "utils.errors"


def is_entry(module: str) -> bool:
    """A module that is run, not imported."""
    return "." not in module or module.startswith("utils.tools.") or module == "datasets.prepare"


def nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those under `if TYPE_CHECKING:`, which is never run."""
    left = [tree]
    while left:
        yield (node := left.pop())
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            left += ast.iter_child_nodes(node)


@cache
def imports() -> dict[str, set[str]]:
    """Modules of this repository that each of its modules imports, anywhere in its text; tests apart."""
    files = [*ROOT.glob("*.py"), *(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))]
    names = {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}
    found = {}
    for module, file in names.items():
        said = set()
        for node in nodes(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                said |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{module} has a relative import"
                said |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        found[module] = (said & set(names)) - {module, *PACKAGES}
    return found


def test_the_search_finds_imports() -> None:
    assert {"clip.model", "clip.tokenizer", LEAF} <= imports()["clip.text"]
    assert "utils.distributed" in imports()["utils.engine"]  # from utils import distributed
    assert "utils.cli" in imports()["train_voc"]


@pytest.mark.parametrize("package", ["clip", "datasets", "model"])
def test_packages_import_no_sibling_but_the_leaf(package: str) -> None:
    for module, used in imports().items():
        if module.split(".")[0] == package and not is_entry(module):
            assert all(name == LEAF or name.split(".")[0] == package for name in used), (module, used)


def test_the_leaf_imports_nothing_of_ours() -> None:
    assert not imports()[LEAF]


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
    code = f"import sys; sys.argv = ['x', '--help']; import {', '.join(scripts)}; print('imported')"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "imported\n", "")


def test_another_package_of_the_same_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "__init__.py").touch()
    code = (
        "import datasets, sys; sys.path.insert(0, sys.argv[1]); from utils.runtime import check_imports;"
        "from utils.errors import UserError\n"
        "try: check_imports()\n"
        "except UserError as error: print(error)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(ROOT)], cwd=tmp_path, capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": ""},
    )  # fmt: skip
    assert f"the package datasets is imported from {tmp_path.resolve()}" in ran.stdout and str(ROOT) in ran.stdout


def test_no_path_of_a_machine_and_no_switched_off_strictness_in_the_code() -> None:
    for file in (*ROOT.glob("*.py"), *(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))):
        text = file.read_text(encoding="utf-8")
        for smell in ("/home/", "/root/", "strict=False", ".cuda()", "weights_only=False"):
            assert smell not in text, (file.name, smell)
