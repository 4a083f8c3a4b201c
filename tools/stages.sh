#!/usr/bin/env bash
# Sourced: decides which stages run and which are done, and names the one that fails.
current_stage=
status=0
trap 'status=$?; if [ $status -ne 0 ] && [ -n "$current_stage" ]; then
  echo "$0: $current_stage failed (status $status)" >&2; fi' EXIT

# begin_stage NUMBER TITLE: true if --stage and --stop_stage include the stage.
begin_stage() {
  current_stage=
  # shellcheck disable=SC2154 # stage and stop_stage are options of the script that sources this
  if [ "$1" -lt "$stage" ] || [ "$1" -gt "$stop_stage" ]; then return 1; fi
  current_stage="stage $1 ($2)"
  echo "== $current_stage"
}

# is_done STAMP SETTINGS [INPUT...]: true if the stamp was made with the same SETTINGS and is newer
# than every input.
is_done() {
  local stamp=$1 settings=$2 input
  shift 2
  [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$settings" ] || return 1
  for input in "$@"; do
    if [ ! -e "$input" ] || [ "$input" -nt "$stamp" ]; then return 1; fi
  done
  echo "   done already"
}

# mark_done STAMP SETTINGS: write the stamp that is_done reads.
mark_done() { printf '%s\n' "$2" >"$1"; }
