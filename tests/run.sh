#!/usr/bin/env bash
# Set up the environment if needed and run the tests; `--all` adds the heavy ones (minutes), other flags go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=utils/tools/environment.sh
source utils/tools/environment.sh
use_environment requirements.txt tests/requirements.txt
if [ "${1:-}" = --all ]; then set -- -m "heavy or not heavy" "${@:2}"; fi
exec "$PYTHON" -m pytest tests -q "$@"
