"""Planning of scoring batches."""

import numpy as np

from wekws.score.scoring import plan_batches


def test_batches_are_bounded_and_complete():
    num_frames = np.array([10, 500_000, 90, 100, 0, 30])
    plan = plan_batches(num_frames, batch_size=2, max_frames=250)
    assert [batch.tolist() for batch in plan] == [[1], [3, 2], [5, 0], [4]]


def test_long_ones_keep_batches_small():
    plan = plan_batches(np.full(10, 100), batch_size=8, max_frames=350)
    assert [len(batch) for batch in plan] == [3, 3, 3, 1]
