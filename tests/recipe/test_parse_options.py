"""tools/parse_options.sh by itself."""

import re
import subprocess

import pytest
from recipe_copy import ROOT

SCRIPT = """#!/usr/bin/env bash
# Purpose of the script.
#
#   bash script.sh --name value
# shellcheck disable=SC2034
set -euo pipefail
# Not part of the help.
name=nobody             # whose name
epochs_2=               # training length of the second model, which is explained at some length
                        # over two lines [those of the first]
is_quick=false          # skip the rest
places=                 # where; may be repeated
. "{parser}"
later=1                 # not an option
printf '%s|' "$name" "$epochs_2" "$is_quick" "$places"
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
        ([], "nobody||false||"),
        (["--name", "你好 *; $(ls)", "--is_quick", "true"], "你好 *; $(ls)||true||"),
        (["--epochs_2", "7", "--epochs_2", "8"], "nobody|8|false||"),
        (["--name", "", "--epochs_2", "--other"], "|--other|false||"),
        (["--is_quick"], "nobody||true||"),
        (["--is_quick", "--name", "x"], "x||true||"),
        (["--places", "a b", "--name", "x", "--places", "c"], "x||false|a b,c|"),
    ],
)
def test_values_arrive_as_they_are(run, words, values):
    done = run(*words)
    assert (done.returncode, done.stdout, done.stderr) == (0, values, "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--name", "--is_quick"], "--name: expected a value, found --is_quick"),
        (["--nam", "x"], "unknown option --nam"),
        (["--name=x"], "unknown option --name=x"),
        (["--PATH", "/"], "unknown option --PATH"),
        (["--_option", "x"], "unknown option --_option"),
        (["--option", "x"], "unknown option --option"),
        (["--later", "x"], "unknown option --later"),
        (["--http_proxy", "x"], "unknown option --http_proxy"),
        (["--name epochs_2", "x"], "unknown option --name epochs_2"),
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
def test_help_is_the_head_comment_and_every_option(run, flag):
    done = run("--name", "x", flag, "stray")
    assert done.returncode == 0
    assert done.stdout == HELP


HELP = """Purpose of the script.

  bash script.sh --name value

options:
  --name                whose name (default: nobody)
  --epochs_2            training length of the second model, which is explained at some length over
                        two lines [those of the first]
  --is_quick            skip the rest (default: false)
  --places              where; may be repeated
"""


def test_the_environment_sets_no_option(run, monkeypatch):
    monkeypatch.setenv("name", "of the environment")
    monkeypatch.setenv("http_proxy", "proxy")
    assert run().stdout == "nobody||false||"
    assert "unknown option" in run("--http_proxy", "x").stderr


@pytest.mark.parametrize("script", ["run_distill.sh", "evaluate.sh"])
def test_every_option_of_the_scripts_is_explained(script):
    done = subprocess.run(
        ["bash", str(ROOT / script), "--help"], capture_output=True, encoding="utf-8", cwd="/"
    )
    options = re.findall(r"^  --(\w+) +(.*)$", done.stdout, re.MULTILINE)
    block = (ROOT / script).read_text("utf-8").partition(". tools/parse_options.sh")[0]
    assert [name for name, _ in options] == re.findall(r"^([a-z]\w*)=", block, re.MULTILINE)
    assert all(re.search("[a-z]{2}", text) for _, text in options)
    assert all(len(line) <= 100 for line in done.stdout.splitlines())
