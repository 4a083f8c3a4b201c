import dataclasses

import numpy as np
import pytest
import torch
import torchaudio.compliance.kaldi as kaldi

from wekws.dataset import features
from wekws.dataset.dataset_conf import DatasetConfig
from wekws.dataset.feature_view import FbankConfig
from wekws.dataset.features import expand_context, fbank
from wekws.errors import ConfigError, DataError

RATE = 16000
FRONT_END = DatasetConfig().front_end


def front_end(left, right, skip):
    return dataclasses.replace(FRONT_END, left_context=left, right_context=right, frame_skip=skip)


def loop_expansion(feats, lengths, left, right, skip):
    """One frame at a time: what expand_context must equal."""
    batch, num_frames, num_features = feats.shape
    out = torch.zeros(batch, -(-num_frames // skip), (left + 1 + right) * num_features)
    for b in range(batch):
        for t in range(-(-int(lengths[b]) // skip)):
            window = [
                feats[b, min(max(t * skip + offset, 0), int(lengths[b]) - 1)]
                for offset in range(-left, right + 1)
            ]
            out[b, t] = torch.cat(window)
    return out


@pytest.mark.parametrize(
    ("left", "right", "skip"), [(2, 2, 3), (0, 0, 1), (1, 0, 2), (0, 3, 4), (5, 5, 1)]
)
def test_expand_context_equals_a_loop(left, right, skip):
    lengths = torch.tensor([7, 1, 4, 6, 3])
    feats = torch.randn(5, 7, 3)
    expanded, out_lengths = expand_context(feats, lengths, front_end(left, right, skip))
    assert torch.equal(expanded, loop_expansion(feats, lengths, left, right, skip))
    assert out_lengths.tolist() == [-(-n // skip) for n in lengths.tolist()]


def test_expand_context_by_hand():
    # Frames 1 2 3 4, the fifth is padding; centres 0 and 3.
    feats = torch.tensor([[[1.0], [2.0], [3.0], [4.0], [99.0]]])
    expanded, lengths = expand_context(feats, torch.tensor([4]), front_end(2, 2, 3))
    assert expanded.tolist() == [[[1, 1, 1, 2, 3], [2, 3, 4, 4, 4]]]
    assert lengths.tolist() == [2]


def test_expand_context_of_an_empty_utterance_is_zero():
    expanded, lengths = expand_context(
        torch.ones(2, 3, 2), torch.tensor([3, 0]), front_end(1, 1, 3)
    )
    assert lengths.tolist() == [1, 0]
    assert expanded[1].abs().sum() == 0 and expanded[0].sum() == 6


def test_fbank_is_kaldis_on_the_int16_scale():
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 8000).astype(np.float32)
    expected = kaldi.fbank(
        torch.from_numpy(samples)[None] * 32768,
        num_mel_bins=80,
        frame_length=25,
        frame_shift=10,
        dither=0.0,
        energy_floor=0.0,
        sample_frequency=RATE,
    )
    bare = dataclasses.replace(FRONT_END, expected_dither=0.0)
    feats = fbank(samples, bare)
    assert feats.dtype == torch.float32
    assert torch.equal(feats, expected)
    assert torch.equal(fbank(torch.from_numpy(samples), bare), expected)


@pytest.mark.parametrize("num_samples", [400, 559, 560, 561, 16000])
def test_number_of_frames(num_samples):
    feats = fbank(np.ones(num_samples, np.float32), FRONT_END)
    assert len(feats) == FRONT_END.num_frames(num_samples)
    assert feats.isfinite().all()


def test_number_of_frames_of_little_audio():
    assert FRONT_END.num_frames(399) == 0
    assert FRONT_END.num_frames(0) == 0
    with pytest.raises(DataError, match="399 samples"):
        fbank(np.zeros(399, np.float32), FRONT_END)


def test_dither_comes_from_the_generator():
    samples = np.zeros(1600, np.float32)
    first, again, other = (
        fbank(samples, FRONT_END, dither=1.0, rng=np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    # White noise of power 1 gives the energies that Kaldi's dither gives: about the same level.
    torch.manual_seed(0)
    theirs = kaldi.fbank(torch.zeros(1, 16000), num_mel_bins=80, dither=1.0, energy_floor=0.0)
    ours = fbank(np.zeros(16000, np.float32), FRONT_END, dither=1.0, rng=np.random.default_rng(0))
    assert abs(theirs.mean() - ours.mean()) < 0.1


@pytest.mark.parametrize("changes", [{}, {"sample_rate_hz": 8000, "num_mel_bins": 23}])
def test_audio_without_dither_gets_its_expected_energy(changes):
    end = dataclasses.replace(FRONT_END, expected_dither=2.0, **changes)
    zeros = np.zeros(60 * end.sample_rate_hz, np.float32)
    noisy = fbank(zeros, end, dither=2.0, rng=np.random.default_rng(0)).exp()
    silent = fbank(zeros, end).exp()
    assert torch.equal(silent, silent[:1].expand_as(silent))
    # Of 6000 windows the mean in a narrow bin is within a few percent.
    torch.testing.assert_close(noisy.mean(dim=0), silent[0], rtol=0.08, atol=0)
    assert (noisy.mean(dim=0) / silent[0]).mean() == pytest.approx(1, abs=0.01)
    samples = 0.1 * np.random.default_rng(1).standard_normal(end.sample_rate_hz).astype(np.float32)
    bare = fbank(samples, dataclasses.replace(end, expected_dither=0.0))
    torch.testing.assert_close(fbank(samples, end).exp(), bare.exp() + silent[0], rtol=1e-5, atol=0)


def test_config_refuses_a_hop_longer_than_the_window():
    with pytest.raises(ConfigError, match="frame_shift"):
        FbankConfig(frame_shift=30.0)


@pytest.mark.parametrize("num_samples", [16000, 7 * 160 * 10 + 240, 160 * 20 + 240, 160 * 20 + 400])
def test_long_audio_in_parts_gives_the_same_features(monkeypatch, num_samples):
    samples = 0.1 * np.random.default_rng(1).standard_normal(num_samples).astype(np.float32)
    whole = fbank(samples, FRONT_END, dither=1.0, rng=np.random.default_rng(2))
    monkeypatch.setattr(features, "_CHUNK_FRAMES", 10)
    parts = fbank(samples, FRONT_END, dither=1.0, rng=np.random.default_rng(2))
    assert len(parts) == FRONT_END.num_frames(num_samples)
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("num_samples", [399, 400, 3600, 3759, 3760, 20000])
@pytest.mark.parametrize("piece", [37, 5000, 30000])
def test_pieces_of_a_recording_give_the_same_bits(monkeypatch, num_samples, piece):
    # 20 frames at a time are 3440 samples; 3600 are 21 frames, one more than a whole piece.
    monkeypatch.setattr(features, "_CHUNK_FRAMES", 20)
    rng = np.random.default_rng(0)
    samples = (0.1 * rng.standard_normal(num_samples)).astype(np.float32)
    pieces = [samples[i : i + piece] for i in range(0, num_samples, piece)]
    found = list(features.fbank_pieces(pieces, FRONT_END))
    if num_samples < 400:
        assert found == []
        return
    whole = fbank(samples, FRONT_END)
    assert torch.equal(torch.cat(found), whole)
    expanded, _ = expand_context(whole[None], torch.tensor([len(whole)]), FRONT_END)
    parts = features.expanded_pieces(iter(found), FRONT_END)
    assert torch.equal(torch.cat(list(parts)), expanded[0])


@pytest.mark.parametrize(("left", "right", "skip"), [(2, 2, 3), (0, 0, 1), (0, 3, 4), (5, 5, 7)])
def test_pieces_of_any_size_are_expanded_alike(left, right, skip):
    end = dataclasses.replace(front_end(left, right, skip), num_mel_bins=3)
    feats = torch.randn(29, 3)
    expanded, _ = expand_context(feats[None], torch.tensor([29]), end)
    for size in (1, 2, 5, 29):
        parts = list(features.expanded_pieces(feats.split(size), end))
        assert torch.equal(torch.cat(parts), expanded[0])
