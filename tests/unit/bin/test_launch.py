"""Several processes of one training on this machine."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SHOW = (
    "import os; print(*(os.environ[n] for n in ('RANK', 'LOCAL_RANK', 'WORLD_SIZE')), flush=True)"
)


def launch(num, code, **options):
    command = [sys.executable, "-m", "wekws.bin.launch", str(num), "-c", code]
    return subprocess.run(command, capture_output=True, text=True, **options)


def test_the_first_process_speaks_for_all(tmp_path):
    mark = f"open(r'{tmp_path}/' + os.environ['RANK'], 'w').close()"
    done = launch(3, f"{SHOW}; {mark}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "0 0 3\n", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("ends", "status", "said"),
    [
        ({0: "2", 1: "75"}, 2, ["0"]),
        ({0: "75", 1: "2"}, 2, ["0", "1"]),
        ({0: "75", 1: "75"}, 75, ["0"]),
        ({0: "0", 1: "1"}, 1, ["0", "1"]),
        # One waits for the other, as in an exchange.
        ({0: "time.sleep(60)", 1: "2"}, 2, ["0", "1"]),
        ({0: "2", 1: "time.sleep(60)"}, 2, ["0"]),
        ({0: "0", 1: "os.kill(os.getpid(), 9)"}, 137, ["0", "1", "process 1 ended by SIGKILL"]),
    ],
)
def test_the_lines_of_the_process_to_blame(ends, status, said):
    began = time.monotonic()
    code = (
        "import os, sys, time; rank = int(os.environ['RANK']); "
        "sys.stderr.write(f'WARNING of {rank}\\n'); "
        f"sys.stderr.write(f'error: {{rank}}\\n'); sys.exit(eval({ends}[rank]))"
    )
    done = launch(2, code)
    assert done.returncode == status
    lines = done.stderr.splitlines()
    assert [line for line in lines if "error" in line] == [f"error: {text}" for text in said]
    # What is no error is shown, whichever process says it.
    assert sorted(line for line in lines if "WARNING" in line) == ["WARNING of 0", "WARNING of 1"]
    assert len(lines) == len(said) + 2
    assert time.monotonic() - began < 30


def test_interrupted_or_killed_it_takes_its_processes_along(tmp_path):
    code = f"import os, time; open(r'{tmp_path}/' + str(os.getpid()), 'w').close(); time.sleep(60)"
    for end in (signal.SIGINT, signal.SIGKILL if sys.platform == "linux" else signal.SIGTERM):
        command = [sys.executable, "-m", "wekws.bin.launch", "2", "-c", code]
        parent = subprocess.Popen(
            command,
            stderr=subprocess.DEVNULL,
            # A shell's background jobs, these tests among them, may ignore SIGINT.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        while len(list(tmp_path.iterdir())) < 2:
            time.sleep(0.05)
        parent.send_signal(end)
        assert parent.wait(20) == (130 if end == signal.SIGINT else -end)
        for path in tmp_path.iterdir():
            deadline = time.monotonic() + 20
            while _is_alive(int(path.name)):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            path.unlink()


def _is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_wrong_call_is_explained():
    done = subprocess.run(
        [sys.executable, "-m", "wekws.bin.launch", "0", "x"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "expected a number of processes from 1 and a command" in done.stderr
