import numpy as np
import pytest

from wekws.dataset import rooms
from wekws.dataset.rooms import aligned_impulse_response, reverberate, shoebox_impulse_response

RATE = 16000


def rng(seed=0):
    return np.random.default_rng(seed)


def reverberation_time(rir, drop_db=(5, 25)):
    """RT60 from Schroeder's curve between two drops."""
    energy = np.square(rir.astype(np.float64))
    curve = 10 * np.log10(np.cumsum(energy[::-1])[::-1])
    start, end = (np.argmax(curve < curve[0] - drop) for drop in drop_db)
    return (end - start) / RATE * 60 / (drop_db[1] - drop_db[0])


@pytest.mark.parametrize("rt60_s", [0.2, 0.4, 0.8])
def test_a_shoebox_decays_as_asked(rt60_s):
    times = [
        reverberation_time(shoebox_impulse_response(rt60_s, 3.0, RATE, rng(seed))[1:])
        for seed in range(10)
    ]
    assert np.mean(times) == pytest.approx(rt60_s, rel=0.1)


def test_a_shoebox_begins_with_the_direct_sound():
    for seed in range(20):
        rir = shoebox_impulse_response(0.3, 2.0, RATE, rng(seed))
        assert rir.dtype == np.float32 and np.isfinite(rir).all()
        # No echo arrives with the direct sound, which is 1; all are farther, thus weaker.
        assert rir[0] == 1 and np.abs(rir[1:800]).max() < 3


def direct_to_reflected_db(rir):
    energy = np.square(rir.astype(np.float64))
    return 10 * np.log10(energy[0] / energy[1:].sum())


def test_farther_is_more_reverberant():
    # In a diffuse field, twice the distance is 6 dB less direct sound.
    near, far = (
        np.mean(
            [
                direct_to_reflected_db(shoebox_impulse_response(0.5, metres, RATE, rng(seed)))
                for seed in range(40)
            ]
        )
        for metres in (0.5, 1.0)
    )
    assert near - far == pytest.approx(6.0, abs=1.0)


def test_the_tail_continues_the_images():
    energy = np.mean(
        [
            np.square(shoebox_impulse_response(0.6, 1.5, RATE, rng(seed))[640:960])
            for seed in range(300)
        ],
        axis=0,
    )
    # 10 ms later the power is 10 ** (-6 * 0.01 / 0.6) = 0.79 of that before.
    assert energy[160:].mean() / energy[:160].mean() == pytest.approx(0.79, abs=0.15)


def test_the_first_images_by_hand():
    # Along x: wall at 0 and at 4 m, source at 1 m, microphone at 3 m. Images at -1 (one
    # reflection), 7 (one) and 9 (two, at 4 + (4 + 1)): 4, 4 and 6 m away. The other walls are far.
    size, source, microphone = np.array([4.0, 99.0, 99.0]), np.array([1, 50, 50]), [3, 50, 50]
    distances, counts = rooms._images(size, source, np.array(microphone), 4.5)
    order = np.argsort(distances)[:4]
    np.testing.assert_allclose(distances[order], [2, 4, 4, 6])
    assert counts[order].tolist() == [0, 1, 1, 2]


def test_two_points_stay_in_the_room():
    for seed in range(200):
        size = rng(seed).uniform((2.5, 2.5, 2.4), (8.0, 6.0, 3.5))
        for metres in (0.5, 20.0):
            source, microphone = rooms._two_points(size, metres, rng(seed))
            for point in (source, microphone):
                assert (point >= 0.3 - 1e-9).all() and (point <= size - 0.3 + 1e-9).all()
            assert 0.01 < np.linalg.norm(source - microphone) <= metres + 1e-9


def test_a_recorded_response_begins_at_its_peak():
    recorded = np.array([0.0, 0.01, -0.5, 0.25, 0.1], np.float32)
    aligned = aligned_impulse_response(recorded)
    np.testing.assert_allclose(aligned, [1, -0.5, -0.2])
    speech = rng().standard_normal(500).astype(np.float32)
    assert np.argmax(np.correlate(reverberate(speech, aligned), speech, "full")) == 499  # no delay
    assert aligned_impulse_response(np.zeros(9)).tolist() == [1]
