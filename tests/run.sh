#!/usr/bin/env bash
# Set up the environment if needed and run the tests, or those that are named; `--all` adds the
# heavy ones (minutes). Other flags go to pytest. Two processes share the whole.
set -euo pipefail
unset CDPATH # by which cd may go to a folder of the same name elsewhere
cd -- "$(dirname -- "$0")/.."

# shellcheck source=utils/tools/environment.sh
source utils/tools/environment.sh
use_environment requirements.txt tests/requirements.txt

# operations of small tests take longer to share between threads than to do
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

if [ "${1:-}" = --all ]; then set -- -m "heavy or not heavy" "${@:2}"; fi
every=(-n 2 --dist worksteal tests)
for word in "$@"; do if [ -e "${word%%::*}" ]; then every=(); fi; done
exec "$PYTHON" -m pytest -q ${every[@]+"${every[@]}"} "$@"
