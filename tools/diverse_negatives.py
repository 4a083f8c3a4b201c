"""Short recordings of speech in 12 languages out of two kinds of Debian packages, as filler.

apt-get download tuxpaint-stamps-default asterisk-core-sounds-fr-g722 asterisk-core-sounds-es-g722
for deb in *.deb; do dpkg -x "$deb" unpacked; done
pip install av
python tools/diverse_negatives.py --unpacked unpacked --out_dir diverse

At most 230 recordings of 0.5 to 12 s per language and package, drawn with seed 1, become 16 kHz
Ogg/Opus with ``diverse/data.list``. Spoken descriptions of pictures of computers and mirrors are
left out: they could say a keyword. The licences are those of the packages.
"""

import argparse
import collections
import json
import random
import re
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import resample_poly
from tqdm import tqdm

SAMPLE_RATE_HZ = 16000
MOST = 230
ALPHABET_SHARE = 0.15  # of the many recordings of letters and digits
PEAK = 0.02  # quieter recordings are left out
DURATION_S = (0.5, 12.0)
KEYWORDS = re.compile("computer|mirror|alexa|jarvis|ordinat", re.IGNORECASE)
DESCRIPTION = re.compile(r"_desc_([a-zA-Z_]+?)(?:\.ogg)?\.ogg$")
PROMPTS = {"ast_fr": "fr_CA_f_June", "ast_es": "es_MX_f_Allison"}


def recordings(unpacked: Path) -> dict[str, list[Path]]:
    """Return the recordings to draw from, by package and language."""
    found: dict[str, list[Path]] = collections.defaultdict(list)
    stamps = unpacked / "usr/share/tuxpaint/stamps"
    for path in sorted(stamps.glob("**/*_desc_*.ogg"), key=str):
        match = DESCRIPTION.search(str(path))
        if match is None:
            continue
        text = Path(str(path)[: match.start()] + ".txt")
        if text.exists() and KEYWORDS.search(text.read_text(errors="replace")):
            continue
        is_alphabet = "alphabets" in str(path) or "/math" in str(path)
        if not is_alphabet or random.random() <= ALPHABET_SHARE:
            found[f"tux_{match[1]}"].append(path)
    for name, voice in PROMPTS.items():
        prompts = (unpacked / "usr/share/asterisk/sounds" / voice).glob("**/*.g722")
        kept = (p for p in sorted(prompts, key=str) if not re.search("silence|letters", str(p)))
        found[name] = list(kept)
    return found


def read(path: Path) -> np.ndarray:
    """Return a recording (N,) at 16 kHz; G.722 is always at 16 kHz."""
    if path.suffix == ".g722":
        import av  # needed for these files alone

        with av.open(str(path), format="g722") as container:
            frames = [frame.to_ndarray().ravel() for frame in container.decode(audio=0)]
        return np.concatenate(frames).astype(float) / 32768
    samples, rate = soundfile.read(path, always_2d=True)
    common = np.gcd(rate, SAMPLE_RATE_HZ)
    resampled = resample_poly(samples.mean(axis=1), SAMPLE_RATE_HZ // common, rate // common)
    return np.clip(resampled, -1, 1)


def main() -> None:
    """Write the recordings and their list, and print the minutes of each language."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--unpacked", type=Path, required=True, help="folder of dpkg -x")
    parser.add_argument("--out_dir", type=Path, required=True, help="folder to write")
    args = parser.parse_args()
    random.seed(1)
    args.out_dir.mkdir(parents=True, exist_ok=True)
    seen, unreadable = set(), 0
    with open(args.out_dir / "data.list", "w", encoding="utf-8") as data_list:
        for name, paths in recordings(args.unpacked).items():
            random.shuffle(paths)
            durations: list[float] = []
            for path in tqdm(paths, desc=name, disable=None):
                if len(durations) == MOST:
                    break
                try:
                    samples = read(path)
                except (OSError, RuntimeError, ValueError):
                    unreadable += 1
                    continue
                duration_s = len(samples) / SAMPLE_RATE_HZ
                content = hash(samples.tobytes())
                if (
                    content in seen
                    or not DURATION_S[0] < duration_s < DURATION_S[1]
                    or np.abs(samples).max() < PEAK
                ):
                    continue
                seen.add(content)
                key = f"n_{name}_{len(durations):03d}"
                wav = (args.out_dir / f"{key}.ogg").resolve()
                coding = {"format": "OGG", "subtype": "OPUS", "compression_level": 0.85}
                soundfile.write(wav, samples, SAMPLE_RATE_HZ, **coding)
                durations.append(duration_s)
                row = {"key": key, "txt": "<filler>", "duration": round(duration_s, 3)}
                print(json.dumps({**row, "wav": str(wav)}), file=data_list)
            print(f"{name}: {len(durations)} recordings, {sum(durations) / 60:.1f} min")
    print(f"{unreadable} could not be read")


if __name__ == "__main__":
    main()
