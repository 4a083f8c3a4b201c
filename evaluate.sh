#!/usr/bin/env bash
# Score one checkpoint and write its figures and plots beside it.
#
#   bash evaluate.sh --checkpoint exp/synth_small/student/79.pt
#   bash evaluate.sh --checkpoint exp/synth_small/student/avg_30.pt --dataset test
#
# Reads   the checkpoint's folder (config.yaml, dict.txt, keywords.txt), $lists/{dev,test}/data.list
# Writes  exp/X/{dev,test}_avg_30/{score.txt,events.tsv,stats.KEYWORD.txt,summary.json,summary.md}
#         and det.png, confidence.png. Thresholds are chosen on dev, frozen, and reported on test.
#
# options: checkpoint dataset lists cache_dir budgets decoder batch_size num_workers device
set -euo pipefail
cd "$(dirname "$0")"
. ./path.sh

checkpoint=
dataset="test"          # test | dev
lists=                  # folder of dev/ and test/ [where the run's training list lies]
cache_dir=              # of features [$lists/cache]
budgets=0.5,1           # false alarms per hour
decoder=keyword         # keyword | prefix_beam
batch_size=256
num_workers=$(nproc)
device=auto
. tools/parse_options.sh

if [ ! -f "$checkpoint" ]; then
  echo "$0: --checkpoint '$checkpoint': no such file; averages are made by" \
    "python -m wekws.bin.average_model" >&2
  exit 2
fi
model_dir=$(dirname "$checkpoint")
if [ -z "$lists" ]; then
  if [ ! -f "$model_dir/run.json" ]; then
    echo "$0: $model_dir/run.json is missing, so --lists must say where dev/ and test/ lie" >&2
    exit 2
  fi
  train_list=$(sed -n 's/.*"train_data": "\(.*\)",$/\1/p' "$model_dir/run.json")
  lists=$(dirname "$(dirname "$train_list")")
fi
tag=$(basename "$checkpoint" .pt)
if [ "$decoder" != keyword ]; then tag=${tag}_$decoder; fi
dev_dir=$model_dir/dev_$tag
result_dir=$model_dir/${dataset}_$tag

# score DATASET DIR
score() {
  python -m wekws.bin.score_ctc --checkpoint "$checkpoint" --test_data "$lists/$1/data.list" \
    --result_dir "$2" --decoder "$decoder" --cache_dir "${cache_dir:-$lists/cache}" \
    --batch_size "$batch_size" --num_workers "$num_workers" --device "$device"
}

dev_option=()
if [ "$dataset" != dev ] && [ -f "$lists/dev/data.list" ]; then
  score dev "$dev_dir"
  dev_option=(--dev_result_dir "$dev_dir")
fi
score "$dataset" "$result_dir"
python -m wekws.bin.compute_det_ctc --result_dir "$result_dir" "${dev_option[@]}" \
  --test_data "$lists/$dataset/data.list" --keywords_file "$model_dir/keywords.txt" \
  --budgets "$budgets"
label=$(basename "$model_dir")
python -m wekws.bin.plot_det --result_dirs "$label=$result_dir" --out "$result_dir/det.png"
python -m wekws.bin.plot_confidence --result_dirs "$label=$result_dir" \
  --out "$result_dir/confidence.png"
