"""tools/parse_options.sh by itself: what becomes of the words after a script's name."""

import subprocess

import pytest
from recipe_copy import ROOT

SCRIPT = """#!/usr/bin/env bash
# What the script does.
#
#   bash script.sh --name value
set -euo pipefail
# Not part of the help.
name=nobody
epochs_2=
is_quick=false
. "{parser}"
printf '%s|' "$name" "$epochs_2" "$is_quick"
"""


@pytest.fixture
def run(tmp_path):
    script = tmp_path / "script.sh"
    script.write_text(SCRIPT.format(parser=ROOT / "tools" / "parse_options.sh"))
    return lambda *words: subprocess.run(
        ["bash", str(script), *words], capture_output=True, encoding="utf-8"
    )


@pytest.mark.parametrize(
    ("words", "values"),
    [
        ([], "nobody||false|"),
        (["--name", "你好 *; $(ls)", "--is_quick", "true"], "你好 *; $(ls)||true|"),
        (["--epochs_2", "7", "--epochs_2", "8"], "nobody|8|false|"),
        (["--name", "", "--epochs_2", "--name"], "|--name|false|"),
    ],
)
def test_values_arrive_as_they_are(run, words, values):
    done = run(*words)
    assert (done.returncode, done.stdout, done.stderr) == (0, values, "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--nam", "x"], "unknown option --nam"),
        (["--name=x"], "unknown option --name=x"),
        (["--PATH", "/"], "unknown option --PATH"),
        (["--_option", "x"], "unknown option --_option"),
        (["--option", "x"], "unknown option --option"),
        (["--", "x"], "unknown option --;"),
        (["--name"], "--name: expected a value"),
        (["--is_quick", "yes"], "--is_quick yes: expected true or false"),
        (["--name", "x", "3"], "stray argument '3'"),
        (["-n", "x"], "stray argument '-n'"),
        ([""], "stray argument ''"),
    ],
)
def test_anything_else_is_refused(run, words, message):
    done = run(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_is_the_head_comment(run, flag):
    done = run("--name", "x", flag, "stray")
    assert done.returncode == 0
    assert done.stdout == "What the script does.\n\n  bash script.sh --name value\n"
