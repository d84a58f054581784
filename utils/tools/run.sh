#!/usr/bin/env bash
# The body of run_voc.sh and run_coco.sh: run.sh DATASET ROOT DEFAULT_ROOT [training flags].
# Finds the data (or draws the toy set), trains, tests. NPROC=n uses n processes; MAX_RESTARTS=m of them resume
# from the last checkpoint up to m times after one was lost.
set -euo pipefail
cd "$(dirname "$0")/../.."
dataset=$1 root=$2 default_root=$3
shift 3
# shellcheck source=utils/tools/environment.sh
source utils/tools/environment.sh
use_environment requirements.txt

value_of() { # flag default arguments...: the value a flag has among the arguments
  local flag=$1 value=$2
  shift 2
  while [ $# -gt 0 ]; do
    case $1 in
      "$flag") value=${2:-} ;;
      "$flag"=*) value=${1#*=} ;;
    esac
    shift
  done
  printf '%s' "$value"
}

if [ -n "$root" ] || [ -d "$default_root" ]; then
  config=configs/$dataset.yaml
  set -- --data_root "${root:-$default_root}" "$@"
else
  config=configs/toy_$dataset.yaml
  echo "no data at $default_root and ${dataset^^}_ROOT is not set: running the embedded toy set with the toy CLIP"
  "$PYTHON" -m datasets.prepare toy --layout "$dataset" --root "data/toy_$dataset"
fi
config=$(value_of --config "$config" "$@")
work_dir=$(value_of --work_dir "$(sed -n 's/^work_dir: *//p' "$config")" "$@")
device=$(value_of --device auto "$@")

launch=("$PYTHON")
if [ "${NPROC:-1}" -gt 1 ]; then
  launch=("$PYTHON" -m torch.distributed.run --standalone --nproc_per_node "$NPROC" --max_restarts "${MAX_RESTARTS:-0}")
fi
"${launch[@]}" "train_$dataset.py" --config "$config" --resume "$@"
"${launch[@]}" "test_msc_flip_$dataset.py" --model_path "$work_dir/checkpoints/final.pt" --device "$device"
