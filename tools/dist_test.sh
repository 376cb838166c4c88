#!/usr/bin/env bash
# Evaluates a checkpoint on NGPUS GPUs of this node, or as NGPUS processes on the CPU where there is no GPU.
# Environment for several nodes: NNODES NODE_RANK MASTER_ADDR PORT.
set -euo pipefail
if [ $# -lt 3 ] || [[ "$1" == -* ]]; then
  echo "usage: bash tools/dist_test.sh CONFIG CHECKPOINT NGPUS [options of tools/test.py]" >&2
  exit 2
fi
source "$(dirname "${BASH_SOURCE[0]}")/_launch.sh"
mst_check_number "$3"
"$(mst_python)" "$MST_ROOT/tools/test.py" "$1" "$2" --check-only "${@:4}"
mst_launch "$3" test.py "$1" "$2" "${@:4}"
