"""Longest durations: the rule, the option, seconds and frames."""

import pytest

from wekws.decode.duration import default_max_duration_s, duration_frames, max_duration_from_text
from wekws.errors import ConfigError


@pytest.mark.parametrize(
    ("tokens", "seconds"),
    [("JARVIS", 1.9), ("SMARTMIRROR", 2.4), ("嗨小问", 2.2), (["HH", "AH0"], 1.9), ("R2D", 1.6)],
)
def test_rule(tokens, seconds):
    # 1.3 s, 0.1 s for each letter or digit, 0.3 s for any other token
    assert default_max_duration_s(list(tokens)) == pytest.approx(seconds)


def test_frames():
    assert duration_frames(1.9, 0.03) == 63
    assert duration_frames(0.01, 0.03) == 1


def test_option():
    assert max_duration_from_text("auto") == "auto"
    assert max_duration_from_text("0") == 0 and max_duration_from_text("2.5") == 2.5
    for text in ("2s", "-1", "nan", "inf", ""):
        with pytest.raises(ConfigError, match="--max_duration_s: found"):
            max_duration_from_text(text)
