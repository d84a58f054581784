"""What a command says where it cannot begin: packages that are not installed, another Python,
Ctrl-C while it is imported.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from utils.common import startup
from utils.common.entry import command
from utils.common.startup import ROOT

COMMANDS = {
    "a script": ("train_voc.py", "--config", "toy_voc"),
    "a tool": ("-m", "utils.tools.score", "--help"),
    "data": ("-m", "datasets.prepare", "toy", "--root", "x"),
}
FIRST = "numpy.py"  # the package that the tool imports before all others


def bare(folder: Path, *words: str, path: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """A command of a Python that has no packages beside its own and those of `path`."""
    own = {**os.environ, "PYTHONPATH": str(path)}
    own.pop("PYTHONSAFEPATH", None)
    return subprocess.run(
        [sys.executable, "-S", *words],
        cwd=folder,
        env=own,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("kind", COMMANDS)
def test_without_packages_a_command_says_which_environment_it_wants(kind: str) -> None:
    ran = bare(ROOT, *COMMANDS[kind])
    assert (ran.returncode, ran.stdout, len(ran.stderr.splitlines())) == (2, "", 1)
    assert ran.stderr.startswith(f"error: {sys.executable} has no module ")
    assert "pip install -r requirements.txt" in ran.stderr


def test_a_program_that_is_not_ours_keeps_its_traceback(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("import utils.inference\n")
    ran = bare(tmp_path, "own.py")
    assert ran.returncode == 1 and ran.stderr.startswith("Traceback")
    assert ran.stderr.splitlines()[-1].startswith("ModuleNotFoundError")


def test_a_module_that_a_package_lacks_itself_is_told_by_its_traceback(tmp_path: Path) -> None:
    (tmp_path / FIRST).write_text("import absent_part\n")
    ran = bare(ROOT, *COMMANDS["a tool"], path=tmp_path)
    assert ran.returncode == 1 and "No module named 'absent_part'" in ran.stderr.splitlines()[-1]


def test_ctrl_c_while_packages_are_imported_leaves_no_traceback(tmp_path: Path) -> None:
    (tmp_path / FIRST).write_text("raise KeyboardInterrupt\n")
    ran = bare(ROOT, *COMMANDS["a tool"], path=tmp_path)
    assert (ran.returncode, ran.stdout, ran.stderr) == (130, "", "interrupted\n")


@pytest.mark.parametrize("way", ["", "the same command goes on"])
def test_an_interrupted_command_promises_only_what_it_can_do(
    way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> None:
        raise KeyboardInterrupt(*filter(None, [way]))

    with pytest.raises(SystemExit) as ended:
        command(main)()
    said = capsys.readouterr().err
    assert ended.value.code == 130 and said.startswith("interrupted; what is written is kept")
    assert said.removeprefix("interrupted; what is written is kept") == (
        f": {way}\n" if way else "\n"
    )


def test_a_python_that_is_too_old_is_told_as_such(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(startup, "OLDEST", (99, 0))
    with pytest.raises(SystemExit) as ended:
        startup.answer_for_commands()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert f"is Python {sys.version.split()[0]}, 99.0 or newer is needed" in said
