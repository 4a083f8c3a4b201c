import pytest

from wekws.config import parse_section
from wekws.dataset import dataset_conf
from wekws.dataset.dataset_conf import BatchConfig, DatasetConfig, FilterConfig, ResampleConfig
from wekws.dataset.feature_view import AugmentConfig
from wekws.errors import ConfigError, DataError

AT_11_KHZ = ResampleConfig(resample_rate=11025)

WEKWS_SECTION = {
    "filter_conf": {"max_length": 2048, "min_length": 0, "token_max_length": 200,
                    "token_min_length": 1, "max_output_input_ratio": 1,
                    "min_output_input_ratio": 0.0005},
    "resample_conf": {"resample_rate": 16000},
    "speed_perturb": True,
    "feats_type": "fbank",
    "fbank_conf": {"num_mel_bins": 80, "frame_shift": 10, "frame_length": 25, "dither": 1.0},
    "context_expansion": True,
    "context_expansion_conf": {"left": 2, "right": 2},
    "frame_skip": 3,
    "spec_aug": True,
    "spec_aug_conf": {"num_t_mask": 1, "num_f_mask": 1, "max_t": 20, "max_f": 10},
    "shuffle": True,
    "shuffle_conf": {"shuffle_size": 1500},
    "sort": True,
    "batch_conf": {"batch_size": 256},
}  # fmt: skip


def test_wekws_section_is_read_and_unused_settings_are_named(caplog):
    config = parse_section(DatasetConfig, WEKWS_SECTION, "dataset_conf")
    assert config.batch_conf.batch_size == 256 and config.front_end.input_dim == 400
    assert config.augmentation.speeds == (0.9, 1.0, 1.1) and config.is_online
    config.warn_about_unused_settings()
    assert "shuffle_conf" in caplog.text and "sort" in caplog.text


def test_config_without_augmentation_or_context():
    config = DatasetConfig(context_expansion=False, augment_conf=AugmentConfig(copies=3))
    assert config.augmentation is None and not config.is_online and config.front_end.input_dim == 80
    assert len(config.cached_views(is_training=True)) == 1


@pytest.mark.parametrize(
    ("cls", "wrong", "message"),
    [
        (DatasetConfig, {"frame_skip": 0}, "frame_skip"),
        (DatasetConfig, {"max_bad_fraction": 2.0}, "max_bad_fraction"),
        (
            DatasetConfig,
            {"speed_perturb": True, "augment_conf": AugmentConfig(speeds=(0.8,))},
            "disagree",
        ),
        (
            DatasetConfig,
            {"augment_conf": AugmentConfig(opus_prob=0.1), "resample_conf": AT_11_KHZ},
            "opus_prob",
        ),
        (
            DatasetConfig,
            {
                "augment_conf": AugmentConfig(telephone_prob=0.1),
                "resample_conf": ResampleConfig(resample_rate=4000),
            },
            "telephone_prob",
        ),
        (FilterConfig, {"min_length": 9, "max_length": 8}, "min_length 9"),
        (FilterConfig, {"max_label_length": -1}, "max_label_length"),
        (FilterConfig, {"data_share": 0.0}, "data_share"),
        (FilterConfig, {"data_share": 1.5}, "data_share"),
        (BatchConfig, {"batch_size": 0}, "batch_size"),
    ],
)
def test_config_refuses(cls, wrong, message):
    with pytest.raises(ConfigError, match=message):
        cls(**wrong)


def test_without_opus_the_rest_is_done_and_it_is_said(monkeypatch, caplog):
    monkeypatch.setattr(dataset_conf, "opus_is_available", lambda: False)
    config = DatasetConfig(augment_conf=AugmentConfig(opus_prob=0.5, telephone_prob=0.5))
    assert config.augmentation == AugmentConfig(telephone_prob=0.5)
    config.warn_about_unused_settings()
    assert "no Opus" in caplog.text
    assert DatasetConfig(augment_conf=AugmentConfig(opus_prob=0.5)).augmentation is None


def test_folders_are_checked_where_they_are_used(tmp_path):
    missing = str(tmp_path / "rooms")
    off = DatasetConfig(augment_conf=AugmentConfig(rir_dir=missing, noise_dir=missing))
    off.check_folders()
    for used in ({"reverb_prob": 0.1, "rir_dir": missing}, {"noise_prob": 1, "noise_dir": missing}):
        with pytest.raises(DataError, match=f"{missing}: no .wav"):
            DatasetConfig(augment_conf=AugmentConfig(**used)).check_folders()
