#!/usr/bin/env bash
# Sourced: which stages run, which are done, and the name of the one that fails.
current_stage=
status=0
trap 'status=$?; if [ $status -ne 0 ] && [ -n "$current_stage" ]; then
  echo "$0: $current_stage failed (status $status)" >&2; fi' EXIT

# begin_stage NUMBER TITLE: true if --stage and --stop_stage ask for it.
begin_stage() {
  current_stage=
  # shellcheck disable=SC2154 # stage and stop_stage are options of the script that sources this
  if [ "$1" -lt "$stage" ] || [ "$1" -gt "$stop_stage" ]; then return 1; fi
  current_stage="stage $1 ($2)"
  echo "== $current_stage"
}

# is_done STAMP WHAT [INPUT...]: true if the stamp is for the same WHAT and newer than every input.
is_done() {
  local stamp=$1 what=$2 input
  shift 2
  [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$what" ] || return 1
  for input in "$@"; do
    if [ ! -e "$input" ] || [ "$input" -nt "$stamp" ]; then return 1; fi
  done
  echo "   done already"
}

# mark_done STAMP WHAT
mark_done() { printf '%s\n' "$2" >"$1"; }
