#!/usr/bin/env bash
# Score one checkpoint and write its error rates and plots beside it.
#
#   bash evaluate.sh --checkpoint exp/synth_small/student/79.pt
#   bash evaluate.sh --checkpoint exp/synth_small/student/avg_30.pt --dataset test
#   bash evaluate.sh --checkpoint exp/synth_small/student/final.pt --epochs 60-79
#
# Reads   the checkpoint's folder (config.yaml, dict.txt, keywords.txt), $lists/{dev,test}/data.list
# Writes  exp/X/{dev,test}_avg_30/{score.txt,events.tsv,stats.KEYWORD.txt,summary.json,summary.md}
#         and det.png, confidence.png. Thresholds are chosen on dev, frozen, and reported on test.
#
# With --epochs, each of these epochs is scored too: exp/X/epochs_test/ has FRR by epoch as table and
# figure and the mean of the five best, exp/X/best_frr.pt is the epoch of lowest FRR on dev.
#
# A set is not scored again if its scores are newer than the list and were made with the same
# checkpoint, decoder, longest duration and keywords. Relative paths count from the folder in which
# you type the command, then from the project's.
# shellcheck disable=SC2034 # every option travels in OPTION_VALUES
set -euo pipefail
CALLER_DIR=$PWD
cd "$(dirname "$0")"
. ./path.sh

checkpoint=             # model to evaluate: N.pt, final.pt or avg_N.pt
epochs=                 # score these epochs of its run besides: FIRST-LAST, or all
dataset="test"          # set to report on: test | dev
lists=                  # folder of dev/ and test/ [that of the run's training list]
cache_dir=              # folder of cached features [cache in the folder of lists]
budgets=0.5,1           # false alarms per hour at which FRR is reported
threshold_rule=upper    # what must be within the budget on dev: the upper limit (95 %) of the
                        # false alarms per hour (upper), or their count (count)
shared_threshold=auto   # one threshold for all keywords (true), or one for each (false) | auto: for all
                        # where dev allows a keyword fewer than 3 false alarms of its own
category_hours=         # hours of use per category of negatives, such as speech=2,music=1, that
                        # weight those of dev [the hours of dev as they are]
decoder=keyword         # keyword | prefix_beam
max_duration_s=auto     # longest duration of a keyword in seconds; 0 = no limit; auto = by tokens
batch_size=256          # most utterances per batch
num_workers=0           # processes for feature extraction; 0 = all cores
device=auto             # auto | cpu | cuda
. tools/parse_options.sh

rule_flags=(--threshold_rule "$threshold_rule" --shared_threshold "$shared_threshold"
  --category_hours "$category_hours")
variables=$(python -m wekws.bin.plan_evaluation --caller_dir "$CALLER_DIR" -- \
  "${OPTION_VALUES[@]}")
declare keywords_file result_dir dev_dir is_scored is_dev_scored is_counted
dev_flags=()
eval "$variables"

if [ -n "$epochs" ]; then
  python -m wekws.bin.evaluate_epochs --model_dir "$(dirname "$checkpoint")" --epochs "$epochs" \
    --dataset "$dataset" --lists "$lists" --cache_dir "$cache_dir" --budgets "$budgets" \
    --decoder "$decoder" --max_duration_s "$max_duration_s" "${rule_flags[@]}" \
    --batch_size "$batch_size" --num_workers "$num_workers" --device "$device"
fi
# One process scores both sets, unless that is done.
sets=()
add_set() { # add_set DATASET DIR IS_DONE
  if $3; then
    echo "$2: scored already"
  else
    sets+=(--test_data "$lists/$1/data.list" --result_dir "$2")
  fi
}
if [ -n "$dev_dir" ]; then add_set dev "$dev_dir" "$is_dev_scored"; fi
add_set "$dataset" "$result_dir" "$is_scored"
if [ ${#sets[@]} -gt 0 ]; then
  python -m wekws.bin.score_ctc --checkpoint "$checkpoint" "${sets[@]}" --decoder "$decoder" \
    --max_duration_s "$max_duration_s" --cache_dir "$cache_dir" --batch_size "$batch_size" \
    --num_workers "$num_workers" --device "$device"
fi
if $is_counted; then
  echo "$result_dir: error rates and plots done already"
  exit 0
fi
python -m wekws.bin.compute_det_ctc --result_dir "$result_dir" "${dev_flags[@]}" \
  --test_data "$lists/$dataset/data.list" --keywords_file "$keywords_file" --budgets "$budgets" \
  "${rule_flags[@]}"
label=$(basename "$(dirname "$checkpoint")")
python -m wekws.bin.plot_det --result_dirs "$label=$result_dir" --out "$result_dir/det.png"
python -m wekws.bin.plot_confidence --result_dirs "$label=$result_dir" \
  --out "$result_dir/confidence.png"
