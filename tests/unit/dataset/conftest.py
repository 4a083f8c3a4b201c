"""A data list that the tests of data sets share."""

import numpy as np
import pytest
import soundfile
from small_lists import RATE, TEXTS

from wekws.dataset.manifest import Utterance, write_data_list


@pytest.fixture
def data_list(tmp_path):
    """Twelve utterances of noise, 0.3 to 1.4 s, keywords among them."""
    rng, listed = np.random.default_rng(0), []
    for i in range(12):
        path, duration = tmp_path / f"utt{i:02d}.wav", 0.3 + 0.1 * i
        soundfile.write(path, rng.uniform(-0.3, 0.3, round(duration * RATE)), RATE)
        text = TEXTS[i % len(TEXTS)]
        listed.append(Utterance(key=path.stem, wav=str(path), txt=text, duration=duration))
    (tmp_path / "train").mkdir()
    write_data_list(tmp_path / "train" / "data.list", listed)
    return tmp_path / "train" / "data.list"
