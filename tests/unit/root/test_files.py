import errno
import os
import re
import signal
import subprocess
import sys
import threading

import pytest

from wekws.errors import ConfigError
from wekws.files import atomic_path, file_lock, file_sha256, hold_folder, require_not_input
from wekws.log import run
from wekws.machine import usable_cores
from wekws.yaml_files import read_yaml, write_yaml


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_finished_write_replaces_the_file_with_ordinary_permissions(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with atomic_path(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"
    mask = os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask


def test_sha256_of_abc(tmp_path):
    # FIPS 180-2, appendix B.1.
    (tmp_path / "abc").write_text("abc")
    assert file_sha256(tmp_path / "abc").startswith("ba7816bf8f01cfea414140de5dae2223")


def test_yaml_keeps_chinese_and_order(tmp_path):
    write_yaml(tmp_path / "a.yaml", {"b": "嗨小问", "a": 1})
    assert (tmp_path / "a.yaml").read_text(encoding="utf-8") == "b: 嗨小问\na: 1\n"


def test_broken_yaml_names_the_file(tmp_path):
    (tmp_path / "a.yaml").write_text("a: [1")
    with pytest.raises(ConfigError, match="a.yaml"):
        read_yaml(tmp_path / "a.yaml")
    with pytest.raises(ConfigError, match="no such file"):
        read_yaml(tmp_path / "b.yaml")


def test_a_users_mistake_is_status_2_without_traceback(capsys):
    def main():
        raise ConfigError("conf.yaml: no")

    assert run(main) == 2
    assert capsys.readouterr().err.strip().endswith("error: conf.yaml: no")
    assert run(lambda: None) == 0


def test_a_key_that_occurs_twice_is_refused_with_its_line(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("optim_conf:\n  lr: 0.1\n  weight_decay: 0\n  lr: 0.2\n")
    with pytest.raises(ConfigError) as caught:
        read_yaml(path)
    assert str(caught.value) == f"{path}:4: key 'lr' occurs twice, first on line 2; remove one"


def test_a_key_may_override_a_merged_one(tmp_path):
    (tmp_path / "a.yaml").write_text("x: &x {a: 1, b: 2}\ny:\n  <<: *x\n  a: 3\n")
    assert read_yaml(tmp_path / "a.yaml")["y"] == {"a": 3, "b": 2}


def test_a_lock_is_held_by_one(tmp_path):
    with file_lock(tmp_path / "lock"):
        with pytest.raises(BlockingIOError), file_lock(tmp_path / "lock", wait=False):
            pass
    with file_lock(tmp_path / "lock", wait=False):
        pass


def test_without_fcntl_a_lock_says_that_it_locks_nothing(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("wekws.files.fcntl", None)
    with file_lock(tmp_path / "lock"), file_lock(tmp_path / "lock", wait=False):
        assert "not locked, this system has no fcntl" in caplog.text


def test_cores_are_counted_on_systems_without_affinity(monkeypatch):
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert usable_cores() == os.cpu_count()


@pytest.mark.parametrize(
    ("error", "message", "status"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a.pt"), "a.pt: No space.*free some", 2),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "exp"), "exp: Is a dir.*expected a", 2),
        (FileExistsError(errno.EEXIST, "File exists", "x"), "x: File exists; expected a folder", 2),
        (MemoryError("3 GB"), "out of memory: 3 GB", 2),
        (
            AttributeError("no 'x'\nmore"),
            "unexpected Attr.* at .*test_files.py:.*no 'x'",
            1,
        ),
    ],
)
def test_whatever_goes_wrong_is_one_line(capsys, monkeypatch, error, message, status):
    def main():
        raise error

    monkeypatch.setenv("WEKWS_LOG", "INFO")
    assert run(main) == status
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and re.match(f"error: {message}", said)
    monkeypatch.setenv("WEKWS_LOG", "DEBUG")
    run(main)
    assert ("Traceback" in capsys.readouterr().err) == (status == 1)


def test_an_error_while_writing_names_the_file(tmp_path):
    with pytest.raises(OSError) as caught, atomic_path(tmp_path / "a.txt"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.filename == str(tmp_path / "a.txt")
    with pytest.raises(OSError) as caught, atomic_path(tmp_path / "a.txt") as temporary:
        raise OSError(errno.EROFS, "Read-only file system", str(temporary))
    assert caught.value.filename == str(tmp_path / "a.txt")
    long = tmp_path / ("x" * 250)
    with pytest.raises(OSError) as caught, atomic_path(long):
        pass
    assert caught.value.filename == str(long)
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError) as caught, atomic_path(tmp_path / "folder"):
        pass
    assert caught.value.filename == str(tmp_path / "folder")


def test_an_output_is_not_an_input(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("text")
    require_not_input("text", None, "other", tmp_path / "data.list")
    for same in ("text", "./text", "link", tmp_path / "text"):
        with pytest.raises(ConfigError, match="text: is an input too"):
            require_not_input("text", "other", same)


def test_a_folder_that_is_held_is_refused_to_others(tmp_path):
    folder = tmp_path / "run"
    with hold_folder(folder):
        with (
            pytest.raises(ConfigError, match="run: another process is writing"),
            hold_folder(folder),
        ):
            pass
        assert os.listdir(folder) == []
    with hold_folder(folder):
        pass


@pytest.mark.parametrize(
    ("text", "message"),
    [("[" * 20000, "nested too deeply"), ("a: 1 #" + "x" * 600_000, "longer than 524288")],
)
def test_yaml_that_is_no_configuration_is_refused(tmp_path, text, message):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_yaml(tmp_path / "a.yaml")


def test_a_thread_of_a_library_that_fails_is_one_warning(capsys):
    def fail():
        raise OSError(errno.ENOSPC, "No space left on device")

    def main():
        thread = threading.Thread(target=fail, name="writer")
        thread.start()
        thread.join()

    hook = threading.excepthook
    try:
        assert run(main) == 0
    finally:
        threading.excepthook = hook
    said = capsys.readouterr().err
    assert "thread writer ended: No space left on device; free some" in said
    assert "Traceback" not in said


def test_a_worker_ends_with_its_parent():
    """A killed parent can end nothing itself; Ctrl-C reaches the worker too, which ignores it."""
    code = """
import os, signal, sys, time
from concurrent.futures import ProcessPoolExecutor
from wekws.machine import follow_parent
pool = ProcessPoolExecutor(1, initializer=follow_parent)
worker = pool.submit(os.getpid).result()
os.kill(worker, signal.SIGINT)
assert pool.submit(os.getpid).result() == worker
os.kill(os.getpid(), signal.SIGKILL)
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    said, _ = parent.communicate(timeout=60)  # ends when no process holds the pipe any more
    assert (parent.returncode, said) == (-signal.SIGKILL, "")
