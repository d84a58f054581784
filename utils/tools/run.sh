#!/usr/bin/env bash
# The body of run_voc.sh and run_coco.sh: run.sh DATASET ROOT DEFAULT_ROOT [training flags].
# Finds the data (or draws the toy set), trains, and tests what can be tested. NPROC=n uses n
# processes, by default 1 on a GPU and up to 4 on a CPU; MAX_RESTARTS=m lets them, or one alone,
# resume from the last checkpoint up to m times after one was lost.
set -euo pipefail
unset CDPATH # by which cd may go to a folder of the same name elsewhere
cd -- "$(dirname -- "$0")/../.."
dataset=$1 root=$2 default_root=$3
variable=$(tr '[:lower:]' '[:upper:]' <<<"$dataset")_ROOT
shift 3
# shellcheck source=utils/tools/environment.sh
source utils/tools/environment.sh
for number in "NPROC=${NPROC:-1}" "MAX_RESTARTS=${MAX_RESTARTS:-0}"; do
  case ${number#*=} in
    *[!0-9]*) refuse "$number is no number" ;;
  esac
done
if [ -n "$root" ] && [ ! -d "$root" ]; then
  refuse "$variable=$root is not a folder (seen from $PWD); name the data set's, or unset $variable"
fi
use_environment requirements.txt

toy=data/toy_$dataset embedded=
if [ -n "$root" ] || [ -d "$default_root" ]; then
  set -- --config "configs/$dataset.yaml" --data_root "${root:-$default_root}" "$@"
else
  embedded=yes
  set -- --config "configs/toy_$dataset.yaml" "$@"
fi
case " $* " in
  *" -h "* | *" --help "* | *" --print_config "* | *" --print_plan "*)
    exec "$PYTHON" "train_$dataset.py" "$@"
    ;;
esac

# also refuses a wrong flag before anything is drawn
told=$(PYTHONIOENCODING=utf-8 "$PYTHON" "train_$dataset.py" "$@" --print_plan)
for name in work_dir device stages data_root processes; do
  IFS= read -r "$name"
done <<<"$told"
processes=${NPROC:-$processes}

if [ "$data_root" = "$toy" ]; then
  if [ -n "$embedded" ]; then
    echo "no data at $default_root and $variable is not set:" \
      "running the embedded toy set with the toy CLIP"
  fi
  "$PYTHON" -m datasets.prepare toy --layout "$dataset" --root "$toy"
fi

case $stages in
  seeds) yields="$work_dir/pseudo_labels, one PNG per image, made without training" ;;
  classifier) yields="$work_dir/checkpoints/classifier.pt, the ViT alone, for --mct_path" ;;
  *) yields="$work_dir/checkpoints/final.pt and its test results" ;;
esac
echo "this run yields $yields"

launch=("$PYTHON")
if [ "$processes" -gt 1 ] || [ "${MAX_RESTARTS:-0}" -gt 0 ]; then
  launch+=(-m utils.tools.launch --processes "$processes" --restarts "${MAX_RESTARTS:-0}")
fi
"${launch[@]}" "train_$dataset.py" --resume "$@"
if [ "$stages" = all ]; then
  "${launch[@]}" "test_msc_flip_$dataset.py" --model_path "$work_dir/checkpoints/final.pt" \
    --device "$device"
fi
