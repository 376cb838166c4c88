#!/usr/bin/env bash
# Same as pretrain.sh under Slurm: srun starts one task a GPU.
# Environment: GPUS (8), GPUS_PER_NODE (8 or GPUS), CPUS_PER_TASK (5), SRUN_ARGS (further words for srun), PORT.
# When time is nearly up: #SBATCH --requeue --signal=USR1@120, status 75; see _launch.sh.
set -euo pipefail
if [ $# -lt 3 ]; then
  echo "usage: bash tools/slurm_pretrain.sh PARTITION JOB_NAME CONFIG [options of tools/pretrain.py]" >&2
  exit 2
fi
source "$(dirname "${BASH_SOURCE[0]}")/_launch.sh"
mst_srun "$1" "$2" pretrain.py "${@:3}"
