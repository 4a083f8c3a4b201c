"""How much audio a run has, before and after its lists are made."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from dry_runs import ROOT, defaults

from wekws.dataset.manifest import SPLITS
from wekws.shell import UserPaths
from wekws.sweep.audio_amount import AudioAmount, audio_amounts
from wekws.sweep.recipe_options import read_options
from wekws.sweep.resolve_recipe import resolve


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Folder with recordings of 1 s (4 in train, 2 in dev, 1 in test) and negatives."""
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    monkeypatch.chdir(tmp_path)
    for split, num in zip(SPLITS, (4, 2, 1), strict=True):
        names = [f"{split}{i}" for i in range(num)]
        for name in names:
            write_wav(tmp_path / f"own/{name}.wav", 1.0)
        (tmp_path / f"own/{split}").mkdir()
        for table, value in (("wav.scp", "{}.wav"), ("text", "AB")):
            rows = "".join(f"{name} {value.format(name)}\n" for name in names)
            (tmp_path / f"own/{split}/{table}").write_text(rows)
    write_wav(tmp_path / "noise/train/long.wav", 25.0)
    write_wav(tmp_path / "noise/dev/long.wav", 25.0)
    return tmp_path


def write_wav(path: Path, seconds: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(round(1000 * seconds)), 1000, subtype="PCM_16")


def amounts(*options):
    read = read_options([*defaults(), "keywords=AB", *options])
    return audio_amounts(resolve(read, UserPaths(Path())))


OWN = ("data_dir=own", "synth_positives=0")


def test_recordings_are_counted_in_their_folders(project):
    found = amounts(*OWN)
    assert [a.num for a in (found.train, found.dev, found.test)] == [4, 2, 1]
    assert found.train.seconds == pytest.approx(4.0)
    assert set(found.train.files.values()) == {1.0}
    assert found.base is found.train


def test_negatives_join_and_long_ones_are_cut_for_training(project):
    found = amounts(*OWN, "negatives=noise")
    # 25 s: three pieces in train, one in dev; 25 of 29 seconds and of 27.
    assert (found.train.num, found.dev.num, found.test.num) == (7, 3, 1)
    assert found.train.seconds == pytest.approx(29.0, rel=0.01)
    assert found.dev.seconds == pytest.approx(27.0, rel=0.01)


def test_the_base_of_recordings_hears_synthesised_speech(project):
    found = amounts("data_dir=own", "synth_positives=300", "units=letters")
    assert found.base.num == 1500
    assert found.train.num == 4
    assert amounts("data_dir=own", "synth_positives=300", "synth_for=all").train.num == 1504


def test_what_is_not_known_before_the_lists(project):
    assert amounts("corpus=mobvoi", "download_dir=own").train is None
    found = amounts("from_text=true", "size=tiny", "negatives=noise", "language=en")
    assert found.train is None  # only transcribed negatives join it
    assert found.dev is not None
    (project / "own/train/wav.scp").write_text("a\nb b.wav\n")
    assert amounts(*OWN).train.num == 2  # validation names the line
    (project / "noise/dev/wav.scp").write_text("")
    assert amounts(*OWN, "negatives=noise").train is None


def test_lists_count_once_they_are_there(project):
    folder = project / "data/own/train"
    folder.mkdir(parents=True)
    line = json.dumps({"key": "a", "wav": "a.wav", "duration": 2.5})
    (folder / "data.list").write_text(f"{line}\n{line}\n[1]\n{{}}\n")
    found = amounts(*OWN)
    assert (found.train.num, found.train.seconds) == (4, 10.0)
    assert found.train.files == {"a.wav": 2.5}
    assert found.dev.num == 2


def test_seconds_up_to_a_length():
    amount = AudioAmount(20, [1.0, 9.0])
    assert amount.seconds == 100.0
    assert amount.seconds_up_to(5.0) == 10.0
