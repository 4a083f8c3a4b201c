#!/usr/bin/env bash
# Sourced by every script: the project's own environment first, Chinese text as UTF-8.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [ -x "$root/.venv/bin/python" ]; then export PATH="$root/.venv/bin:$PATH"; fi
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
export LC_ALL=C.UTF-8
unset root
