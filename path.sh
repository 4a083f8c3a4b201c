#!/usr/bin/env bash
# Sourced by every script: checks bash, puts the project's own environment first on the path, and
# sets UTF-8 for Chinese text.
if ((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] < 404)); then
  echo "$0: needs bash 4.4 or newer, found $BASH_VERSION (macOS: brew install bash)" >&2
  exit 2
fi
root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [ -x "$root/.venv/bin/python" ]; then export PATH="$root/.venv/bin:$PATH"; fi
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
if [ "$(uname)" = Darwin ]; then export LC_ALL=en_US.UTF-8; else export LC_ALL=C.UTF-8; fi
unset root
