#!/usr/bin/env bash
# Same as dist_train.sh under Slurm: srun starts one task a GPU.
# Environment: GPUS (8), GPUS_PER_NODE (8 or GPUS), CPUS_PER_TASK (5), SRUN_ARGS (further words for srun), PORT.
# When time is nearly up: #SBATCH --requeue --signal=USR1@120, status 75; see _launch.sh.
set -euo pipefail
if [ $# -lt 3 ]; then
  echo "usage: bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG [options of tools/train.py]" >&2
  exit 2
fi
source "$(dirname "${BASH_SOURCE[0]}")/_launch.sh"
mst_srun "$1" "$2" train.py "${@:3}"
