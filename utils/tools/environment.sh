# shellcheck shell=bash
# Sourced by the scripts. Leaves in PYTHON an interpreter that has every package of the given
# requirements files, none too old: the active environment if it has them all, else .venv in this
# folder, made, mended and filled if needed.

# the packages of this folder are found from within it, as scripts and `python -m` do by default
unset PYTHONSAFEPATH

refuse() { # words of a sentence
  echo "error: $*" >&2
  exit 2
}

complete() { # interpreter: whether every module is there, none too old, and cv2 and torch work
  "$1" - "${modules[@]}" <<'PY' 2>/dev/null && [ -z "$(what_is_old "$1")" ]
import importlib.util, sys
absent = [name for name in sys.argv[1:] if importlib.util.find_spec(name) is None]
if sys.version_info < (3, 10) or absent:
    sys.exit(1)
import cv2, torch
PY
}

what_is_old() { # interpreter: its packages that are older than the requirements files ask for
  "$1" - "${requirements[@]}" <<'PY' 2>/dev/null || true
import sys
from utils.common.versions import too_old
print(*(said for file in sys.argv[1:] for said in too_old(file)), sep="; ")
PY
}

what_is_broken() { # interpreter that has every module: one that cannot be imported, and why
  "$1" - "${modules[@]}" <<'PY' 2>/dev/null
import importlib, importlib.util, sys
if any(importlib.util.find_spec(name) is None for name in sys.argv[1:]):
    sys.exit()
for name in ("cv2", "torch"):
    try:
        importlib.import_module(name)
    except Exception as error:
        print(name, "cannot be imported", f"({error})")
        break
PY
}

is_new_enough() { # interpreter
  "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))'
}

choose_python() { # leaves in PYTHON what the user named, else python3, else python
  if [ -n "${PYTHON:-}" ]; then return; fi
  PYTHON=python3
  # Windows and some environments have python alone, Windows a python3 that starts nothing
  if ! python3 -c '' 2>/dev/null && python -c '' 2>/dev/null; then PYTHON=python; fi
}

make_environment() { # makes .venv by PYTHON; one whose interpreter does not start is made anew
  local said
  "$PYTHON" -c '' 2>/dev/null ||
    refuse "$PYTHON does not start; name a Python of 3.10 or newer: PYTHON=python3.11 bash ..."
  is_new_enough "$PYTHON" ||
    refuse "$PYTHON is $("$PYTHON" --version 2>&1), Python 3.10 or newer is needed;" \
      "name one: PYTHON=python3.11 bash ..."

  case $PWD in
    *:*) refuse "Python makes no environment in a folder with ':' in its path ($PWD); move it, or" \
      "activate an environment that has the packages of requirements.txt" ;;
  esac
  [ -w . ] ||
    refuse "nothing can be written in $PWD, where the environment .venv is to be made; make it" \
      "writable, or activate an environment that has the packages of requirements.txt"
  if [ -e .venv ] || [ -L .venv ]; then
    echo "the interpreter of .venv does not start, as after an upgrade of Python:" \
      "making .venv anew"
    if [ -L .venv ]; then rm .venv; fi
  fi
  echo "making the environment .venv (once; PyTorch with CUDA is a download of several GB," \
    "see README for CPU only)"

  if said=$("$PYTHON" -m venv --clear .venv 2>&1); then return; fi
  if "$PYTHON" -m venv --clear --without-pip .venv >/dev/null 2>&1 &&
    command -v uv >/dev/null; then return; fi
  said=${said%%$'\n'*} # the reason; what else it says are commands
  refuse "$PYTHON cannot make .venv with pip ($said); install the package python3-venv of your" \
    "system, or uv, and run this again"
}

choose_installer() { # leaves in installer and target what installs into PYTHON, by pip or uv
  target=()
  if "$PYTHON" -m pip --version >/dev/null 2>&1; then
    installer=("$PYTHON" -m pip)
  elif command -v uv >/dev/null; then
    installer=(uv pip)
    target=(--python "$PYTHON")
  elif "$PYTHON" -m ensurepip --default-pip >/dev/null 2>&1; then
    installer=("$PYTHON" -m pip)
  else
    refuse ".venv has no pip, and there is no uv to install with; remove the folder .venv, or" \
      "install uv, and run this again"
  fi
}

refuse_broken() { # refuses an active environment that has all packages, of which one is broken
  local broken
  broken=$(what_is_broken "$PYTHON" || true)
  case $broken in
    cv2*) refuse "$PYTHON has every package, but $broken; there, pip uninstall opencv-python" \
      "and pip install opencv-python-headless" ;;
    ?*) refuse "$PYTHON has every package, but $broken; there, pip install --force-reinstall" \
      "torch torchvision" ;;
  esac
}

use_environment() { # requirements files; the tests' file asks for the tests' modules too
  modules=(
    torch numpy PIL cv2 tqdm ftfy regex safetensors tensorboard yaml
    defusedxml scipy pycocotools jinja2 markupsafe matplotlib filelock timm
  )
  requirements=("$@")
  local file old arguments=() yes=()
  for file in "$@"; do
    arguments+=(-r "$file")
    if [ "$file" = tests/requirements.txt ]; then
      modules+=(pytest xdist hypothesis playwright ruff mypy)
    fi
  done

  choose_python
  if complete "$PYTHON"; then return; fi
  if complete .venv/bin/python; then PYTHON=.venv/bin/python && return; fi
  refuse_broken

  if ! .venv/bin/python -c '' 2>/dev/null; then
    old=$(what_is_old "$PYTHON")
    if [ -n "$old" ]; then echo "in the active environment $old"; fi
    make_environment
  fi
  PYTHON=.venv/bin/python
  is_new_enough "$PYTHON" ||
    refuse ".venv is of $("$PYTHON" --version 2>&1), Python 3.10 or newer is needed; remove the" \
      "folder .venv and run this again"

  choose_installer
  # which build of PyTorch the GPU's driver runs
  "$PYTHON" -c 'from utils.common.gpu import setup_note; print(setup_note(), end="")'
  "${installer[@]}" install --quiet ${target[@]+"${target[@]}"} "${arguments[@]}" ||
    refuse "the packages could not be installed into .venv, see above; run this again when that" \
      "is mended"

  if ! "$PYTHON" -c 'import cv2' 2>/dev/null; then # no display libraries on this machine
    if [ "${installer[0]}" != uv ]; then yes=(--yes); fi
    "${installer[@]}" uninstall --quiet ${yes[@]+"${yes[@]}"} ${target[@]+"${target[@]}"} \
      opencv-python
    "${installer[@]}" install --quiet ${target[@]+"${target[@]}"} opencv-python-headless
  fi
  if complete "$PYTHON"; then return; fi
  old=$(what_is_old "$PYTHON")
  refuse ".venv is still not complete: ${old:-$(what_is_broken "$PYTHON")}; remove the folder" \
    ".venv and run this again"
}
