#!/usr/bin/env bash
# Pre-trains a backbone on NGPUS GPUs of this node, or as NGPUS processes on the CPU where there is no GPU.
# Environment for several nodes: NNODES NODE_RANK MASTER_ADDR PORT. MAX_RESTARTS (0): after a process has failed.
set -euo pipefail
if [ $# -lt 2 ] || [[ "$1" == -* ]]; then
  echo "usage: bash tools/pretrain.sh CONFIG NGPUS [options of tools/pretrain.py]" >&2
  exit 2
fi
source "$(dirname "${BASH_SOURCE[0]}")/_launch.sh"
mst_check_number "$2"
# One process looks at the config and its paths first: one clear message instead of NGPUS of them.
"$(mst_python)" "$MST_ROOT/tools/pretrain.py" "$1" --check-only "${@:3}"
mst_launch "$2" pretrain.py "$1" "${@:3}"
