import sys
from pathlib import Path

import pytest

from wekws.dataset.manifest import read_kaldi_table
from wekws.errors import ConfigError, DataError

sys.path.insert(0, str(Path(__file__).parents[3] / "tools"))
import fewer_clips  # noqa: E402


@pytest.fixture
def recordings(tmp_path):
    """Speaker a has six clips of the keyword, b and c have two; and a sentence with it."""
    folder = tmp_path / "mine"
    keys = [f"{speaker}{i}" for speaker, num in (("a", 6), ("b", 2), ("c", 2)) for i in range(num)]
    for split in ("train", "dev", "test"):
        (folder / split).mkdir(parents=True)
        texts = {key: "jarvis" for key in keys} | {"other": "JARVIS LISTEN"}
        for name, value in (("text", texts.get), ("wav.scp", lambda k: f"wav/{k}.wav")):
            rows = "".join(f"{key} {value(key)}\n" for key in texts)
            (folder / split / name).write_text(rows)
        (folder / split / "utt2spk").write_text("".join(f"{key} {key[0]}\n" for key in texts))
    return folder


@pytest.mark.parametrize(
    ("few", "expected"), [((), {"a": 1, "b": 1, "c": 1}), (("--few_speakers",), {"a": 3})]
)
def test_clips_of_many_or_few_speakers(recordings, tmp_path, few, expected, capsys):
    out = tmp_path / "out"
    flags = ["--data_dir", recordings, "--keywords", "JARVIS", "--clips", 3, "--out_dir", out, *few]
    assert fewer_clips.main(list(map(str, flags))) == 0
    kept = read_kaldi_table(out / "train" / "text")
    speakers = [key[0] for key in kept if key != "other"]
    assert {speaker: speakers.count(speaker) for speaker in set(speakers)} == expected
    assert capsys.readouterr().out == f"JARVIS: 3 of 10 clips, {len(expected)} speakers\n"
    assert read_kaldi_table(out / "train" / "utt2spk").keys() == kept.keys()
    assert len(read_kaldi_table(out / "test" / "text")) == 11
    wavs = read_kaldi_table(out / "train" / "wav.scp")
    assert wavs["other"] == str(recordings / "wav/other.wav") and wavs.keys() == kept.keys()


def test_too_many_clips_and_folders_in_the_way_are_refused(recordings, tmp_path):
    flags = ["--data_dir", str(recordings), "--keywords", "JARVIS", "--clips"]
    with pytest.raises(DataError, match="10 clips of JARVIS; expected 11"):
        fewer_clips.main([*flags, "11", "--out_dir", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match="exists; name a new folder"):
        fewer_clips.main([*flags, "2", "--out_dir", str(recordings)])
    (recordings / "train/utt2spk").write_text("a0 a\n")
    with pytest.raises(DataError, match="utt2spk: a1 has no speaker"):
        fewer_clips.main([*flags, "2", "--out_dir", str(tmp_path / "out")])


def test_audio_beside_the_tables_is_no_table(recordings, tmp_path):
    (recordings / "train/a0.wav").write_bytes(b"\xff\xfe\x00")
    flags = ["--data_dir", str(recordings), "--keywords", "JARVIS", "--clips", "2"]
    assert fewer_clips.main([*flags, "--out_dir", str(tmp_path / "out")]) == 0
