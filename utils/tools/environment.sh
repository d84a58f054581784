# shellcheck shell=bash
# Sourced by the scripts. Leaves in PYTHON an interpreter that has every package of the given
# requirements files: the active environment if it has them all, else .venv in this folder, made and
# filled if needed.

complete() { # interpreter: whether every module is there
  "$1" - "${modules[@]}" <<'PY' 2>/dev/null
import importlib.util, sys
sys.exit(any(importlib.util.find_spec(name) is None for name in sys.argv[1:]))
PY
}

use_environment() { # requirements files; the tests' file asks for the tests' modules too
  modules=(
    torch numpy PIL cv2 tqdm ftfy regex imageio safetensors tensorboard yaml
    defusedxml scipy pycocotools jinja2 matplotlib filelock timm
  )
  local file arguments=()
  for file in "$@"; do
    arguments+=(-r "$file")
    if [ "$file" = tests/requirements.txt ]; then
      modules+=(pytest hypothesis playwright ruff mypy)
    fi
  done

  PYTHON=${PYTHON:-python3}
  if complete "$PYTHON"; then return; fi

  if [ ! -x .venv/bin/python ]; then
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
      echo "error: $PYTHON is $("$PYTHON" --version 2>&1), Python 3.10 or newer is needed;" \
        "name one: PYTHON=python3.11 bash ..." >&2
      exit 2
    }
    echo "making the environment .venv (once; PyTorch with CUDA is a download of several GB," \
      "see README for CPU only)"
    "$PYTHON" -m venv .venv
  fi
  PYTHON=.venv/bin/python
  if complete "$PYTHON"; then return; fi

  # which build of PyTorch the GPU's driver runs
  "$PYTHON" -c 'from utils.common.gpu import setup_note; print(setup_note(), end="")'
  "$PYTHON" -m pip install --quiet "${arguments[@]}"
  if ! "$PYTHON" -c 'import cv2' 2>/dev/null; then # no display libraries on this machine
    "$PYTHON" -m pip uninstall --quiet --yes opencv-python
    "$PYTHON" -m pip install --quiet opencv-python-headless
  fi
}
