#!/usr/bin/env bash
# Sourced: decides which stages run and which are done, and names the one that fails.
current_stage=
status=0
began=
trap 'status=$?
if [ $status -eq 0 ]; then end_stage; fi
if [ $status -ne 0 ] && [ -n "$current_stage" ]; then
  echo "$0: $current_stage failed (status $status)" >&2
fi' EXIT

# end_stage: add the time of the current stage to stage_times.txt, from which plans are estimated.
end_stage() {
  # shellcheck disable=SC2154 # exp is set by the script that sources this
  if [ -n "$began" ] && [ -d "$exp" ]; then
    echo "${began% *} $((SECONDS - ${began#* }))" >>"$exp/stage_times.txt"
  fi
  began=
}

# begin_stage NUMBER TITLE: true if --stage and --stop_stage include the stage.
begin_stage() {
  end_stage
  current_stage=
  # shellcheck disable=SC2154 # stage and stop_stage are options of the script that sources this
  if [ "$1" -lt "$stage" ] || [ "$1" -gt "$stop_stage" ]; then return 1; fi
  current_stage="stage $1 ($2)"
  began="$1 $SECONDS"
  echo "== $current_stage"
}

# is_done STAMP SETTINGS [OPTION...]: true if the stamp was made with the same SETTINGS and inputs,
# and all of stage_outputs are there. The options name the inputs, see wekws.bin.stage_inputs.
# Else the stamp is removed: outputs that are half replaced must not count as those of before.
stage_outputs=()
stage_inputs=
is_done() {
  local stamp=$1 settings=$2 output is_same=false
  shift 2
  stage_inputs=$(python -m wekws.bin.stage_inputs --settings "$settings" "$@") || exit 2
  if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$stage_inputs" ]; then
    is_same=true
    for output in "${stage_outputs[@]}"; do
      if [ ! -s "$output" ]; then is_same=false; fi
    done
  fi
  if ! $is_same; then
    rm -f "$stamp"
    return 1
  fi
  echo "   done already"
}

# mark_done STAMP: record the settings and inputs that is_done found before the stage ran.
mark_done() { printf '%s\n' "$stage_inputs" >"$1"; }

# hold FOLDER: keep other runs of the data stages out of a folder, until release or the end.
hold() {
  exec 9<"$1"
  python -m wekws.bin.hold_folder --handle 9 --folder "$1"
}
release() { exec 9<&-; }
