"""What makes a data stage run again."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from wekws.bin import stage_inputs
from wekws.dataset.stage_inputs import stage_fingerprint

ROOT = Path(__file__).parents[3]


@pytest.fixture
def inputs(tmp_path):
    for name in ("a.wav", "noise/b.wav", "noise/deep/c.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(b"RIFF")
    (tmp_path / "wav.scp").write_text(f"a {tmp_path}/a.wav\n")
    (tmp_path / "text").write_text("a AB\n")
    return tmp_path


def fingerprint(folder, settings="x"):
    return stage_fingerprint(
        settings,
        tables=[folder / "text", folder / "utt2spk"],
        audio_tables=[folder / "wav.scp"],
        folders=[folder / "noise"],
    )


def keep_time(path, content):
    """Write a file so that it looks as old as before."""
    before = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: keep_time(folder / "text", b"a BA\n"),
        lambda folder: keep_time(folder / "a.wav", b"RIF"),
        lambda folder: (folder / "a.wav").write_bytes(b"WAVE"),
        lambda folder: (folder / "a.wav").unlink(),
        lambda folder: keep_time(folder / "noise/deep/c.wav", b""),
        lambda folder: (folder / "noise/d.wav").touch(),
        lambda folder: (folder / "utt2spk").touch(),
    ],
    ids=["text", "truncated", "replaced", "deleted", "noise", "new noise", "new table"],
)
def test_a_change_of_any_input_is_noticed(inputs, change):
    before = fingerprint(inputs)
    assert fingerprint(inputs) == before != fingerprint(inputs, "y")
    os.utime(inputs / "text", (1, 1))
    assert fingerprint(inputs) == before, "of a table the content counts"
    change(inputs)
    assert fingerprint(inputs) != before


def test_the_command_prints_it(inputs, capsys):
    flags = ["--settings", "x", "--tables", inputs / "text", inputs / "utt2spk"]
    flags += ["--audio_tables", inputs / "wav.scp", "--folders", inputs / "noise"]
    assert stage_inputs.main([str(flag) for flag in flags]) == 0
    assert capsys.readouterr().out.strip() == fingerprint(inputs)


def test_what_was_begun_with_other_settings_is_not_done_with_the_old_ones(tmp_path):
    """A stage that was interrupted has replaced some of the files that the old stamp stands for."""
    for name in ("out", "stage.sh"):
        (tmp_path / name).write_text("x")
    (tmp_path / "stage.sh").write_text(
        f"PATH={Path(sys.executable).parent}:$PATH; . {ROOT}/tools/stages.sh\n"
        'stage_outputs=("$1/out")\n'
        'if is_done "$1/stamp" "$2"; then exit 0; fi\n'
        'if [ "$3" = finish ]; then mark_done "$1/stamp"; fi; exit 3\n'
    )

    def stage(settings, end):
        words = ["bash", str(tmp_path / "stage.sh"), str(tmp_path), settings, end]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(words, env=environment, capture_output=True).returncode

    assert [stage("a", "finish"), stage("a", "finish")] == [3, 0]
    assert [stage("b", "killed"), stage("a", "killed")] == [3, 3]


def test_a_folder_is_held_by_the_shell_that_opened_it(tmp_path):
    hold = f'exec 9<"$1"; {sys.executable} -m wekws.bin.hold_folder --handle 9 --folder "$1"'
    (tmp_path / "hold.sh").write_text(hold)
    again = f"bash {tmp_path}/hold.sh $1"
    both = f"{hold}; {again} || echo refused; exec 9<&-; {again}"
    done = subprocess.run(
        ["bash", "-c", f"{both} && echo free", "bash", str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert f"{tmp_path}: another process is writing into this folder" in done.stderr
    assert done.stdout == "refused\nfree\n"
