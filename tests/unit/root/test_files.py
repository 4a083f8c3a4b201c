import os

import pytest

from wekws.errors import ConfigError
from wekws.files import atomic_path, file_lock, file_sha256
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
