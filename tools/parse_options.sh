#!/usr/bin/env bash
# Sourced after the option block of a script: the lines `name=default  # explanation` above.
# `--name value` sets the variable `name`; a flag whose default is true or false may stand alone.
# An option whose explanation says `may be repeated`, and that has no default, collects its values,
# joined by commas; of any other the last one counts. An option in a value's place, a flag that is
# not in the block and a stray word are errors. --help prints the head comment of the script and the
# block. Afterwards OPTION_VALUES holds `name=value` for every option.
_script=$(basename "$0") # the scripts have changed to their own folder
if [ ! -f "$_script" ]; then _script=$0; fi
mapfile -t _options < <(sed -n '/^\. .*parse_options\.sh/q; s/^\([a-z][a-z0-9_]*\)=.*/\1/p' "$_script")

_repeated=" $(sed -n '/^\. .*parse_options\.sh/q
  s/^\([a-z][a-z0-9_]*\)= .*may be repeated.*/\1/p' "$_script" | tr '\n' ' ')"

print_help() {
  awk '
    function flush(  words, num, i, line) {
      if (name == "") { return }
      if (value != "") { text = text " (default: " value ")" }
      line = sprintf("  --%-19s", name)
      num = split(text, words, " ")
      for (i = 1; i <= num; i++) {
        if (length(line) + 1 + length(words[i]) > 100) { print line; line = sprintf("%23s", "") }
        line = line " " words[i]
      }
      print line
      name = ""
    }
    NR == 1 || /^# shellcheck/ { next }
    /^\. .*parse_options\.sh/ { flush(); exit }
    !in_options && /^#/ { sub(/^# ?/, ""); print; next }
    !in_options { in_options = 1; print "\noptions:" }
    name != "" && /^ +# / { sub(/^ +# /, ""); text = text " " $0; next }
    { flush() }
    /^[a-z][a-z0-9_]*=/ {
      text = ""; if (match($0, / +# /)) { text = substr($0, RSTART + RLENGTH) }
      value = $0; sub(/ +# .*/, "", value); sub(/^[^=]*=/, "", value); gsub(/"/, "", value)
      name = $0; sub(/=.*/, "", name)
    }
  ' "$_script"
}

while [ $# -gt 0 ]; do
  case "$1" in
    --help | -h) print_help; exit 0 ;;
    --*)
      _option=${1#--}
      if [[ ! $_option =~ ^[a-z][a-z0-9_]*$ || " ${_options[*]} " != *" $_option "* ]]; then
        _close=$(python -c 'import difflib, sys
for name in difflib.get_close_matches(sys.argv[1], sys.argv[2:], 1): print(f"; did you mean --{name}?")
' "$_option" "${_options[@]}")
        echo "$0: unknown option $1${_close:-; $0 --help lists them}" >&2
        exit 2
      fi
      case "${!_option}" in
        true | false)
          if [ $# -lt 2 ] || [[ $2 == --* ]]; then set -- "$1" true "${@:2}"; fi
          if [ "$2" != true ] && [ "$2" != false ]; then
            echo "$0: $1 $2: expected true or false" >&2
            exit 2
          fi
          ;;
        *)
          if [ $# -lt 2 ] || [[ $2 == --* && " ${_options[*]} " == *" ${2#--} "* ]]; then
            echo "$0: $1: expected a value${2:+, found $2}" >&2
            exit 2
          fi
          ;;
      esac
      if [[ $_repeated == *" $_option "* && -n ${!_option} ]]; then
        set -- "$1" "${!_option},$2" "${@:3}"
      fi
      printf -v "$_option" '%s' "$2"
      shift 2
      ;;
    *)
      echo "$0: stray argument '$1'; options are given as --name value" >&2
      exit 2
      ;;
  esac
done
OPTION_VALUES=()
for _option in "${_options[@]}"; do OPTION_VALUES+=("$_option=${!_option}"); done
unset _option _options _repeated _script _close
