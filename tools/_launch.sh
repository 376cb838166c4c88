# Sourced by the launchers beside it.
#   mst_python                     prints the interpreter to use: that of an active environment, PYTHON, .venv's, python
#   mst_launch NPROC SCRIPT ARGS   runs tools/SCRIPT: one process, or NPROC of them on this node under torchrun
# SIGINT, SIGTERM or SIGUSR1 to the launcher: all processes finish their step, save and stop; status 130 for SIGINT, 75
# for the others ("run the same with --resume"). In a batch job, `#SBATCH --signal=B:USR1@120` and `exec bash tools/…`.
# Environment: MAX_RESTARTS (0), how often all processes are started again, from the newest checkpoint, if one fails.
# For several nodes: NNODES (1), MASTER_ADDR, PORT (29500), NODE_RANK (0 on the one of MASTER_ADDR): see docs/cluster.md.
# On a machine without a GPU the processes run on the CPU and talk through gloo.

MST_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

mst_python() {
  if [ -n "${VIRTUAL_ENV:-}" ] && [ -x "$VIRTUAL_ENV/bin/python" ]; then
    echo "$VIRTUAL_ENV/bin/python"
  elif [ -n "${PYTHON:-}" ]; then
    echo "$PYTHON"
  elif [ -x "$MST_ROOT/.venv/bin/python" ]; then
    echo "$MST_ROOT/.venv/bin/python"
  else
    command -v python || command -v python3
  fi
}

mst_check_number() {
  if ! [[ "$1" =~ ^[1-9][0-9]*$ ]]; then
    echo "$(basename "$0"): NGPUS=$1: it must be a whole number, 1 or more" >&2
    exit 2
  fi
}

mst_launch() {
  exec "$(mst_python)" "$MST_ROOT/tools/_torchrun.py" "$1" "$MST_ROOT/tools/$2" "${@:3}"
}

#   mst_srun PARTITION JOB_NAME SCRIPT ARGS   the same under Slurm, one task a GPU
# Two minutes before a job's time is up, and when it is preempted, let Slurm tell the tasks, and start the job again:
#   #SBATCH --requeue --open-mode=append
#   #SBATCH --signal=USR1@120                                                    (no B: it is for the tasks of srun)
#   bash tools/slurm_train.sh … || { [ $? -eq 75 ] && scontrol requeue "$SLURM_JOB_ID"; }
# A job that Slurm has started again goes on with its newest checkpoint, with or without --resume. From a login node,
# without sbatch: SRUN_ARGS="--signal=USR1@120".
mst_srun() {
  local partition=$1 job_name=$2 script=$3 gpus=${GPUS:-8} per_node extra=()
  shift 3
  per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}
  if ! command -v srun >/dev/null; then
    echo "$(basename "$0"): no 'srun' here: this is not a Slurm machine. Next step: tools/dist_train.sh or tools/pretrain.sh" >&2
    exit 1
  fi
  [ -z "${PORT:-}" ] || export MASTER_PORT=$PORT
  [ -z "${SRUN_ARGS:-}" ] || read -r -a extra <<<"$SRUN_ARGS"
  exec srun --partition "$partition" --job-name "$job_name" --ntasks "$gpus" --ntasks-per-node "$per_node" \
    --gres "gpu:$per_node" --cpus-per-task "${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 ${extra[@]+"${extra[@]}"} \
    "$(mst_python)" -u "$MST_ROOT/tools/$script" "$@" --launcher slurm
}
