#!/usr/bin/env bash
# Same as dist_test.sh under Slurm: srun starts one task a GPU.
# Environment: GPUS (8), GPUS_PER_NODE (8 or GPUS), CPUS_PER_TASK (5), SRUN_ARGS (further words for srun), PORT.
set -euo pipefail
if [ $# -lt 4 ]; then
  echo "usage: bash tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [options of tools/test.py]" >&2
  exit 2
fi
source "$(dirname "${BASH_SOURCE[0]}")/_launch.sh"
mst_srun "$1" "$2" test.py "${@:3}"
