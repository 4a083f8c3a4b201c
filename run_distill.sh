#!/usr/bin/env bash
# From audio to a distilled student, its figures and its report.
#
#   bash run_distill.sh                                      synthesised hi_xiaowen, small
#   bash run_distill.sh --corpus mobvoi --download_dir DIR   the Mobvoi hotwords (SLR87)
#   bash run_distill.sh --data_dir DIR --keywords "JARVIS,SMART MIRROR"     your own recordings:
#       DIR/{train,dev,test}/{wav.scp,text}, paths relative to DIR or absolute
#   bash run_distill.sh --preset balanced                    a student of conf/presets; list shows
#       them with size, cost and time, ask lets you choose
#
# stage  what it does                             reads -> writes (lists=data/$name, exp=exp/$name)
#  -2    download or synthesise the corpus        -> $download_dir
#  -1    Kaldi lists                              -> $lists/{train,dev,test}/{wav.scp,text,utt2spk}
#   0    vocabulary                               -> $lists/dict/{dict_all,dict,keywords}.txt
#   1    data.list, validation, CMVN              -> $lists/*/data.list, validation/, global_cmvn
#   2    base, output surgery, teacher            -> $exp/base, $exp/teacher_init, $exp/teacher
#   3    student: CTC and the teacher's posteriors -> $exp/student (or student_$preset)
#   4    average, evaluate teacher and student    -> $exp/{teacher,student}/test_*/
#   5    plots and report                         -> $exp/report (or report_$preset)
#
# A data stage that is newer than its inputs is skipped; training goes on after its last epoch.
#
# options (with their defaults below): stage stop_stage corpus size data_dir download_dir keywords
#   language lexicon name num_tokens teacher_config student_config preset overlay
#   student_overlay extra_lists base_checkpoint base_dict teacher_checkpoint more_teachers
#   init_from_teacher alpha temperature base_epochs teacher_epochs student_epochs num_average
#   average_best budgets decoder corpus_seed seed num_workers num_threads num_processes device bf16
#   student_name note
set -euo pipefail
cd "$(dirname "$0")"
. ./path.sh

stage=-2
stop_stage=5
corpus=synth            # synth | mobvoi | kaldi (implied by --data_dir)
size=small              # of the synthesised corpus: tiny | small | full | long_test
data_dir=               # a Kaldi folder of your own
download_dir=           # of the corpus [data/$name/corpus]
download_url=https://www.openslr.org/resources/87
keywords=嗨小问,你好问问
language=zh             # of the synthesised corpus: zh | en
lexicon=                # word to units, where characters and letters will not do
name=                   # of the lists and experiments [synth_$size | mobvoi | the folder's name]
num_tokens=20           # outputs of teacher and student: 20, 440, ... or all
teacher_config=conf/fsmn_ctc_teacher.yaml
student_config=conf/fsmn_ctc_student_mini.yaml
preset=                 # of the student, laid over the rest: a name in conf/presets | list | ask
overlay=                # YAML laid over both [speed for synth, small_corpus for kaldi] | none
student_overlay=        # YAML laid over the student alone, several with commas between
extra_lists=            # data/NAME of another corpus whose training set joins the base's
base_checkpoint=        # a large-vocabulary model, with config.yaml beside it: skips its training
base_dict=              # its dictionary [dict.txt beside it]
teacher_checkpoint=     # skips base, surgery and teacher
more_teachers=          # checkpoints to learn from beside it, several with commas between
init_from_teacher=true
alpha=                  # weight of CTC, a number or a schedule's name [distill_conf of student_config]
temperature=            # [distill_conf of student_config]
base_epochs=80
teacher_epochs=80
student_epochs=         # [the preset's, or 80]
num_average=30          # with a preset, at most half of the student's epochs
average_best=true       # the best by cv_loss; false: the last
budgets=0.5,1           # false alarms per hour
decoder=keyword         # keyword | prefix_beam
corpus_seed=1           # of the synthesised corpus
seed=777                # of training
num_workers=$(nproc)    # processes of feature extraction
num_threads=0           # of a training process; 0: its share of the cores
num_processes=1         # torchrun processes; one a GPU
device=auto             # auto | cpu | cuda
bf16=false
student_name=           # [student, or student_$preset]
note=                   # a line for the head of the report
GIVEN_OPTIONS=
if [ $# -gt 0 ]; then GIVEN_OPTIONS=$(printf ' %q' "$@"); fi
. tools/parse_options.sh

if [ -n "$data_dir" ]; then corpus=kaldi; fi
case "$corpus" in
  synth) name=${name:-synth_$size}; overlay=${overlay:-conf/overlays/speed.yaml} ;;
  mobvoi) name=${name:-mobvoi} ;;
  kaldi)
    name=${name:-$(basename "${data_dir:?--corpus kaldi wants --data_dir}")}
    overlay=${overlay:-conf/overlays/small_corpus.yaml}
    ;;
  *) echo "$0: --corpus $corpus: expected synth, mobvoi or kaldi" >&2; exit 2 ;;
esac
lists=data/$name
exp=exp/$name
lexicon_option=(${lexicon:+--lexicon "$lexicon"})
overlay_option=()
if [ -n "$overlay" ] && [ "$overlay" != none ]; then overlay_option=(--overlay "$overlay"); fi

# show_presets WHAT: `list` or `ask`, measured with the models and the corpus of this run.
show_presets() {
  local sizes=$teacher_config tokens=$num_tokens
  if [ -n "$teacher_checkpoint" ]; then sizes=$(dirname "$teacher_checkpoint")/config.yaml; fi
  if [ "$tokens" = all ]; then tokens=0; fi
  python -m wekws.bin.presets "$1" --teacher_config "$sizes" --student_config "$student_config" \
    "${overlay_option[@]}" --lists "$lists" "${lexicon_option[@]}" --num_tokens "$tokens" \
    --num_threads "$num_threads" --device "$device"
}
case "$preset" in
  list) show_presets list; exit 0 ;;
  ask)
    preset=$(show_presets ask)
    GIVEN_OPTIONS=${GIVEN_OPTIONS/--preset ask/--preset $preset}
    ;;
esac
student_option=()
student_average=$num_average
if [ -n "$preset" ]; then
  preset_file=conf/presets/$preset.yaml
  if [ ! -f "$preset_file" ]; then
    known=$(cd conf/presets && printf '%s, ' *.yaml)
    echo "$0: --preset $preset: expected one of ${known//.yaml/}list, ask" >&2
    exit 2
  fi
  student_option=(--overlay "$preset_file")
  student_epochs=${student_epochs:-$(sed -n 's/^ *max_epoch: *//p' "$preset_file")}
  half=$(((student_epochs + 1) / 2))
  if [ "$half" -lt "$num_average" ]; then student_average=$half; fi
fi
IFS=, read -ra files <<<"$student_overlay"
for file in "${files[@]}"; do student_option+=(--overlay "$file"); done
student_epochs=${student_epochs:-80}
if [ "$student_average" -gt "$student_epochs" ]; then
  echo "$0: --num_average $student_average: more than the student's $student_epochs epochs" >&2
  exit 2
fi
if [ -z "$teacher_checkpoint" ] && [ "$num_average" -gt "$teacher_epochs" ]; then
  echo "$0: --num_average $num_average: more than the teacher's $teacher_epochs epochs" >&2
  exit 2
fi
student_name=${student_name:-student${preset:+_$preset}}
download_dir=${download_dir:-$lists/corpus}
cache=$lists/cache
keywords_file=$lists/dict/keywords.txt
teacher_dir=$exp/teacher
student_dir=$exp/$student_name
student_checkpoint=$student_dir/avg_$student_average.pt
report_dir=$exp/report
if [ "$student_name" != student ]; then report_dir=$exp/report_${student_name#student_}; fi
if [ -n "$teacher_checkpoint" ]; then
  teacher_dir=$(dirname "$teacher_checkpoint")
else
  teacher_checkpoint=$teacher_dir/avg_$num_average.pt
fi
base_lists=$lists/train
extra_inputs=()
if [ -n "$extra_lists" ]; then
  base_lists=$lists/base_train
  extra_inputs=("$extra_lists/train/text" "$extra_lists/train/data.list")
fi
launch=(python)
if [ "$num_processes" -gt 1 ]; then
  launch=(torchrun --standalone --nproc_per_node "$num_processes")
fi
train_options=("${overlay_option[@]}" --cv_data "$lists/dev/data.list"
  --keywords_file "$keywords_file" "${lexicon_option[@]}" --cache_dir "$cache" --seed "$seed"
  --num_workers "$num_workers" --num_threads "$num_threads" --device "$device" --resume)
if $bf16; then train_options+=(--bf16); fi
average_options=()
if $average_best; then average_options=(--val_best); fi
. tools/stages.sh
mkdir -p "$lists" "$exp"

# Stage -2: the corpus. Writes Mobvoi's own layout, so that what follows is the same for both.
if begin_stage -2 "corpus"; then
  case "$corpus" in
    synth)
      python examples/hi_xiaowen/local/synthesise.py --size "$size" --out_dir "$download_dir" \
        --language "$language" --keywords "$keywords" --seed "$corpus_seed" --num_workers "$num_workers"
      ;;
    mobvoi)
      python examples/hi_xiaowen/local/download_mobvoi.py --out_dir "$download_dir" \
        --base_url "$download_url"
      ;;
    kaldi) echo "   recordings of your own: $data_dir" ;;
  esac
fi

# Stage -1: Kaldi lists with absolute paths.
if begin_stage -1 "Kaldi lists"; then
  if [ "$corpus" = kaldi ]; then
    mapfile -t tables < <(find "$data_dir"/{train,dev,test} -name wav.scp -o -name text \
      -o -name utt2spk -o -name utt2dur)
    if ! is_done "$lists/.prepared" "$data_dir" "${tables[@]}"; then
      python -m wekws.bin.prepare_kaldi --data_dir "$data_dir" --out_dir "$lists"
      mark_done "$lists/.prepared" "$data_dir"
    fi
  elif ! is_done "$lists/.prepared" "$download_dir" \
    "$download_dir/mobvoi_hotword_dataset_resources"; then
    python examples/hi_xiaowen/local/prepare_mobvoi.py --corpus_dir "$download_dir" \
      --out_dir "$lists"
    mark_done "$lists/.prepared" "$download_dir"
  fi
fi

# Stage 0: every token of the training text (for the base), and the top ones that always hold
# the keywords (for teacher and student).
if begin_stage 0 "vocabulary"; then
  what="$keywords|$num_tokens|$lexicon|$extra_lists"
  if ! is_done "$lists/dict/.done" "$what" "$lists/train/text" ${lexicon:+"$lexicon"} \
    "${extra_inputs[@]}"; then
    if [ -n "$extra_lists" ]; then
      mkdir -p "$base_lists"
      cat "$lists/train/text" "$extra_lists/train/text" >"$base_lists/text"
    fi
    python -m wekws.bin.make_dict --text "$base_lists/text" --keywords "$keywords" \
      "${lexicon_option[@]}" --num_tokens all --dict "$lists/dict/dict_all.txt"
    python -m wekws.bin.make_dict --text "$lists/train/text" --keywords "$keywords" \
      "${lexicon_option[@]}" --num_tokens "$num_tokens" --dict "$lists/dict/dict.txt" \
      --keywords_file "$keywords_file"
    mark_done "$lists/dict/.done" "$what"
  fi
fi

# Stage 1: data.list, every problem of the corpus by name, feature normalisation.
if begin_stage 1 "lists, validation, CMVN"; then
  front_end=$(cat conf/*.yaml conf/overlays/*.yaml "$teacher_config" "${overlay_option[@]:1}" |
    cksum)
  what="$teacher_config $overlay $extra_lists $front_end"
  if ! is_done "$lists/.listed" "$what" "$lists/dict/dict.txt" "$teacher_config" \
    "$lists"/{train,dev,test}/{wav.scp,text} "${extra_inputs[@]}"; then
    python -m wekws.bin.validate_data --data_dir "$lists" --keywords_file "$keywords_file" \
      --dict "$lists/dict/dict.txt" "${lexicon_option[@]}" --config "$teacher_config" \
      --out_dir "$lists/validation"
    python -m wekws.bin.plot_durations --validation "$lists/validation/validation.json" \
      --out "$lists/validation/durations.png"
    for split in train dev test; do
      durations=$lists/$split/utt2dur
      if [ ! -f "$durations" ]; then durations=; fi
      python -m wekws.bin.make_list --wav_scp "$lists/$split/wav.scp" \
        --text "$lists/$split/text" ${durations:+--utt2dur "$durations"} \
        --data_list "$lists/$split/data.list"
    done
    if [ -n "$extra_lists" ]; then
      cat "$lists/train/data.list" "$extra_lists/train/data.list" >"$base_lists/data.list"
    fi
    python -m wekws.bin.compute_cmvn --config "$teacher_config" "${overlay_option[@]}" \
      --data_list "$lists/train/data.list" --cache_dir "$cache" \
      --cmvn_file "$lists/global_cmvn" --num_workers "$num_workers"
    mark_done "$lists/.listed" "$what"
  fi
fi

# Stage 2: the base knows every token; surgery keeps the outputs that matter; the teacher is
# what training makes of it.
if begin_stage 2 "base, surgery, teacher"; then
  if [ "$teacher_dir" != "$exp/teacher" ]; then
    echo "   teacher given: $teacher_checkpoint"
  else
    if [ -z "$base_checkpoint" ]; then
      "${launch[@]}" -m wekws.bin.train --config "$teacher_config" "${train_options[@]}" \
        --train_data "$base_lists/data.list" --model_dir "$exp/base" \
        --dict "$lists/dict/dict_all.txt" --cmvn_file "$lists/global_cmvn" \
        --override "training_config.max_epoch=$base_epochs"
      base_checkpoint=$exp/base/final.pt
    fi
    python -m wekws.bin.surgery --checkpoint "$base_checkpoint" \
      --source_dict "${base_dict:-$(dirname "$base_checkpoint")/dict.txt}" \
      --dict "$lists/dict/dict.txt" --text "$lists/train/text" "${lexicon_option[@]}" \
      --out_dir "$exp/teacher_init"
    "${launch[@]}" -m wekws.bin.train --config "$teacher_config" "${train_options[@]}" \
      --train_data "$lists/train/data.list" --model_dir "$teacher_dir" \
      --dict "$lists/dict/dict.txt" \
      --checkpoint "$exp/teacher_init/init.pt" \
      --override "training_config.max_epoch=$teacher_epochs"
    python -m wekws.bin.average_model --src_path "$teacher_dir" --dst_model "$teacher_checkpoint" \
      --num "$num_average" "${average_options[@]}"
  fi
fi

# Stage 3: the student learns from the labels and from the averaged teacher.
if begin_stage 3 "distillation"; then
  distill_options=(${alpha:+--alpha "$alpha"} ${temperature:+--temperature "$temperature"})
  if $init_from_teacher; then distill_options+=(--init_from_teacher); fi
  IFS=, read -ra files <<<"$more_teachers"
  for file in "${files[@]}"; do distill_options+=(--teacher_checkpoint "$file"); done
  "${launch[@]}" -m wekws.bin.train_distill --config "$student_config" "${train_options[@]}" \
    "${student_option[@]}" --train_data "$lists/train/data.list" --model_dir "$student_dir" --dict "$lists/dict/dict.txt" \
    --teacher_checkpoint "$teacher_checkpoint" "${distill_options[@]}" \
    --override "training_config.max_epoch=$student_epochs"
  python -m wekws.bin.average_model --src_path "$student_dir" \
    --dst_model "$student_checkpoint" --num "$student_average" "${average_options[@]}"
fi

# Stage 4: teacher and student, last epoch and average; thresholds from dev, figures on test.
if begin_stage 4 "evaluation"; then
  checkpoints=("$teacher_checkpoint" "$student_dir/final.pt" "$student_checkpoint")
  if [ -f "$teacher_dir/final.pt" ]; then checkpoints=("$teacher_dir/final.pt" "${checkpoints[@]}"); fi
  for checkpoint in "${checkpoints[@]}"; do
    bash evaluate.sh --checkpoint "$checkpoint" --lists "$lists" --cache_dir "$cache" \
      --dataset test --budgets "$budgets" --decoder "$decoder" --device "$device"
  done
fi

# Stage 5: one page that says what was saved, what was kept and what was lost.
if begin_stage 5 "report"; then
  note_option=()
  if [ -n "$note" ]; then note_option=(--note "$note"); fi
  if [ -f "$teacher_checkpoint" ] && [ -f "$student_checkpoint" ]; then
    python -m wekws.bin.measure_speed --teacher_checkpoint "$teacher_checkpoint" \
      --checkpoint "$student_checkpoint"
  fi
  python -m wekws.bin.report --teacher_dir "teacher=$teacher_dir" \
    --student_dir "$student_name=$student_dir" --dataset test \
    --validation "$lists/validation/validation.json" --out_dir "$report_dir" \
    --command "bash run_distill.sh$GIVEN_OPTIONS" "${note_option[@]}"
  echo "report: $PWD/$report_dir/report.html"
fi
current_stage=
