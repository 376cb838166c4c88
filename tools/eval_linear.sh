#!/usr/bin/env bash
# A linear classifier on frozen features (DINO's protocol), on NGPUS GPUs, or as NGPUS processes on the CPU.
# DATA holds train/<class>/* and val/<class>/*.
set -euo pipefail
if [ $# -lt 3 ] || [[ "$1" == -* ]]; then
  echo "usage: bash tools/eval_linear.sh CHECKPOINT DATA NGPUS [options of tools/eval_linear.py]" >&2
  exit 2
fi
source "$(dirname "${BASH_SOURCE[0]}")/_launch.sh"
mst_check_number "$3"
mst_launch "$3" eval_linear.py "$1" "$2" "${@:4}"
