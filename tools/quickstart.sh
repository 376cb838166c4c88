#!/usr/bin/env bash
# From photos to a card: draws sample data, pre-trains on its photos, and says what that is worth beside random weights.
# Started again with the same options it goes on where it was; what other options made is left alone.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: bash tools/quickstart.sh [--seed N] [--budget full|small] [--out DIR]
  --seed N              seed of the data, the pre-training and the probes (default 0)
  --budget full|small   full: a quarter to half an hour on 2 cores; small: a few minutes, to see that all parts work (full)
  --out DIR             where everything goes (work_dirs/quickstart/seed_N, or …/small_N)
Installs into .venv first, if that was not done yet.
TEXT
}

refuse() {
  echo "quickstart: $1" >&2
  usage >&2
  exit 2
}

seed=0 budget=full out=""
while [ $# -gt 0 ]; do
  case $1 in
    --seed | --budget | --out)
      [ $# -ge 2 ] || refuse "$1 needs a value"
      printf -v "${1#--}" '%s' "$2"
      shift 2
      ;;
    -h | --help) usage && exit 0 ;;
    *) refuse "unknown option '$1'" ;;
  esac
done
[[ "$seed" =~ ^[0-9]+$ ]] || refuse "--seed $seed: it must be a whole number, 0 or more"
data=() pretrain=()
case $budget in
  full) out=${out:-work_dirs/quickstart/seed_$seed} ;;
  small)
    out=${out:-work_dirs/quickstart/small_$seed}
    data=(--num-train 32 --num-val 12 --num-photos 200)
    pretrain=(--cfg-options train_cfg.max_epochs=2 train_cfg.schedule.warmup_epochs=1)
    ;;
  *) refuse "--budget $budget: it must be full or small" ;;
esac
case $out in /*) ;; *) out=$PWD/$out ;; esac
asked="seed $seed, budget $budget" made=$(cat "$out/quickstart.txt" 2>/dev/null || true)
[ "${made:-$asked}" = "$asked" ] || refuse "$out was made with $made, not with $asked. Name another --out"

cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tools/install.sh
mkdir -p "$out"
echo "$asked" >"$out/quickstart.txt"
export MST_DATA_ROOT=$out/data
cores=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
step() { echo "== $*" && "$@"; }

step mst sample-data "$MST_DATA_ROOT/sample" --seed "$seed" ${data[@]+"${data[@]}"}
step mst pretrain pretrain/configs/mst_vit_sample.py --work-dir "$out/pretrain" --seed "$seed" --resume ${pretrain[@]+"${pretrain[@]}"}
first=$((5 * seed)) # of five draws of 32 labelled scenes
step mst evaluate "mst=$out/pretrain/teacher.safetensors" random --on sample --labels 32 \
  --seeds "$first" $((first + 1)) $((first + 2)) $((first + 3)) $((first + 4)) --tune --tune-seeds "$seed" --lr-factors 1 \
  --jobs "$((cores < 4 ? cores : 4))" --out "$out/card"
