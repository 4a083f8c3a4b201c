#!/usr/bin/env bash
# Students that differ in some flags of train_distill, over several seeds, in one table: cv loss
# before the first step, after epoch 0 and at the end, FRR, and the cv curves of the first seed.
#
#   bash examples/hi_xiaowen/compare.sh                     random start or teacher's, CTC or CTC + KD
#   bash examples/hi_xiaowen/compare.sh --label precision \
#     --variants "float32:--init_from_teacher; bfloat16:--init_from_teacher --bf16"
#
# Reads   data/$name, exp/$name/teacher/$teacher.pt (stages -2 to 2 of run_distill.sh)
# Writes  exp/$name/$label/VARIANT_SEED, exp/$name/$label/{table.md,curves.png}
# Goes on where it was interrupted.
#
# options: label variants name epochs seeds num_jobs num_average teacher student_config overlay
set -euo pipefail
cd "$(dirname "$0")/../.."
. ./path.sh

label=starts
variants="random_ctc:--alpha 1.0; random_kd:; teacher_ctc:--init_from_teacher --alpha 1.0;
  teacher_kd:--init_from_teacher"
name=synth_small
epochs=20
seeds="1 2 3"
num_jobs=2              # runs at a time, a thread each
num_average=5
teacher=avg_5           # checkpoint of exp/$name/teacher
student_config=conf/fsmn_ctc_student_mini.yaml
overlay=conf/overlays/speed.yaml
. tools/parse_options.sh

lists=data/$name
runs=exp/$name/$label
export lists runs name epochs num_average teacher student_config overlay

# train_one SEED VARIANT [FLAG...]
train_one() {
  local seed=$1 dir=$runs/${2}_$1
  shift 2
  mkdir -p "$dir"
  python -m wekws.bin.train_distill --config "$student_config" --overlay "$overlay" \
    --model_dir "$dir" --train_data "$lists/train/data.list" --cv_data "$lists/dev/data.list" \
    --dict "$lists/dict/dict.txt" --keywords_file "$lists/dict/keywords.txt" \
    --cache_dir "$lists/cache" --teacher_checkpoint "exp/$name/teacher/$teacher.pt" \
    --seed "$seed" --num_threads 1 --num_workers 1 --resume \
    --override "training_config.max_epoch=$epochs" "$@" >"$dir/train.log" 2>&1
  python -m wekws.bin.average_model --src_path "$dir" --dst_model "$dir/avg_$num_average.pt" \
    --num "$num_average" --val_best >>"$dir/train.log"
  bash evaluate.sh --checkpoint "$dir/avg_$num_average.pt" --num_workers 1 >>"$dir/train.log" 2>&1
  echo "$dir"
}
export -f train_one

# One line a variant: NAME FLAG...
lines=$(tr ';\n' '\n ' <<<"$variants" | sed 's/:/ /; s/^ *//; s/ *$//; /^$/d')
for seed in $seeds; do
  while read -r line; do echo "$seed $line"; done <<<"$lines"
done | xargs -P "$num_jobs" -L 1 bash -c 'set -euo pipefail; train_one "$@"' train_one

groups=()
curves=()
while read -r variant _; do
  dirs=
  for seed in $seeds; do dirs=$dirs,$runs/${variant}_$seed; done
  groups+=("$variant=${dirs#,}")
  curves+=("$variant=$runs/${variant}_${seeds%% *}")
done <<<"$lines"
python -m wekws.bin.compare_runs --groups "${groups[@]}" --result "test_avg_$num_average" |
  tee "$runs/table.md"
python -m wekws.bin.plot_curves --model_dirs "${curves[@]}" --out "$runs/curves.png"
