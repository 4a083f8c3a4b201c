#!/usr/bin/env bash
# Sourced: turns `--name value` into the variable `name`, which must have a default already.
# A flag without a default and a stray word are errors. --help prints the script's head comment.
while [ $# -gt 0 ]; do
  case "$1" in
    --help | -h)
      sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p}' "$0"
      exit 0
      ;;
    --*)
      _option=${1#--}
      if [[ ! $_option =~ ^[a-z][a-z0-9_]*$ ]] || [ -z "${!_option+set}" ]; then
        echo "$0: unknown option $1; $0 --help lists them" >&2
        exit 2
      fi
      if [ $# -lt 2 ]; then
        echo "$0: $1: expected a value" >&2
        exit 2
      fi
      case "${!_option}" in
        true | false)
          if [ "$2" != true ] && [ "$2" != false ]; then
            echo "$0: $1 $2: expected true or false" >&2
            exit 2
          fi
          ;;
      esac
      printf -v "$_option" '%s' "$2"
      shift 2
      ;;
    *)
      echo "$0: stray argument '$1'; options are given as --name value" >&2
      exit 2
      ;;
  esac
done
unset _option
