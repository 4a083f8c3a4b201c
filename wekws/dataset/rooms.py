"""Rooms: simulated and recorded impulse responses, and reverberation with them.

In every impulse response the direct sound is sample 0, so that reverberation adds no delay.
"""

import math

import numpy as np

SPEED_OF_SOUND = 343.0
"""In metres per second."""
_ROOM_M = ((2.5, 2.5, 2.4), (8.0, 6.0, 3.5))  # least and largest length, width, height
_WALL_M = 0.3  # least distance of speaker and microphone from a wall
_EARLY_S = 0.05  # echoes up to here are computed one by one, later ones as noise


def room_impulse_response(
    rt60_s: float, sample_rate_hz: int, rng: np.random.Generator
) -> np.ndarray:
    """Return the impulse response of a random room: direct sound, then a diffuse tail.

    The tail is Gaussian noise under an exponential that falls 60 dB in ``rt60_s``. It begins 1 to
    5 ms after the direct sound, and its energy is -3 to 9 dB below it.
    Source: Polack's statistical model, e.g. Jot, Cerveau and Warusfel 1997 (AES 103), eq. 1.
    """
    gap = round(rng.uniform(0.001, 0.005) * sample_rate_hz)
    num_tail = max(1, round(rt60_s * sample_rate_hz))
    decay = np.exp(np.arange(num_tail) * (-math.log(1000) / (rt60_s * sample_rate_hz)))
    tail = rng.standard_normal(num_tail) * decay
    tail *= 10 ** (-rng.uniform(-3, 9) / 20) / max(float(np.linalg.norm(tail)), 1e-12)
    return np.concatenate(([1.0], np.zeros(gap), tail)).astype(np.float32)


def shoebox_impulse_response(
    rt60_s: float, distance_m: float, sample_rate_hz: int, rng: np.random.Generator
) -> np.ndarray:
    """Return the impulse response between two random points of a random rectangular room.

    The first 50 ms are the room's mirror images (Allen and Berkley 1979, JASA 65, 943, eq. 2), at
    whole samples; all walls absorb alike, as much as ``rt60_s`` asks for (Eyring 1930, JASA 1,
    217). Echoes have random signs: with equal ones they would add up at low frequencies. The rest
    is Gaussian noise with the power of the images that it replaces: they arrive at a rate of
    4 pi c^3 t^2 / V, each with a power of 1 / (c t)^2 that falls 60 dB in ``rt60_s``.

    distance_m: from speaker to microphone; less where the room is too small for it. The ratio of
    direct to reflected sound follows from it.
    """
    size = rng.uniform(*_ROOM_M)
    source, microphone = _two_points(size, distance_m, rng)
    volume = float(np.prod(size))
    surface = 2 * float(size[0] * size[1] + size[1] * size[2] + size[2] * size[0])
    reflection = math.sqrt(
        math.exp(-24 * math.log(10) * volume / SPEED_OF_SOUND / surface / rt60_s)
    )
    distances, num_reflections = _images(size, source, microphone, SPEED_OF_SOUND * _EARLY_S)
    direct_m = float(np.linalg.norm(source - microphone))
    direct = direct_m / SPEED_OF_SOUND * sample_rate_hz
    num_early = round(_EARLY_S * sample_rate_hz)
    times = (distances / SPEED_OF_SOUND * sample_rate_hz - direct).round().astype(int)
    is_early = (times >= 0) & (times < num_early)
    signs = np.where(num_reflections > 0, rng.choice((-1.0, 1.0), len(distances)), 1.0)
    amplitudes = signs * direct_m / distances * reflection**num_reflections
    early = np.bincount(times[is_early], amplitudes[is_early], minlength=num_early)
    late = np.arange(num_early, max(num_early + 1, round(rt60_s * sample_rate_hz)))
    late_s = late / sample_rate_hz + direct_m / SPEED_OF_SOUND  # from the speaker's sound
    first_power = 4 * math.pi * SPEED_OF_SOUND / (volume * sample_rate_hz) * direct_m**2
    decay = np.exp(-3 * math.log(10) / rt60_s * late_s)
    tail = rng.standard_normal(len(late_s)) * math.sqrt(first_power) * decay
    return np.concatenate((early, tail)).astype(np.float32)


def _two_points(
    size: np.ndarray, distance_m: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return two points of a room, both away from the walls, about ``distance_m`` apart, (3,)."""
    low, high = np.full(3, _WALL_M), size - _WALL_M
    source = rng.uniform(low, high)
    direction = rng.standard_normal(3) * (1, 1, 0.3)  # heights differ less
    # Away from the nearer walls, so that there is space.
    direction = np.abs(direction) * np.where(source < size / 2, 1, -1)
    direction /= np.linalg.norm(direction)
    space = np.where(direction > 0, high - source, source - low) / np.maximum(
        np.abs(direction), 1e-9
    )
    return source, source + direction * min(distance_m, float(space.min()))


def _images(
    size: np.ndarray, source: np.ndarray, microphone: np.ndarray, reach_m: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return distance (N,) and number of reflections (N,) of all mirror images of the source.

    reach_m: images are complete up to this distance beyond the direct one.
    """
    reach_m += float(np.linalg.norm(source - microphone))
    offsets, reflections = [], []
    for axis in range(3):
        order = np.arange(-math.ceil(reach_m / (2 * size[axis])) - 1, 0)
        order = np.concatenate((order, [0], -order))
        # An image at 2 n L + x was reflected 2 |n| times, one at 2 n L - x |2 n - 1| times.
        places = np.concatenate(
            (2 * order * size[axis] + source[axis], 2 * order * size[axis] - source[axis])
        )
        offsets.append(np.square(places - microphone[axis]))
        reflections.append(np.concatenate((np.abs(2 * order), np.abs(2 * order - 1))))
    squares = offsets[0][:, None, None] + offsets[1][:, None] + offsets[2]
    counts = reflections[0][:, None, None] + reflections[1][:, None] + reflections[2]
    return np.sqrt(squares.ravel()), counts.ravel()


def aligned_impulse_response(recorded: np.ndarray) -> np.ndarray:
    """Return a recorded impulse response from its highest peak, the direct sound, onwards.

    recorded: (N,). Returns: (M,) float32 whose first value is 1 (that of silence is 1 alone).
    """
    peak = int(np.argmax(np.abs(recorded)))
    if recorded[peak] == 0:
        return np.ones(1, np.float32)
    return (recorded[peak:] / recorded[peak]).astype(np.float32)


def reverberate(speech: np.ndarray, rir: np.ndarray) -> np.ndarray:
    """Return ``speech`` convolved with ``rir``, with the length and the power of ``speech``."""
    size = fast_fft_size(len(speech) + len(rir) - 1)
    product = np.fft.rfft(speech, size) * np.fft.rfft(rir, size)
    wet = np.fft.irfft(product, size)[: len(speech)]
    wet_power = mean_power(wet)
    scale = math.sqrt(mean_power(speech) / wet_power) if wet_power > 0 else 0.0
    return (wet * scale).astype(np.float32)


def mean_power(samples: np.ndarray) -> float:
    """Return the mean square, 0 for no samples."""
    if len(samples) == 0:
        return 0.0
    return float(np.mean(np.square(samples), dtype=np.float64))


def fast_fft_size(minimum: int) -> int:
    """Return a size >= minimum with no prime factor above 5."""
    return min(m << max(0, math.ceil(math.log2(minimum / m))) for m in (1, 3, 5, 9, 15))
