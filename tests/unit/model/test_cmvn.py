import json
import logging

import pytest
import torch

from wekws.errors import DataError
from wekws.model.cmvn import GlobalCMVN, load_cmvn

# Two features over 4 frames: 1 3 1 3 (mean 2, variance 1) and 0 4 8 4 (mean 4, variance 8).
STATS = {"mean_stat": [8.0, 16.0], "var_stat": [20.0, 96.0], "frame_num": 4}
MEAN, ISTD = [2.0, 4.0], [1.0, 8.0**-0.5]


def kaldi(dim, shift, scale, splice="[ 0 ]"):
    return (
        f"<Nnet>\n<Splice> {dim} {dim}\n{splice}\n<!EndOfComponent>\n"
        f"<AddShift> {dim} {dim}\n<LearnRateCoef> 0 [ {' '.join(map(str, shift))} ]\n"
        f"<!EndOfComponent>\n<Rescale> {dim} {dim}\n"
        f"<LearnRateCoef> 0 [ {' '.join(map(str, scale))} ]\n<!EndOfComponent>\n</Nnet>\n"
    )


def test_json_is_summed_statistics_tiled_to_the_input(tmp_path):
    path = tmp_path / "global_cmvn"
    path.write_text(json.dumps(STATS))
    mean, istd = load_cmvn(path, 6)
    torch.testing.assert_close(mean, torch.tensor(MEAN * 3))
    torch.testing.assert_close(istd, torch.tensor(ISTD * 3))
    assert mean.dtype == istd.dtype == torch.float32


@pytest.mark.parametrize("dim", [80, 400])
def test_kaldi_is_recognised_by_content_and_both_sizes_fit(tmp_path, dim):
    path = tmp_path / "global_cmvn.json"  # the name does not matter
    path.write_text(kaldi(dim, [-k - 0.5 for k in range(dim)], [0.5 + k for k in range(dim)]))
    mean, istd = load_cmvn(path, 400)
    assert mean.shape == istd.shape == (400,)
    assert mean[0] == 0.5 and mean[dim - 1] == dim - 0.5
    assert torch.equal(mean[400 - dim :], mean[:dim])
    assert istd[79] == 79.5


def test_kaldi_without_learn_rate_and_over_lines(tmp_path):
    path = tmp_path / "cmvn"
    path.write_text("<Nnet>\n<AddShift> 2 2\n[ -1\n -2 ]\n<Rescale> 2 2 [ 3e0 4 ]\n</Nnet>\n")
    mean, istd = load_cmvn(path, 2)
    assert mean.tolist() == [1, 2] and istd.tolist() == [3, 4]


def test_variance_left_alone(tmp_path):
    path = tmp_path / "cmvn"
    path.write_text(json.dumps(STATS))
    assert load_cmvn(path, 2, norm_var=False)[1].tolist() == [1, 1]


def test_a_feature_that_never_varies_keeps_its_scale(tmp_path, caplog):
    path = tmp_path / "cmvn"
    path.write_text(
        json.dumps({"mean_stat": [80.0, 0.0], "var_stat": [1600.0, 4.0], "frame_num": 4})
    )
    with caplog.at_level(logging.WARNING):
        mean, istd = load_cmvn(path, 2)
    assert mean.tolist() == [20, 0] and istd.tolist() == [1, 1]
    assert "[0] are constant" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "neither JSON nor"),
        ("{", "not CMVN statistics"),
        ('{"mean_stat": [1], "var_stat": [1]}', "frame_num"),
        ('{"mean_stat": [1], "var_stat": [1], "frame_num": 0}', "0 frames"),
        ('{"mean_stat": [1, 2], "var_stat": [1], "frame_num": 1}', "one length"),
        ('{"mean_stat": [NaN], "var_stat": [1], "frame_num": 1}', "not finite"),
        (json.dumps({"mean_stat": [1] * 7, "var_stat": [2] * 7, "frame_num": 1}), "holds 7 values"),
        ("<AddShift> 3 3\n[ 1 2 ]\n<Rescale> 3 3\n[ 1 2 3 ]", "its header says 3"),
        ("<AddShift> 2 2\n[ 1 x ]\n<Rescale> 2 2\n[ 1 2 ]", "expected numbers"),
        ("<AddShift> 2 2\n[ 1 2 ]", "Rescale"),
        ("<AddShift> 2 2\n[ 1 2 ]\n<Rescale> 1 1\n[ 1 ]", "equal numbers"),
    ],
)
def test_what_is_no_cmvn_is_refused_by_name(tmp_path, text, message):
    path = tmp_path / "broken"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        load_cmvn(path, 400)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere"):
        load_cmvn(tmp_path / "nowhere", 400)


def test_layer_normalises_and_trains_nothing():
    layer = GlobalCMVN(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 0.5]))
    x = torch.tensor([[[3.0, 6.0]]])
    assert layer(x).tolist() == [[[4.0, 2.0]]]
    assert x.tolist() == [[[3.0, 6.0]]]
    assert list(layer.parameters()) == [] and set(layer.state_dict()) == {"mean", "istd"}
    assert GlobalCMVN(layer.mean, layer.istd, norm_var=False)(x).tolist() == [[[2.0, 4.0]]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean_stat": [0.0, 0.0], "var_stat": [0.0, 0.0]}, "every feature is constant"),
        ({"var_stat": [-20.0, 96.0]}, "negative variances"),
    ],
)
def test_sums_that_no_features_have_are_refused(tmp_path, change, message):
    path = tmp_path / "global_cmvn"
    path.write_text(json.dumps(STATS | change))
    with pytest.raises(DataError, match=message):
        load_cmvn(path, 6)


def test_values_are_repeated_per_frame_only(tmp_path):
    """Two values fit 6 features as 2 x 3, but not where a frame has 3 bins."""
    path = tmp_path / "global_cmvn"
    path.write_text(json.dumps(STATS))
    assert len(load_cmvn(path, 6, num_bins=2)[0]) == 6
    with pytest.raises(DataError, match="holds 2 values; expected 3, one per mel bin, or 6"):
        load_cmvn(path, 6, num_bins=3)
