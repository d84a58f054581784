"""What looks after the code: the set-up installs every tool, the workflow asks for what CI does."""

import ast
import re
import sys

import pytest
import yaml
from helpers import ROOT

ENVIRONMENT = ROOT / "utils" / "tools" / "environment.sh"
WORKFLOW = ROOT / ".github" / "workflows" / "tests.yml"
MODULES = {"pillow": "PIL", "opencv-python": "cv2", "pyyaml": "yaml", "pytest-xdist": "xdist"}
UNUSED = {"torchvision"}  # installed beside torch, so that the two fit; nothing imports it
# Gradio and Starlette are of the demo page; Triton comes with PyTorch where there is one for it.
OPTIONAL = {"pydensecrf", "gradio", "starlette", "triton"}
PACKAGES = ("clip", "datasets", "model", "utils")
CHECKS = ["ruff check .", "ruff format --check .", "mypy"]


def required(name: str) -> set[str]:
    """Modules of the packages that a requirements file lists."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    packages = {
        re.split(r"[<>=]", line)[0].strip() for line in lines if line and not line.startswith("#")
    }
    return {MODULES.get(package, package) for package in packages - UNUSED}


def test_the_set_up_looks_for_every_package_that_is_required() -> None:
    script = ENVIRONMENT.read_text(encoding="utf-8")
    base, tests = (set(words.split()) for words in re.findall(r"modules\+?=\(([^)]*)\)", script))
    assert base == required("requirements.txt")
    assert tests == required("tests/requirements.txt")


def imported() -> set[str]:
    """Packages of others that the code imports, anywhere in its text."""
    files = [*ROOT.glob("*.py"), *(f for name in PACKAGES for f in (ROOT / name).rglob("*.py"))]
    names: set[str] = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module)

    if "torch.utils.tensorboard" in names:  # which needs the package of that name
        names.add("tensorboard")
    packages = {name.partition(".")[0] for name in names}
    return packages - sys.stdlib_module_names - {*PACKAGES, *OPTIONAL}


def test_every_package_that_is_imported_is_required_and_no_other() -> None:
    assert imported() == required("requirements.txt")


def test_the_workflow_makes_the_same_checks_as_ci() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert re.findall(r'^"\$PYTHON" -m (.*)$', script, re.M) == CHECKS
    assert script.splitlines()[-1] == "bash tests/run.sh"

    jobs = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"]
    steps = [step.get("run", "") for step in jobs["style"]["steps"]]
    assert [step.removeprefix("python -m ") for step in steps[-len(CHECKS) :]] == CHECKS
    assert jobs["tests"]["steps"][-1]["run"] == "bash tests/run.sh"


def test_the_workflow_tries_every_python_and_system() -> None:
    workflow = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))
    assert "schedule" in workflow[True]  # YAML reads `on` as a truth value
    matrix = workflow["jobs"]["tests"]["strategy"]["matrix"]
    assert matrix["python"] == ["3.10", "3.11", "3.12", "3.13"]
    systems = [*matrix["os"], *(case["os"] for case in matrix["include"])]
    assert [name.split("-")[0] for name in systems] == ["ubuntu", "macos", "windows"]


def test_no_module_is_left_out_of_the_type_checks() -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mypy"]
    assert {*PACKAGES, "*.py"} == set(settings["files"]) and "exclude" not in settings
    for override in settings["overrides"]:
        assert not override.get("ignore_errors")
        assert not {module.partition(".")[0] for module in override["module"]} & {*PACKAGES}
