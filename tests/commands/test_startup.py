"""What a command says where it cannot begin: packages that are not installed or too old, another
Python, Ctrl-C while it is imported.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from utils.common import startup
from utils.common.entry import command
from utils.common.startup import ROOT
from utils.common.versions import too_old

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


def pretend(folder: Path, package: str, version: str) -> None:
    """Have a package of this version in a folder, by what is told of it alone."""
    told = folder / f"{package}-{version}.dist-info"
    told.mkdir()
    (told / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")


@pytest.mark.parametrize("broken", [True, False])
def test_a_package_that_is_too_old_is_one_sentence(broken: bool, tmp_path: Path) -> None:
    pretend(tmp_path, "pillow", "9.5.0")
    if broken:  # while it is imported
        (tmp_path / FIRST).write_text("raise AttributeError('the old package has no such name')\n")
    ran = subprocess.run(
        [sys.executable, *COMMANDS["a tool"]],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == (
        f"error: {sys.executable}: pillow 9.5.0 is installed, 10.1 or newer is needed; "
        "`pip install -r requirements.txt`\n"
    )


@pytest.mark.parametrize(
    ("version", "oldest", "old"),
    [
        ("2.1.2+cu121", "2.2", True),
        ("2.2.0", "2.2", False),
        ("2.2", "2.2.0", False),
        ("2.10.0a0+git1", "2.9", False),
    ],
)
def test_versions_are_compared_by_their_numbers(
    version: str, oldest: str, old: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(tmp_path, "example", version)
    monkeypatch.syspath_prepend(tmp_path)
    wanted = tmp_path / "requirements.txt"
    wanted.write_text(f"# one>=9\nexample>={oldest},<99\nnot-installed>=1\nwithout-a-bound\n")
    told = f"example {version} is installed, {oldest} or newer is needed"
    assert list(too_old(wanted)) == [told] * old


@pytest.mark.parametrize(
    "versions", [["1.9", "2.1"], ["0+unknown"], ["0.1.dev1+gabc"], ["unknown"]], ids=str
)
def test_records_of_an_earlier_version_and_of_none_are_passed_over(
    versions: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in versions:
        pretend(tmp_path, "example", version)
    monkeypatch.syspath_prepend(tmp_path)
    wanted = tmp_path / "requirements.txt"
    wanted.write_text("example>=2.0\n")
    assert not list(too_old(wanted))


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
