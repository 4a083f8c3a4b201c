"""A sample of the fault suite; `python tests/faults/fault_cases.py --all` runs all of it."""

import pytest
from fault_cases import World, cases

USED = ("average_model", "score_ctc", "compute_det_ctc", "model_info")
SAMPLE = (
    *("train_distill: train_state.pt truncated", "train_distill: train_state.pt hostile"),
    *("train_distill: 1.pt truncated", "train_distill: 1.pt hostile"),
    *("train_distill: run.json text", "train_distill: run.json missing"),
    *("train_distill: config.yaml hostile", "train_distill: metrics.jsonl truncated"),
    *("average_model: 1.pt text", "score_ctc: final.pt empty", "score_ctc: config.yaml a folder"),
    *("score_ctc: dict.txt truncated", "compute_det_ctc: test_final/score.txt truncated"),
    *("compute_det_ctc: test_final/score.json a folder", "model_info: config.yaml text"),
    *("train_distill: disk full from file 17", "score_ctc: disk full from file 1"),
    *("average_model: disk read-only from file 0", "compute_det_ctc: disk full from file 2"),
    *("train_distill: SIGKILL before file 13", "score_ctc: SIGKILL after file 1"),
)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    return World.make(tmp_path_factory.mktemp("faults"), USED)


@pytest.fixture(scope="module")
def known(world):
    return {case.name: case for found in cases(world, num_random=0).values() for case in found}


@pytest.mark.parametrize("name", SAMPLE)
def test_a_fault_ends_in_the_same_weights_or_in_one_line(known, name):
    is_good, end = known[name].check()
    assert is_good, end
