#!/usr/bin/env bash
# Runs the tests on the maintained fork of the mm packages, in .venv-onedl; installs that first if needed.
# Usage: bash tools/test_with_fork.sh [options of tools/run_tests.sh and pytest]        e.g. tests/mst_transfer/models
set -euo pipefail
MST_TRANSFER_MM=onedl exec bash "$(dirname "${BASH_SOURCE[0]}")/run_tests.sh" "$@"
