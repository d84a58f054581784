"""The scripts' environment: what is mended, and which sentence names the fix; told by interpreters
that do as a case says and note what they are asked.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from utils.common.entry import check_numpy
from utils.common.errors import UserError
from utils.common.opencv import be_silent
from utils.common.startup import ROOT

# An interpreter in whose folder files say what it lacks; `made` is what its -m venv makes.
PYTHON = """#!/bin/bash
here=$(dirname "$0")
echo "$*" >> "{log}"
case "$*" in
  "- "*)
    text=$(cat)
    if [[ $text == *too_old* ]]; then cat "$here/outdated"; exit 0; fi
    if [[ $text == *print* ]]; then cat "$here/broken"; exit 0; fi
    [ -e "$here/complete" ] && [ ! -e "$here/broken" ] ;;
  "-c ") ;;
  "-c import cv2") [ ! -e "$here/broken" ] ;;
  "-c import sys"*) [ ! -e "$here/old" ] ;;
  --version) echo "Python 3.8.1" ;;
  "-m venv"*)
    [ -e "$here/venvless" ] && printf 'ensurepip is not\n\navailable\n' && exit 1
    rm -rf .venv/* && mkdir -p .venv/bin
    cp "$here/python" .venv/bin/python && touch .venv/bin/pip ;;
  "-m pip --version") [ -e "$here/pip" ] ;;
  "-m ensurepip"*) [ -e "$here/ensurepip" ] && touch "$here/pip" ;;
  "-m pip uninstall"*) rm -f "$here/broken" ;;
  "-m pip install"*) [ ! -e "$here/offline" ] && touch "$here/complete" && rm -f "$here/outdated" ;;
esac
"""
UV = '#!/bin/bash\necho "uv $*" >> "{log}"\ntouch .venv/bin/complete\n'


def interpreter(folder: Path, log: Path, *facts: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "python").write_text(PYTHON.format(log=log))
    (folder / "python").chmod(0o755)
    for fact in facts:
        name, _, text = fact.partition("=")
        (folder / name).write_text(text)
    return folder / "python"


def used(
    folder: Path, *, uv: bool = False, python: Path | str = "", path: str = "/usr/bin:/bin"
) -> tuple[int, str, list[str]]:
    """Exit status, everything printed (last the chosen interpreter), what was asked."""
    log, tools = folder / "log", folder / "tools"
    tools.mkdir(exist_ok=True)
    if uv:
        (tools / "uv").write_text(UV.format(log=log))
        (tools / "uv").chmod(0o755)
    script = (
        f"set -euo pipefail; source {ROOT}/utils/tools/environment.sh; "
        'use_environment requirements.txt; echo "uses $PYTHON"'
    )
    ran = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env={"PATH": f"{tools}:{path}", "PYTHON": str(python), "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    asked = log.read_text().splitlines() if log.exists() else []
    return ran.returncode, ran.stdout + ran.stderr, asked


def test_an_active_environment_that_has_all_is_used(tmp_path: Path) -> None:
    python = interpreter(tmp_path / "active", tmp_path / "log", "complete")
    assert used(tmp_path, python=python)[:2] == (0, f"uses {python}\n")


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (["complete", "broken=cv2 cannot be imported (libGL.so.1)"], "opencv-python-headless"),
        (["complete", "broken=torch cannot be imported (libcudart)"], "--force-reinstall torch"),
        (["old"], "is Python 3.8.1, Python 3.10 or newer is needed; name one"),
        (["venvless"], "(ensurepip is not); install the package python3-venv of your system, or"),
        (["pip", "offline"], "could not be installed into .venv, see above"),
    ],
)
def test_what_the_script_cannot_mend_is_one_sentence_with_the_fix(
    facts: list[str], said: str, tmp_path: Path
) -> None:
    python = interpreter(tmp_path / "active", tmp_path / "log", *facts)
    if "offline" in facts:
        interpreter(tmp_path / ".venv" / "bin", tmp_path / "log", "pip", "offline")
    status, printed, _ = used(tmp_path, python=python)
    assert status == 2 and printed.splitlines()[-1].startswith("error: ") and said in printed


def test_an_interpreter_that_does_not_start_is_named(tmp_path: Path) -> None:
    status, printed, _ = used(tmp_path, python=tmp_path / "gone")
    assert status == 2 and f"{tmp_path / 'gone'} does not start; name a Python" in printed


def test_a_path_that_takes_no_environment_is_named(tmp_path: Path) -> None:
    python = interpreter(tmp_path / "active", tmp_path / "log")
    (tmp_path / "a:b").mkdir()
    status, printed, _ = used(tmp_path / "a:b", python=python)
    assert status == 2 and f"with ':' in its path ({tmp_path / 'a:b'}); move it" in printed


@pytest.mark.parametrize("stub", ["", "exit 9"])  # no python3, or one that starts nothing
def test_python_alone_is_used(stub: str, tmp_path: Path) -> None:
    python = interpreter(tmp_path / "active", tmp_path / "log", "complete")
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bash", "cat", "dirname"):
        (tools / name).symlink_to(shutil.which(name))
    (tools / "python").write_text(f'#!/bin/bash\nexec {python} "$@"\n')
    (tools / "python3").write_text(f"#!/bin/bash\n{stub}\n")
    for name in ("python", "python3")[: 1 + bool(stub)]:
        (tools / name).chmod(0o755)
    assert used(tmp_path, path=str(tools))[:2] == (0, "uses python\n")


@pytest.mark.parametrize("script", ["run_voc.sh", "run_coco.sh", "tests/run.sh"])
def test_scripts_work_in_their_own_folder_whatever_it_is_called(
    script: str, tmp_path: Path
) -> None:
    for root in (tmp_path / "-x y", tmp_path / "else" / "-x y"):
        for part in (script, "utils/tools/run.sh", "utils/tools/environment.sh"):
            (root / part).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / part, root / part)
        (root / "utils/tools/environment.sh").write_text("use_environment() { pwd; exit; }")
    ran = subprocess.run(
        ["bash", "--", f"-x y/{script}"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "CDPATH": str(tmp_path / "else")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (0, f"{tmp_path / '-x y'}\n")


def dead_python(venv: Path) -> None:
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to("/usr/bin/python3.999")


def dead_link(venv: Path) -> None:
    venv.symlink_to(venv.parent / "moved-away")


def empty_folder(venv: Path) -> None:
    venv.mkdir()


def no_interpreter(venv: Path) -> None:
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").write_text("not a program")
    (venv / "bin" / "python").chmod(0o755)


def a_file(venv: Path) -> None:
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").write_bytes(b"\x7fELF of another machine")


@pytest.mark.parametrize("make", [dead_python, dead_link, empty_folder, no_interpreter, a_file])
def test_a_venv_that_does_not_start_is_made_anew(make: object, tmp_path: Path) -> None:
    make(tmp_path / ".venv")
    python = interpreter(tmp_path / "active", tmp_path / "log")
    status, printed, asked = used(tmp_path, python=python, uv=True)
    assert status == 0 and printed.endswith("uses .venv/bin/python\n"), printed
    assert "making .venv anew" in printed and "-m venv --clear .venv" in asked


@pytest.mark.parametrize(
    ("facts", "uv", "installs"),
    [
        (["pip"], False, "-m pip install --quiet -r requirements.txt"),
        (["pip"], True, "-m pip install --quiet -r requirements.txt"),
        ([], True, "uv pip install --quiet --python .venv/bin/python -r requirements.txt"),
        (["ensurepip"], False, "-m pip install --quiet -r requirements.txt"),
    ],
)
def test_a_venv_is_filled_with_or_without_pip(
    facts: list[str], uv: bool, installs: str, tmp_path: Path
) -> None:
    interpreter(tmp_path / ".venv" / "bin", tmp_path / "log", *facts)
    python = interpreter(tmp_path / "active", tmp_path / "log")
    status, printed, asked = used(tmp_path, python=python, uv=uv)
    assert status == 0 and installs in asked, (printed, asked)


def test_a_venv_without_any_installer_names_the_way_out(tmp_path: Path) -> None:
    interpreter(tmp_path / ".venv" / "bin", tmp_path / "log")
    python = interpreter(tmp_path / "active", tmp_path / "log")
    status, printed, _ = used(tmp_path, python=python)
    assert status == 2 and ".venv has no pip, and there is no uv" in printed


def test_opencv_that_needs_a_display_is_replaced_in_the_venv(tmp_path: Path) -> None:
    broken = "broken=cv2 cannot be imported (libGL.so.1)"
    interpreter(tmp_path / ".venv" / "bin", tmp_path / "log", "pip", "complete", broken)
    python = interpreter(tmp_path / "active", tmp_path / "log")
    status, printed, asked = used(tmp_path, python=python)
    assert status == 0, printed
    replaced = asked.index("-m pip install --quiet opencv-python-headless")
    assert replaced > asked.index("-m pip install --quiet -r requirements.txt")


def test_a_good_venv_is_preferred_to_a_broken_active_environment(tmp_path: Path) -> None:
    interpreter(tmp_path / ".venv" / "bin", tmp_path / "log", "complete")
    broken = "broken=cv2 cannot be imported (libGL.so.1)"
    python = interpreter(tmp_path / "active", tmp_path / "log", "complete", broken)
    assert used(tmp_path, python=python)[:2] == (0, "uses .venv/bin/python\n")


OLD = "pillow 9.5.0 is installed, 10.1 or newer is needed"


def test_an_active_environment_with_an_old_package_is_told_and_left_alone(tmp_path: Path) -> None:
    facts = ["complete", f"outdated={OLD}", "pip", "ensurepip"]
    python = interpreter(tmp_path / "active", tmp_path / "log", *facts)
    status, printed, asked = used(tmp_path, python=python, uv=True)
    assert status == 0 and printed.endswith("uses .venv/bin/python\n"), printed
    assert printed.startswith(f"in the active environment {OLD}\nmaking the environment .venv")
    assert (tmp_path / "active" / "outdated").is_file(), asked


def test_an_old_package_of_the_venv_is_renewed(tmp_path: Path) -> None:
    interpreter(tmp_path / ".venv/bin", tmp_path / "log", "complete", f"outdated={OLD}", "pip")
    python = interpreter(tmp_path / "active", tmp_path / "log")
    status, printed, asked = used(tmp_path, python=python)
    assert (status, printed) == (0, "uses .venv/bin/python\n")
    assert "-m pip install --quiet -r requirements.txt" in asked


def test_opencv_that_cannot_be_imported_is_one_sentence_of_every_command(tmp_path: Path) -> None:
    (tmp_path / "cv2").mkdir()
    (tmp_path / "cv2" / "__init__.py").write_text("raise ImportError('libGL.so.1: cannot open')")
    words = ["-m", "datasets.prepare", "toy", "--root", tmp_path / "toy", "--train", 1, "--val", 1]
    ran = subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 2, ran.stderr
    assert "error: OpenCV cannot be imported (libGL.so.1: cannot open)" in ran.stderr
    assert "opencv-python-headless" in ran.stderr and "Traceback" not in ran.stderr


def test_numpy_that_pytorch_cannot_use_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: torch.Tensor) -> None:
        raise RuntimeError("Numpy is not available")

    check_numpy()
    monkeypatch.setattr(torch.Tensor, "numpy", fail)
    with pytest.raises(UserError, match=r"cannot use NumPy \d.*not available.*'numpy<2'"):
        check_numpy()


def test_plots_are_drawn_whatever_backend_a_notebook_has_left() -> None:
    code = "import os; import utils.report.plots; print(os.environ['MPLBACKEND'])"
    left = "module://of_another.environment"
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "MPLBACKEND": left},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (0, f"{left}\n"), ran.stderr


@pytest.mark.parametrize("place", ["utils.logging", "utils", ""])
def test_opencv_is_silenced_where_its_version_has_the_switch(place: str) -> None:
    asked: list[int] = []
    library = SimpleNamespace(setLogLevel=asked.append)
    for name in reversed(place.split(".") if place else []):
        library = SimpleNamespace(**{name: library})
    be_silent(library)
    be_silent(SimpleNamespace(utils=SimpleNamespace()))
    assert asked == [0]
