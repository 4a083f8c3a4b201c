#!/usr/bin/env bash
# From audio to a distilled student, its error rates and a report.
#
#   bash run_distill.sh                                      synthesised hi_xiaowen, small
#   bash run_distill.sh --corpus mobvoi --download_dir DIR   Mobvoi hotwords (SLR87)
#   bash run_distill.sh --data_dir DIR --keywords "JARVIS,SMART MIRROR"     your own recordings:
#       DIR/{train,dev,test}/{wav.scp,text}, paths relative to DIR or absolute
#   bash run_distill.sh --keywords "HEY ORCHARD" --from_text      no recordings, synthesised speech
#   bash run_distill.sh --preset balanced                    a student of conf/presets; `list` prints
#       them with size, cost and time, `ask` lets you choose
#
# stage  what it does                             reads -> writes (lists=data/$name, exp=exp/$name)
#  -2    download or synthesise the corpus        -> $download_dir
#  -1    Kaldi lists                              -> $lists/{train,dev,test}/{wav.scp,text,utt2spk}
#   0    vocabulary                               -> $lists/dict/{dict_all,dict,keywords,lexicon}.txt
#   1    data.list, validation, CMVN              -> $lists/*/data.list, validation/, global_cmvn
#   2    base, output surgery, teacher            -> $exp/base, $exp/teacher_init, $exp/teacher
#   3    student: CTC and the teacher's posteriors -> $exp/student (or student_$preset)
#   4    average, evaluate teacher and student    -> $exp/{teacher,student}/test_*/
#   5    plots, error review, diagnosis, report   -> $exp/report (or report_$preset)
#   6    student's thresholds and ONNX files      -> $exp/student/*.onnx, *.thresholds.json
#
# Before the first stage all options and configurations are checked, and the plan is printed: models,
# epochs and who set them, where results go. An option counts first, then an overlay, preset or
# configuration, then the default. A data stage that is newer than its inputs is skipped; training
# goes on after its last epoch; what has been scored is not scored again.
# Relative paths count from the folder in which you type the command, then from the project's.
# shellcheck disable=SC2034 # every option travels in OPTION_VALUES
set -euo pipefail
CALLER_DIR=$PWD
cd "$(dirname "$0")"
. ./path.sh

stage=-2                # first stage to run
stop_stage=6            # last stage to run
dry_run=false           # check all options, print the plan and stop
corpus=synth            # synth | mobvoi | kaldi (implied by --data_dir)
from_text=false         # train on synthesised speech alone: no recordings of the keywords are needed
size=                   # size of the synthesised corpus: tiny | small | full | large | long_test [small];
                        # with --from_text: quick | standard (five times the speech) [quick]
data_dir=               # Kaldi folder of your own recordings
negatives=              # folder of audio without a keyword; may be repeated: a Kaldi tree, or audio files;
                        # it joins training (with --from_text only what is transcribed), thresholds (dev)
                        # and false alarms (test)
negatives_text=auto     # transcripts of negatives to train on: auto (those whose utt2lang is the
                        # keywords' language, or, with --from_text and phonemes, any language)
                        # | use (all) | filler (none)
download_dir=           # folder of the downloaded or synthesised corpus [data/NAME/corpus]
download_url=https://www.openslr.org/resources/87 # server of the Mobvoi corpus
keywords=嗨小问,你好问问 # wake words, separated by commas
language=auto           # language of the keywords: zh | en | auto, by their letters
synth_positives=        # synthesised utterances of each keyword, with near misses and sentences, that the
                        # base learns from beside recordings [phonemes: 4200 utterances in all; else 0]
synth_for=base          # who learns from them: base (and from nothing else) | all (teacher and student too,
                        # beside the recordings)
voices=                 # folder of Piper or Kokoro voices for synthesis; may be repeated
engines=                # synthesisers, separated by commas: espeak | piper | kokoro [those with voices]
word_list=              # words to find near misses of the keywords in, one per line [the recipe's]
units=auto              # tokens: letters (of Chinese: characters) | phonemes (English: of espeak-ng;
                        # Chinese: initials and finals) | auto: those of a given model; else phonemes
                        # for one's own words in English, if espeak-ng is installed
lexicon=                # pronunciations (WORD unit unit ...) in place of --units
name=                   # name of data/NAME and exp/NAME [synth_SIZE | mobvoi | the folder's name | with
                        # --from_text, the keywords]
num_tokens=20           # outputs of teacher and student: 20, 440, ... or all
teacher_config=conf/fsmn_ctc_teacher.yaml # configuration of base and teacher
student_config=conf/fsmn_ctc_student_mini.yaml # configuration of the student
preset=                 # settings laid over the student's: a name in conf/presets, or its number in
                        # the list | list | ask
overlay=                # YAML laid over all configurations; may be repeated; or none
                        # [conf/overlays/speed.yaml for synth, own_word.yaml for kaldi, with
                        # --negatives own_word_negatives.yaml and background.yaml, with --from_text
                        # from_text.yaml or from_text_quick.yaml]
student_overlay=        # YAML laid over the student's configuration alone; may be repeated
extra_lists=            # data/NAME of another corpus whose training set joins the base's
base_checkpoint=        # large-vocabulary model with config.yaml beside it: no base is trained
base_dict=              # dictionary of --base_checkpoint [dict.txt beside it]
teacher_checkpoint=     # teacher with config.yaml beside it: neither base nor teacher is trained
more_teachers=          # checkpoint of a further teacher; may be repeated
num_teachers=1          # teachers to train, which differ in the seed; the student is distilled from all
                        # that dev cannot tell from the best
feature_teacher=        # frozen model of speech that base, teacher and student imitate besides: a YAML
                        # of conf/feature_teachers or a bundle of torchaudio.pipelines
init_from_teacher=true  # fit the student's first weights to the teacher, see `transplant`
alpha=                  # weight of CTC, 1 - alpha is that of distillation: a number or a schedule's
                        # name [distill_conf of the student]
temperature=            # softmax temperature of distillation [distill_conf of the student]
base_epochs=            # training length of the base [max_epoch of its configuration]
teacher_epochs=         # training length of the teacher [max_epoch of its configuration]
student_epochs=         # training length of the student [max_epoch of its configuration]
num_average=            # epochs to average at the end [30, but at most half of them, and only
                        # those of the last stage]
average_best=auto       # average the epochs of lowest cv_loss (true) or the last ones (false) | auto: the
                        # last ones with --from_text
budgets=0.5,1           # false alarms per hour at which FRR is reported
threshold_rule=upper    # what must be within the budget on dev: the upper limit (95 %) of the
                        # false alarms per hour (upper), or their count (count)
shared_threshold=auto   # one threshold for all keywords (true), or one for each (false) | auto: for all
                        # where dev allows a keyword fewer than 3 false alarms of its own
category_hours=         # hours of use per category of negatives, such as speech=2,music=1, that
                        # weight those of dev [the hours of dev as they are]
decoder=keyword         # keyword | prefix_beam
max_duration_s=auto     # longest duration of a keyword in seconds; 0 = no limit; auto = by tokens
corpus_seed=1           # random seed of the synthesised corpus
seed=777                # random seed of training
num_workers=            # processes for feature extraction [all cores]
num_threads=0           # CPU threads of each training process; 0 = its share of the cores
num_processes=          # training processes, one per GPU [1; on the CPU one per core, at most 4]
device=auto             # auto | cpu | cuda
bf16=auto               # matrix products in bfloat16 in training: true | false | auto, on a CPU that has
                        # instructions for it
tracker=tensorboard     # services that show a training: tensorboard | wandb | swanlab, separated by
                        # commas, or none
baseline=               # folder of another run that the diagnosis compares the student with
student_name=           # name of the student's folder [student, or student_PRESET]
note=                   # line for the head of the report
GIVEN_OPTIONS=
if [ $# -gt 0 ]; then GIVEN_OPTIONS=$(printf ' %q' "$@"); fi
. tools/parse_options.sh

# What make_plan sets, beside options of the same name whose paths it resolves.
declare lists teacher_checkpoints negative_dirs negative_flags synthesis_dir synthesis_flags \
  synthesised synthesis_joins base_sets make_lexicon exp front_end base_given teacher_given \
  teacher_dir teacher_average student_dir student_checkpoint student_average report_dir \
  plan_summary
overlay_flags=() student_overlay_flags=() more_teacher_flags=()
base_flags=() teacher_flags=() student_flags=()

# make_plan [NAME=VALUE...]: resolve all options in Python, check them, set the variables.
make_plan() {
  local variables
  variables=$(python -m wekws.bin.plan_recipe --caller_dir "$CALLER_DIR" -- \
    "${OPTION_VALUES[@]}" "$@")
  eval "$variables"
  lexicon_flags=(${lexicon:+--lexicon "$lexicon"})
}

# show_presets ACTION: `list` or `ask`, measured with the models and the corpus of this run.
show_presets() {
  local sizes=$teacher_config tokens=$num_tokens first_flags=()
  first_flags+=(${base_epochs:+--base_epochs "$base_epochs"})
  first_flags+=(${teacher_epochs:+--teacher_epochs "$teacher_epochs"})
  if $teacher_given; then
    sizes=$teacher_dir/config.yaml
    first_flags=(--teacher_is_given)
  fi
  if [ "$tokens" = all ]; then tokens=0; fi
  python -m wekws.bin.presets "$1" --teacher_config "$sizes" --student_config "$student_config" \
    "${overlay_flags[@]}" --lists "$lists" "${lexicon_flags[@]}" --num_tokens "$tokens" \
    --num_threads "$num_threads" --num_processes "$num_processes" --device "$device" \
    "${first_flags[@]}"
}

make_plan
case "$preset" in
  list) show_presets list; exit 0 ;;
  ask)
    preset=$(show_presets ask)
    GIVEN_OPTIONS=${GIVEN_OPTIONS/--preset ask/--preset $preset}
    make_plan "preset=$preset"
    ;;
esac
echo "plan: stages $stage to $stop_stage"
echo "$plan_summary"
if $dry_run; then exit 0; fi

cache=$lists/cache
keywords_file=$lists/dict/keywords.txt
base_lists=$lists/train
base_inputs=()          # what else the base is trained on
if [ "${base_sets[*]}" != "$lists/train" ]; then
  base_lists=$lists/base_train
  for folder in "${base_sets[@]}"; do base_inputs+=("$folder/text"); done
  if [ -n "$extra_lists" ]; then base_inputs+=("$extra_lists/train/data.list"); fi
fi
launch=(python)
if [ "$num_processes" -gt 1 ]; then
  launch=(python -m wekws.bin.launch "$num_processes")
fi
train_flags=("${overlay_flags[@]}" --cv_data "$lists/dev/data.list"
  --keywords_file "$keywords_file" "${lexicon_flags[@]}" --cache_dir "$cache" --seed "$seed"
  --num_workers "$num_workers" --num_threads "$num_threads" --device "$device"
  --tracker "$tracker" --resume)
if [ -n "$feature_teacher" ]; then train_flags+=(--feature_teacher "$feature_teacher"); fi
average_flags=()
if $average_best; then average_flags=(--val_best); fi
. tools/stages.sh
mkdir -p "$lists" "$exp"
if [ "$stage" -le 1 ]; then hold "$lists"; fi

# Stage -2: the corpus, in Mobvoi's own layout whether it is downloaded or synthesised.
if begin_stage -2 "corpus"; then
  case "$corpus" in
    synth) ;;
    mobvoi)
      python examples/hi_xiaowen/local/download_mobvoi.py --out_dir "$download_dir" \
        --base_url "$download_url"
      ;;
    kaldi) echo "   your own recordings: $data_dir" ;;
  esac
  if [ -n "$synthesis_dir" ]; then
    python examples/hi_xiaowen/local/synthesise.py --out_dir "$synthesis_dir" \
      "${synthesis_flags[@]}" --seed "$corpus_seed" --num_workers "$num_workers"
  fi
fi

# Stage -1: Kaldi lists with absolute paths.
if begin_stage -1 "Kaldi lists"; then
  tables=() folders=()
  if [ "$corpus" = kaldi ]; then
    mapfile -t tables < <(find "$data_dir"/{train,dev,test} -name wav.scp -o -name text \
      -o -name utt2spk -o -name utt2dur -o -name utt2category | sort)
    settings=$data_dir
  else
    folders=("$download_dir/mobvoi_hotword_dataset_resources")
    settings=$download_dir
  fi
  if [ -n "$synthesised" ]; then
    settings+="|$synthesised $synthesis_joins"
    folders+=("$synthesised/mobvoi_hotword_dataset_resources")
  fi
  if [ -n "$negatives" ]; then
    settings+="|$negatives_text|$keywords|$language|${negative_flags[*]}"
    folders+=("${negative_dirs[@]}")
  fi
  stage_outputs=("$lists"/{train,dev,test}/{wav.scp,text})
  if ! is_done "$lists/.prepared" "$settings" --tables "${tables[@]}" --folders "${folders[@]}"; then
    if [ "$corpus" = kaldi ]; then
      python -m wekws.bin.prepare_kaldi --data_dir "$data_dir" --out_dir "$lists"
    else
      python examples/hi_xiaowen/local/prepare_mobvoi.py --corpus_dir "$download_dir" \
        --out_dir "$lists"
    fi
    if [ -n "$synthesised" ]; then
      python examples/hi_xiaowen/local/prepare_mobvoi.py --corpus_dir "$synthesised" \
        --out_dir "$synthesised"
    fi
    if $synthesis_joins; then
      for table in wav.scp text utt2spk; do
        cat "$synthesised/train/$table" >>"$lists/train/$table"
      done
    fi
    if [ -n "$negatives" ]; then
      python -m wekws.bin.add_negatives --lists "$lists" "${negative_flags[@]}" \
        --negatives_text "$negatives_text" --keywords "$keywords" --language "$language"
    fi
    mark_done "$lists/.prepared"
  fi
fi

# Stage 0: all tokens of the training text for the base; for teacher and student the most frequent
# ones, which always include those of the keywords.
if begin_stage 0 "vocabulary"; then
  settings="$keywords|$num_tokens|$lexicon|${base_sets[*]}"
  stage_outputs=("$lists/dict"/{dict_all,dict,keywords}.txt)
  lexicon_inputs=()
  if $make_lexicon; then
    stage_outputs+=("$lexicon")
  elif [ -n "$lexicon" ]; then
    lexicon_inputs=("$lexicon")
  fi
  if ! is_done "$lists/dict/.done" "$settings" --tables "$lists"/{train,dev}/text \
    "${lexicon_inputs[@]}" "${base_inputs[@]}"; then
    all_text=$lists/train/text
    if [ "$base_lists" != "$lists/train" ]; then
      mkdir -p "$base_lists"
      all_text=$base_lists/all_text
      mapfile -t folders < <(printf '%s\n' "$lists/train" "${base_sets[@]}" | sort -u)
      for folder in "${folders[@]}"; do cat "$folder/text"; done >"$all_text"
    fi
    if $make_lexicon; then
      python examples/hi_xiaowen/local/make_lexicon.py --text "$all_text" --text "$lists/dev/text" \
        --keywords "$keywords" --lexicon "$lexicon"
    fi
    python -m wekws.bin.make_dict --text "$all_text" --keywords "$keywords" \
      "${lexicon_flags[@]}" --num_tokens all --dict "$lists/dict/dict_all.txt"
    python -m wekws.bin.make_dict --text "$lists/train/text" --keywords "$keywords" \
      "${lexicon_flags[@]}" --num_tokens "$num_tokens" --dict "$lists/dict/dict.txt" \
      --keywords_file "$keywords_file"
    mark_done "$lists/dict/.done"
  fi
fi

# Stage 1: validation of the corpus, data.list, feature normalisation.
if begin_stage 1 "lists, validation, CMVN"; then
  settings="$front_end ${base_sets[*]}"
  stage_outputs=("$lists"/{train,dev,test}/data.list "$base_lists/data.list" "$lists/global_cmvn")
  if ! is_done "$lists/.listed" "$settings" --audio_tables "$lists"/{train,dev,test}/wav.scp \
    ${synthesised:+"$synthesised/train/wav.scp"} \
    --tables "$lists/dict"/{dict,keywords}.txt ${lexicon:+"$lexicon"} "${base_inputs[@]}" \
    "$lists"/{train,dev,test}/{text,utt2spk,utt2dur,utt2category}; then
    python -m wekws.bin.validate_data --data_dir "$lists" --keywords_file "$keywords_file" \
      --dict "$lists/dict/dict.txt" "${lexicon_flags[@]}" --config "$teacher_config" \
      "${overlay_flags[@]}" --out_dir "$lists/validation"
    python -m wekws.bin.plot_durations --validation "$lists/validation/validation.json" \
      --out "$lists/validation/durations.png"
    for split in train dev test; do
      table_flags=()
      for table in utt2dur utt2category; do
        if [ -f "$lists/$split/$table" ]; then table_flags+=("--$table" "$lists/$split/$table"); fi
      done
      python -m wekws.bin.make_list --wav_scp "$lists/$split/wav.scp" \
        --text "$lists/$split/text" "${table_flags[@]}" --data_list "$lists/$split/data.list"
    done
    if [ -n "$synthesised" ]; then
      python -m wekws.bin.make_list --wav_scp "$synthesised/train/wav.scp" \
        --text "$synthesised/train/text" --data_list "$synthesised/train/data.list"
    fi
    if [ "$base_lists" != "$lists/train" ]; then
      for folder in "${base_sets[@]}"; do cat "$folder/data.list"; done >"$base_lists/data.list"
    fi
    python -m wekws.bin.compute_cmvn --config "$teacher_config" "${overlay_flags[@]}" \
      --data_list "$lists/train/data.list" --cache_dir "$cache" \
      --cmvn_file "$lists/global_cmvn" --num_workers "$num_workers"
    mark_done "$lists/.listed"
  fi
  python -m wekws.bin.check_budgets --lists "$lists" --keywords_file "$keywords_file" \
    --budgets "$budgets" --shared_threshold "$shared_threshold" --category_hours "$category_hours"
fi
release

# evaluate SET CHECKPOINT: score dev and SET, thresholds from dev, error rates on SET.
evaluate() {
  bash evaluate.sh --checkpoint "$2" --lists "$lists" --cache_dir "$cache" \
    --dataset "$1" --budgets "$budgets" --threshold_rule "$threshold_rule" \
    --shared_threshold "$shared_threshold" --category_hours "$category_hours" --decoder "$decoder" \
    --max_duration_s "$max_duration_s" --device "$device"
}

# Stage 2: the base is trained on all tokens; output surgery keeps those of the small dictionary;
# the teacher is trained from there.
if begin_stage 2 "base, surgery, teacher"; then
  if $teacher_given; then
    echo "   teacher given: $teacher_checkpoint"
  else
    if ! $base_given; then
      "${launch[@]}" -m wekws.bin.train --config "$teacher_config" "${train_flags[@]}" \
        --train_data "$base_lists/data.list" --model_dir "$exp/base" \
        --dict "$lists/dict/dict_all.txt" --cmvn_file "$lists/global_cmvn" \
        "${base_flags[@]}"
    fi
    python -m wekws.bin.surgery --checkpoint "$base_checkpoint" --source_dict "$base_dict" \
      --dict "$lists/dict/dict.txt" --text "$lists/train/text" "${lexicon_flags[@]}" \
      --out_dir "$exp/teacher_init"
    for number in "${!teacher_checkpoints[@]}"; do
      checkpoint=${teacher_checkpoints[number]}
      "${launch[@]}" -m wekws.bin.train --config "$teacher_config" "${train_flags[@]}" \
        --seed $((seed + number)) --train_data "$lists/train/data.list" \
        --model_dir "$(dirname "$checkpoint")" --dict "$lists/dict/dict.txt" \
        --checkpoint "$exp/teacher_init/init.pt" "${teacher_flags[@]}"
      python -m wekws.bin.average_model --src_path "$(dirname "$checkpoint")" \
        --dst_model "$checkpoint" --num "$teacher_average" "${average_flags[@]}"
    done
    if [ "$num_teachers" -gt 1 ]; then
      for checkpoint in "${teacher_checkpoints[@]}"; do evaluate dev "$checkpoint"; done
      python -m wekws.bin.choose_teachers --checkpoints "${teacher_checkpoints[@]}" \
        --budget "${budgets%%,*}" --out "$exp/teachers.txt"
    fi
  fi
fi

# Of several teachers those that dev has chosen, the best first: it stands for them in the report.
if [ "$num_teachers" -gt 1 ] && [ "$stop_stage" -gt 2 ]; then
  mapfile -t chosen <"$exp/teachers.txt"
  teacher_checkpoint=${chosen[0]}
  teacher_dir=$(dirname "$teacher_checkpoint")
  for checkpoint in "${chosen[@]:1}"; do
    more_teacher_flags+=(--teacher_checkpoint "$checkpoint")
  done
fi

# Stage 3: the student is trained with CTC on the labels and distilled from the averaged teacher.
if begin_stage 3 "distillation"; then
  distill_flags=(${alpha:+--alpha "$alpha"} ${temperature:+--temperature "$temperature"})
  if $init_from_teacher; then distill_flags+=(--init_from_teacher); fi
  "${launch[@]}" -m wekws.bin.train_distill --config "$student_config" "${train_flags[@]}" \
    "${student_overlay_flags[@]}" --train_data "$lists/train/data.list" \
    --model_dir "$student_dir" --dict "$lists/dict/dict.txt" \
    --teacher_checkpoint "$teacher_checkpoint" "${more_teacher_flags[@]}" "${distill_flags[@]}" \
    "${student_flags[@]}"
  python -m wekws.bin.average_model --src_path "$student_dir" \
    --dst_model "$student_checkpoint" --num "$student_average" "${average_flags[@]}"
fi

# write_report: one page with sizes, error rates and what to do next.
write_report() {
  local note_flags=(${note:+--note "$note"})
  python -m wekws.bin.report --teacher_dir "teacher=$teacher_dir" \
    --student_dir "$student_name=$student_dir" --dataset test \
    --validation "$lists/validation/validation.json" --out_dir "$report_dir" \
    --command "bash run_distill.sh$GIVEN_OPTIONS" "${note_flags[@]}"
  echo "report: $PWD/$report_dir/report.html"
}

# Stage 4: teacher and student, last epoch and average; thresholds from dev, error rates on test.
if begin_stage 4 "evaluation"; then
  checkpoints=("$teacher_checkpoint" "$student_dir/final.pt" "$student_checkpoint")
  last_teacher=$teacher_dir/final.pt
  if [ -f "$last_teacher" ] && [ "$last_teacher" != "$teacher_checkpoint" ]; then
    checkpoints=("$last_teacher" "${checkpoints[@]}")
  fi
  for checkpoint in "${checkpoints[@]}"; do evaluate test "$checkpoint"; done
fi

# Stage 5: one page with sizes, error rates and what to do next; it links a page with the misses and
# false alarms, and the diagnosis of the training.
if begin_stage 5 "report"; then
  if [ -f "$teacher_checkpoint" ] && [ -f "$student_checkpoint" ]; then
    python -m wekws.bin.measure_speed --teacher_checkpoint "$teacher_checkpoint" \
      --checkpoint "$student_checkpoint"
  fi
  python -m wekws.bin.review_errors --teacher_dir "teacher=$teacher_dir" \
    --student_dir "$student_name=$student_dir" --out_dir "$report_dir"
  python -m wekws.bin.diagnose "$student_name=$student_dir" --teacher_dir "teacher=$teacher_dir" \
    ${baseline:+--baseline "baseline=$baseline"} --out_dir "$report_dir/diagnosis"
  write_report
fi

# Stage 6: thresholds of the student for the first budget, ONNX files in float32 and int8, error rates
# of int8, cost of the detectors on one thread, and the report with them.
if begin_stage 6 "export"; then
  if ! python -c "import onnx, onnxruntime" 2>/dev/null; then
    echo "   left out: onnx or onnxruntime is not installed (pip install -e .[export])"
  else
    dev_scores=$student_dir/dev_$(basename "$student_checkpoint" .pt)
    if [ -f "$dev_scores/score.json" ]; then
      python -m wekws.bin.tune_threshold --dev_result_dir "$dev_scores" \
        --checkpoint "$student_checkpoint" --budget "${budgets%%,*}" \
        --threshold_rule "$threshold_rule" --shared_threshold "$shared_threshold" \
        --category_hours "$category_hours"
    fi
    python -m wekws.bin.export_onnx --checkpoint "$student_checkpoint" --precision fp32 int8 \
      --data_list "$lists/dev/data.list"
    evaluate test "${student_checkpoint%.pt}.int8.onnx"
    python benchmarks/detector_cost.py --no_peers --duration_s 10 \
      --models "teacher=$teacher_checkpoint" "$student_name=$student_checkpoint" \
      "$student_name, ONNX fp32=${student_checkpoint%.pt}.onnx" \
      "$student_name, ONNX int8=${student_checkpoint%.pt}.int8.onnx" \
      --out "$student_dir/detector_cost.json"
    write_report
  fi
fi
current_stage=
