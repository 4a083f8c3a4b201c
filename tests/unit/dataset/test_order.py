import numpy as np
import pytest

from wekws.dataset.order import longest_first, plan_batches
from wekws.errors import DataError


def plan(num, batch_size, **options):
    lengths = np.random.default_rng(1).integers(50, 1000, num)
    options = {"epoch": 0, "seed": 0, "shuffle": True} | options
    return lengths, plan_batches(lengths, batch_size=batch_size, **options)


@pytest.mark.parametrize("batching", ["random", "bucket"])
@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("num", [3, 64, 65, 997])
def test_ranks_share_a_permutation_exactly(num, world_size, batching):
    _, whole = plan(num, 16, batching=batching, world_size=world_size)
    shares = [[b[rank::world_size] for b in whole] for rank in range(world_size)]
    assert len({len(share) for share in shares}) == 1  # As many steps on every rank,
    assert all(len(indices) > 0 for share in shares for indices in share)  # none of them idle.
    taken = np.concatenate([indices for share in shares for indices in share])
    assert sorted(taken) == list(range(num))
    assert all(len(b) <= 16 + world_size - 1 for b in whole)
    assert sum(len(b) != 16 for b in whole) <= 1


def test_number_of_ranks_does_not_change_the_batches():
    _, one = plan(128, 16, world_size=1)
    _, two = plan(128, 16, world_size=2)
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


def test_fewer_utterances_than_ranks_is_an_error():
    with pytest.raises(DataError, match="1 utterances for 2 processes"):
        plan(1, 4, world_size=2)


def test_order_is_the_seeds_and_the_epochs():
    first, again = plan(100, 10)[1], plan(100, 10)[1]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    for other in (plan(100, 10, epoch=1)[1], plan(100, 10, seed=1)[1]):
        assert not np.array_equal(np.concatenate(first), np.concatenate(other))


@pytest.mark.parametrize("shuffle", [True, False])
def test_repeated_utterances_occur_twice(shuffle):
    repeated = np.array([3, 40])
    batches = plan(50, 8, shuffle=shuffle, repeated=repeated)[1]
    assert sorted(np.concatenate(batches)) == sorted([*range(50), 3, 40])
    none = plan(50, 8, shuffle=shuffle, repeated=repeated[:0])[1]
    assert all(map(np.array_equal, none, plan(50, 8, shuffle=shuffle)[1]))


def test_evaluation_is_sorted_longest_first():
    lengths, whole = plan(50, 8, shuffle=False)
    assert (np.diff(lengths[np.concatenate(whole)]) <= 0).all()


def test_batches_are_bounded_and_complete():
    num_frames = np.array([10, 500_000, 90, 100, 0, 30])
    batches = longest_first(num_frames, batch_size=2, max_frames=250)
    assert [batch.tolist() for batch in batches] == [[1], [3, 2], [5, 0], [4]]
    batches = longest_first(num_frames, batch_size=4)
    assert [batch.tolist() for batch in batches] == [[1, 3, 2, 5], [0, 4]]
    assert longest_first(num_frames[:0], batch_size=2) == []


def test_long_ones_keep_batches_small():
    batches = longest_first(np.full(10, 100), batch_size=8, max_frames=350)
    assert [len(batch) for batch in batches] == [3, 3, 3, 1]


def test_buckets_save_padding_and_stay_random():
    def padding(lengths, whole):
        return sum(len(b) * lengths[b].max() for b in whole) / lengths.sum() - 1

    lengths, mixed = plan(2000, 16)
    lengths, bucketed = plan(2000, 16, batching="bucket", pool_batches=16)
    assert padding(lengths, bucketed) < 0.2 * padding(lengths, mixed)
    means = np.array([lengths[b].mean() for b in bucketed])
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.25  # Short and long ones alternate.
    neighbours = [
        {frozenset(b.tolist()) for b in plan(2000, 16, batching="bucket", epoch=e)[1]}
        for e in (0, 1)
    ]
    assert not neighbours[0] & neighbours[1]  # Company changes from epoch to epoch.


def test_an_epoch_may_take_a_share_of_the_negatives_another_one_each_time():
    is_negative = np.arange(40) >= 10  # 10 utterances with a keyword, 30 without
    options = {"batch_size": 8, "seed": 1, "shuffle": True, "is_negative": is_negative}
    epochs = [
        np.concatenate(plan_batches(np.full(40, 50), epoch=epoch, negative_share=0.34, **options))
        for epoch in range(20)
    ]
    for epoch in epochs:
        assert len(set(epoch)) == len(epoch) == 10 + 11  # 0.34 x 30, rounded up
        assert set(range(10)) <= set(epoch)
    assert set(np.concatenate(epochs)) == set(range(40))
    whole = plan_batches(np.full(40, 50), epoch=0, negative_share=1.0, **options)
    assert sorted(np.concatenate(whole)) == list(range(40))
