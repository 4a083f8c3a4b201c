"""The parts of a detector and their checks."""

import dataclasses

import numpy as np
import pytest

from wekws.errors import ConfigError
from wekws.front_end import FrontEnd
from wekws.stream.network import Keyword, SpotterModel

FRONT_END = FrontEnd(
    sample_rate_hz=16000, num_mel_bins=80, frame_length_ms=25, frame_shift_ms=10,
    left_context=2, right_context=2, frame_skip=3, expected_dither=1.0,
)  # fmt: skip


@dataclasses.dataclass
class NoNetwork:
    num_tokens: int = 5
    look_ahead: int = 0
    front_end: FrontEnd = FRONT_END


def model(**changes):
    keyword = Keyword(text="嗨小", tokens=("嗨", "小"), threshold=0.5)
    parts = {
        "network": NoNetwork(),
        "tokens": ("<blk>", "<filler>", "嗨", "小", "问"),
        "keywords": (keyword,),
    }
    return SpotterModel(**{**parts, **changes})


def test_ids_and_thresholds():
    found = model()
    assert found.keyword_ids == [[2, 3]]
    assert found.front_end is FRONT_END
    assert found.with_thresholds(0.25).keywords[0].threshold == 0.25
    assert found.with_thresholds({"嗨小": 0.0}).keywords[0].threshold == 0.0
    assert found.with_thresholds({}).keywords[0].threshold == 0.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keywords": ()}, "at least one keyword"),
        (
            {"keywords": (Keyword(text="A", tokens=("A", "嗨"), threshold=None),)},
            "no output for A;",
        ),
        ({"keywords": (Keyword(text="F", tokens=("<filler>",), threshold=None),)}, "<filler>"),
        ({"keywords": (Keyword(text="问", tokens=("问",), threshold=0.1),) * 2}, "occur once"),
        ({"network": NoNetwork(num_tokens=4)}, "smaller than the vocabulary"),
        ({"refractory_s": float("nan")}, "refractory_s"),
    ],
)
def test_refuses_what_does_not_fit(changes, message):
    with pytest.raises(ConfigError, match=message):
        model(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"tokens": ()},
        {"threshold": 1.5},
        {"threshold": True},
        {"threshold": "a"},
        {"threshold": float("nan")},
        {"max_duration_s": -1.0},
        {"min_duration_s": 2.0, "max_duration_s": 1.0},
        {"max_duration_s": float("inf")},
    ],
)
def test_refuses_impossible_keywords(changes):
    with pytest.raises(ConfigError, match="keyword X"):
        Keyword(**{"text": "X", "tokens": ("A",), "threshold": 0.5, **changes})


@pytest.mark.parametrize("thresholds", ["a", True, {"嗨小": "a"}, [0.5]])
def test_thresholds_that_are_no_numbers_are_refused(thresholds):
    with pytest.raises(ConfigError, match="keyword 嗨小: threshold .*; expected 0 to 1"):
        model().with_thresholds(thresholds)


def test_thresholds_of_numpy_are_numbers():
    assert model().with_thresholds(np.float32(0.25)).keywords[0].threshold == 0.25


def test_one_text_is_not_taken_for_keywords_of_one_character():
    with pytest.raises(ConfigError, match="found the text '嗨小问'; expected a list"):
        model().with_keywords("嗨小问")


def test_a_threshold_of_an_unknown_keyword_is_named():
    with pytest.raises(ConfigError, match="threshold of ALEXA: no such keyword.*嗨小"):
        model().with_thresholds({"ALEXA": 0.5})
