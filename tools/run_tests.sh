#!/usr/bin/env bash
# Installs if needed, then runs the tests.
# Usage: bash tools/run_tests.sh [options of pytest]        e.g. -m "not slow", or tests/pretrain
#        bash tools/run_tests.sh --faults                   kills, full disks, hostile files: up to half an hour
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
source tools/install.sh
exec python -m pytest "$@"
