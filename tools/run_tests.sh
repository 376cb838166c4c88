#!/usr/bin/env bash
# Installs if needed, then runs the tests: whole files are shared out to as many processes as there are cores, at most four.
# Usage: bash tools/run_tests.sh [options of pytest]        e.g. -m "not slow", or tests/pretrain
#        bash tools/run_tests.sh -n 0                       in one process; so do -s, -x, -p, --pdb, and single test files
#        bash tools/run_tests.sh --faults                   kills, full disks, hostile files: up to half an hour
#        bash tools/run_tests.sh --walk                     every recipe from data to figure at its real image size
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
source tools/install.sh

export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
cores=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
share=(-n "$((cores < 4 ? cores : 4))" --dist loadfile --no-loadscope-reorder)
for word in "$@"; do
  case $word in --faults | --walk) share[3]=load ;; esac # long tests: one at a time
done
((cores > 1)) || share=()
for word in "$@"; do
  case $word in
    -n* | --numprocesses* | --dist* | -p | -p?* | -s | -x | --exitfirst | --pdb | --trace | --co | \
      --collect-only | --capture=no | *.py | *::*) share=() ;;
  esac
done
exec python -m pytest ${share[@]+"${share[@]}"} "$@"
