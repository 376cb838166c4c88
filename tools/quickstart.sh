#!/usr/bin/env bash
# From photos to mAP and mIoU: makes data, pre-trains, trains both heads from MST and from random weights, reports.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: bash tools/quickstart.sh [options]
  --seed N              seed of the data and of every run (default 0)
  --budget full|small   full: under 15 minutes on 2 cores; small: a few minutes, to see that all parts work (full)
  --out DIR             where everything goes (work_dirs/quickstart)
  --starts "mst random" which starts to train (both)
  --photographs DIR     real photographs instead of the sample data: DIR holds photos/, coco_mini/ and camvid/;
                        hours rather than minutes
  --resume              keep what is finished in DIR and go on
  --fresh               start anew in a used DIR: what is there is moved to its folder earlier_1, ...
Installs into .venv first, if that was not done yet.
TEXT
}

refuse() {
  echo "quickstart: $1" >&2
  usage >&2
  exit 2
}

seed=0 budget=full out=work_dirs/quickstart resume=no fresh=no starts="mst random" photographs=""
while [ $# -gt 0 ]; do
  case $1 in
    --seed | --budget | --out | --starts | --photographs)
      [ $# -ge 2 ] || refuse "$1 needs a value"
      printf -v "${1#--}" '%s' "$2"
      shift 2
      ;;
    --resume) resume=yes && shift ;;
    --fresh) fresh=yes && shift ;;
    -h | --help) usage && exit 0 ;;
    *) refuse "unknown option '$1'" ;;
  esac
done
[[ "$seed" =~ ^[0-9]+$ ]] || refuse "--seed $seed: it must be a whole number, 0 or more"
[ -z "$photographs" ] || [ "$budget" = full ] || refuse "--photographs goes with --budget full only"
[[ "$budget" =~ ^(full|small)$ ]] || refuse "--budget $budget: it must be full or small"
[ -n "$out" ] || refuse "--out must not be empty"
[ "$resume$fresh" != yesyes ] || refuse "--resume goes on, --fresh starts anew: give one of them"
read -r -a starts <<<"${starts//,/ }"
[ ${#starts[@]} -gt 0 ] || refuse "--starts is empty: it must be mst, random or both"
for start in "${starts[@]}"; do
  [[ "$start" =~ ^(mst|random)$ ]] || refuse "--starts: unknown start '$start'; it must be mst, random or both"
done

for folder in photos coco_mini camvid; do
  [ -z "$photographs" ] || [ -d "$photographs/$folder" ] || refuse "--photographs $photographs: there is no $folder/ in it"
done
[ -z "$photographs" ] || photographs=$(cd "$photographs" && pwd)

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
case $out in /*) ;; *) out=$PWD/$out ;; esac
cd "$root"
case $out in "$root"/*) out=${out#"$root"/} ;; esac # short paths in the report
begun=$SECONDS
logs=$out/logs

# Refuses to touch what is in $out already, runs of an earlier call or of the user's own, or moves it aside.
asked="seed $seed, budget $budget${photographs:+, photographs $photographs}"
look_at_folder() {
  local before="" there=() name number=1
  for name in pretrain {det,seg}_{mst,random} report logs done report.html stages.tsv quickstart.txt; do
    [ ! -e "$out/$name" ] || there+=("$name")
  done
  [ ! -f "$out/quickstart.txt" ] || before=$(cat "$out/quickstart.txt")
  if [ ${#there[@]} -gt 0 ] && [ "$fresh" = yes ]; then
    while [ -e "$out/earlier_$number" ]; do number=$((number + 1)); done
    mkdir "$out/earlier_$number"
    for name in "${there[@]}"; do mv "$out/$name" "$out/earlier_$number/"; done
    echo "quickstart: what was in $out is now in $out/earlier_$number"
  elif [ ${#there[@]} -gt 0 ] && { [ "$resume" = no ] || [ "$before" != "$asked" ]; }; then
    echo "quickstart: $out holds ${there[*]}, made with ${before:-other commands}, and you ask for $asked. Next step:" \
      "--resume to go on with the same, another --out, or --fresh, which moves them to $out/earlier_$number" >&2
    exit 1
  fi
}

look_at_folder
# shellcheck disable=SC1091
source tools/install.sh
mkdir -p "$out/done" "$logs"
echo "$asked" >"$out/quickstart.txt"

# Seconds that each stage took on 2 cores, for the time left; and what the small budget changes.
if [ "$budget" = full ]; then
  plan=(0 10 330 10 180 80 40)
  data=() pretrain=() det=() seg=()
else
  plan=(0 5 20 8 30 30 20)
  data=(--num-train 24 --num-val 8 --num-photos 96)
  pretrain=(train_cfg.max_epochs=3 train_cfg.schedule.warmup_epochs=1)
  det=(train_cfg.max_epochs=8 param_scheduler.1.T_max=8)
  seg=(train_cfg.max_iters=60 train_cfg.val_interval=60 param_scheduler.1.T_max=60 default_hooks.checkpoint.interval=60)
fi
stages=(install "sample data" pre-training "pre-training pictures" detection segmentation report)
if [ -z "$photographs" ]; then
  export MST_DATA_ROOT=$out/data
  photos=("$MST_DATA_ROOT/sample/photos")
  configs=(pretrain/configs/mst_vit_sample.py det_configs/mst_maskrcnn_sample.py seg_configs/mst_setr_pup_sample.py)
else
  export MST_DATA_ROOT=$photographs
  photos=("$photographs"/{photos/val,coco_mini/val,camvid/leftImg8bit/val})
  configs=(pretrain/configs/mst_vit_photos.py det_configs/mst_maskrcnn_coco_mini.py seg_configs/mst_setr_pup_camvid.py)
  plan=(0 0 1800 20 900 600 60) stages[1]=photographs
fi
cores=$(python -c 'import os; print(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())')

clock() { printf '%d:%02d' $(($1 / 60)) $(($1 % 60)); }

# Seconds that are left: of this stage as its newest log line says (mmengine's "eta"), else as planned; then the others.
seconds_left() {
  local stage=$1 elapsed=$2 log=$3 left eta later h m s
  left=$((plan[stage] - elapsed))
  eta=$(tail -n 20 "$log" 2>/dev/null | grep -o 'eta: [0-9]*:[0-9]*:[0-9]*' | tail -n 1 | cut -d' ' -f2 || true)
  if [ -n "$eta" ]; then
    IFS=: read -r h m s <<<"$eta"
    left=$((10#$h * 3600 + 10#$m * 60 + 10#$s))
  fi
  [ "$left" -gt 0 ] || left=0
  for ((later = stage + 1; later < ${#plan[@]}; later++)); do left=$((left + plan[later])); done
  echo "$left"
}

progress() { # STAGE STARTED LOG END_OF_LINE
  local left
  left=$(seconds_left "$1" $((SECONDS - $2)) "$3")
  printf '[%d/%d] %-22s %s elapsed, about %s left   %s' $(($1 + 1)) ${#stages[@]} "${stages[$1]}" \
    "$(clock $((SECONDS - begun)))" "$(clock "$left")" "$4"
}

running=()
stop_children() {
  local pid
  for pid in ${running[@]+"${running[@]}"}; do kill "$pid" 2>/dev/null || true; done
}
trap stop_children EXIT
trap 'exit 130' INT TERM

# start_job NAME COMMAND...: run in the background with its log; finish_jobs STAGE: wait for all, showing progress.
names=() commands=() started_at=()
start_job() {
  local name=$1
  shift
  names+=("$name") commands+=("$*") started_at+=("$SECONDS")
  "$@" >"$logs/$name.log" 2>&1 &
  running+=($!)
}

finish_jobs() {
  local stage=$1 started=$SECONDS shown=-60 alive index
  while :; do
    alive=0
    for index in "${!running[@]}"; do
      [ -n "${running[index]}" ] || continue
      if kill -0 "${running[index]}" 2>/dev/null; then alive=1; else finish_job "$index"; fi
    done
    [ "$alive" -eq 1 ] || break
    if [ -t 1 ]; then
      progress "$stage" "$started" "$logs/${names[0]}.log" $'\r'
    elif [ $((SECONDS - shown)) -ge 60 ]; then
      shown=$SECONDS
      progress "$stage" "$started" "$logs/${names[0]}.log" $'\n'
    fi
    sleep 1
  done
  names=() commands=() started_at=() running=()
  [ ! -t 1 ] || printf '\r\033[K'
  printf '[%d/%d] %-22s done in %s\n' $((stage + 1)) ${#stages[@]} "${stages[stage]}" "$(clock $((SECONDS - started)))"
}

finish_job() { # INDEX: of a process that has ended
  local index=$1 status=0 seconds
  wait "${running[index]}" || status=$?
  running[index]=""
  if [ "$status" -ne 0 ]; then
    printf '\nquickstart: %s failed with status %d: %s\n' "${names[index]}" "$status" "${commands[index]}" >&2
    echo "the last lines of $logs/${names[index]}.log:" >&2
    tail -n 30 "$logs/${names[index]}.log" >&2
    exit 1
  fi
  seconds=$((SECONDS - started_at[index]))
  touch "$out/done/${names[index]}"
  printf '%s\t%d.%d\t%s\n' "${names[index]}" $((seconds / 60)) $((seconds % 60 * 10 / 60)) \
    "MST_DATA_ROOT=$MST_DATA_ROOT ${commands[index]}" >>"$out/stages.tsv"
}

is_done() { [ "$resume" = yes ] && [ -f "$out/done/$1" ]; }

one_job_stage() { # STAGE NAME COMMAND...
  if [ "$2" != report ] && is_done "$2"; then
    echo "[$(($1 + 1))/${#stages[@]}] ${stages[$1]}: finished before"
    return
  fi
  start_job "${@:2}"
  finish_jobs "$1"
}

head_stage() { # STAGE TASK CONFIG OPTIONS...: train one head from every start, side by side if there are cores
  local stage=$1 task=$2 config=$3 options=("${@:4}") start checkpoint left=()
  for start in "${starts[@]}"; do is_done "${task}_$start" || left+=("$start"); done
  if [ ${#left[@]} -eq 0 ]; then
    echo "[$((stage + 1))/${#stages[@]}] ${stages[stage]}: finished before"
    return
  fi
  local side_by_side=$((cores >= ${#left[@]} ? ${#left[@]} : 1))
  export OMP_NUM_THREADS=$((cores / side_by_side))
  for start in "${left[@]}"; do
    checkpoint=None
    [ "$start" = random ] || checkpoint=$out/pretrain/teacher.safetensors
    start_job "${task}_$start" bash tools/dist_train.sh "$config" 1 --work-dir "$out/${task}_$start" --seed "$seed" \
      ${again[@]+"${again[@]}"} --cfg-options "model.backbone.checkpoint=$checkpoint" ${options[@]+"${options[@]}"}
    [ "$side_by_side" -gt 1 ] || finish_jobs "$stage"
  done
  [ "$side_by_side" -eq 1 ] || finish_jobs "$stage"
}

printf '[1/%d] %-22s done in %s\n' ${#stages[@]} install "$(clock $((SECONDS - begun)))"
again=()
[ "$resume" = no ] || again=(--resume)
export OMP_NUM_THREADS=$cores
if [ -z "$photographs" ]; then
  one_job_stage 1 sample_data mst sample-data "$MST_DATA_ROOT/sample" --seed "$seed" ${data[@]+"${data[@]}"}
else
  printf '[2/%d] %-22s %s\n' ${#stages[@]} photographs "$photographs"
fi
# Two processes of half a batch each train as one does, but faster where there are two cores.
processes=$((cores > 1 ? 2 : 1))
[ -z "$photographs" ] && batch=$((32 / processes)) || batch=$((64 / processes))
export OMP_NUM_THREADS=$((cores / processes))
one_job_stage 2 pretrain bash tools/pretrain.sh "${configs[0]}" "$processes" --work-dir "$out/pretrain" \
  --seed "$seed" ${again[@]+"${again[@]}"} --cfg-options "train_dataloader.batch_size=$batch" ${pretrain[@]+"${pretrain[@]}"}
export OMP_NUM_THREADS=$cores
one_job_stage 3 pictures python -m pretrain.pictures "$out/pretrain" --images "${photos[@]}" --out "$out/pretrain/pictures"
head_stage 4 det "${configs[1]}" ${det[@]+"${det[@]}"}
head_stage 5 seg "${configs[2]}" ${seg[@]+"${seg[@]}"}
export OMP_NUM_THREADS=$cores
strict=()
[ ${#starts[@]} -lt 2 ] || strict=(--strict) # then every part must be there
one_job_stage 6 report mst report "$out" ${strict[@]+"${strict[@]}"}
printf '\n'
cat "$logs/report.log"
echo "all of it: $(clock $((SECONDS - begun))) minutes; logs: $logs"
