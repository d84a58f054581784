#!/usr/bin/env bash
# Set up the environment if needed and run the tests; flags go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=utils/tools/environment.sh
source utils/tools/environment.sh
use_environment requirements.txt tests/requirements.txt
exec "$PYTHON" -m pytest tests -q "$@"
