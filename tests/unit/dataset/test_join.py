import dataclasses

import torch
from small_lists import make

from wekws.dataset.dataset_conf import DatasetConfig, FilterConfig
from wekws.dataset.join import append_rows, choose_partners


def test_rows_are_put_behind_the_valid_part():
    first, lengths = torch.tensor([[1, 2, 0], [3, 0, 0], [4, 5, 6]]), torch.tensor([2, 1, 3])
    second, second_lengths = torch.tensor([[7, 0], [8, 9]]), torch.tensor([1, 2])
    joined, new = append_rows(
        first,
        lengths,
        rows=torch.tensor([2, 1]),
        second=second,
        second_lengths=second_lengths,
    )
    assert joined.tolist() == [[1, 2, 0, 0], [3, 8, 9, 0], [4, 5, 6, 7]]
    assert new.tolist() == [2, 3, 4]


def test_nothing_to_put_behind():
    first, lengths = torch.tensor([[1, 2]]), torch.tensor([2])
    none = torch.zeros(0, dtype=torch.long)
    joined, new = append_rows(
        first,
        lengths,
        rows=none,
        second=torch.zeros(0, 3, dtype=torch.long),
        second_lengths=none,
    )
    assert joined.tolist() == [[1, 2]] and new.tolist() == [2]


def test_partners_depend_on_seed_and_epoch_and_are_as_many_as_asked():
    partners = choose_partners(10_000, join_prob=0.3, seed=1, epoch=2)
    assert (partners == choose_partners(10_000, join_prob=0.3, seed=1, epoch=2)).all()
    assert (partners != choose_partners(10_000, join_prob=0.3, seed=1, epoch=3)).any()
    assert abs((partners >= 0).mean() - 0.3) < 0.02 and partners.max() < 10_000


def test_a_data_set_joins_features_labels_and_keyword_marks(data_list):
    plain = make(data_list, DatasetConfig(), seed=5)
    joining = make(data_list, DatasetConfig(join_prob=1.0), seed=5)
    partners = choose_partners(len(plain), join_prob=1.0, seed=5, epoch=3)
    batch = joining.batch([4, 0], epoch=3)
    for row, index in enumerate((4, 0)):
        parts = [plain.batch([i], epoch=3) for i in (index, partners[index])]
        feats = torch.cat([part.feats[0] for part in parts])
        labels = [x for part in parts for x in part.labels[0, : part.label_lengths[0]].tolist()]
        assert torch.equal(batch.feats[row, : batch.feat_lengths[row]], feats)
        assert batch.labels[row, : batch.label_lengths[row]].tolist() == labels
        assert batch.is_keyword[row] == any(bool(part.is_keyword[0]) for part in parts)
        held = parts[0].holds_keyword[0] | parts[1].holds_keyword[0]
        assert torch.equal(batch.holds_keyword[row], held)
    assert batch.indices.tolist() == [-1, -1] and plain.batch([4, 0]).indices.tolist() == [4, 0]
    assert batch.num_global == 2


def test_scoring_and_cv_hear_utterances_as_they_are(data_list):
    dataset = make(data_list, DatasetConfig(join_prob=1.0), is_training=False)
    assert dataset.batch([4]).feat_lengths.tolist() == [68]


def test_no_pair_has_more_labels_than_training_admits(data_list):
    capped = DatasetConfig(join_prob=1.0, filter_conf=FilterConfig(max_label_length=4))
    batch = make(data_list, capped, seed=5).batch(range(12), epoch=3)
    free = make(data_list, DatasetConfig(join_prob=1.0), seed=5).batch(range(12), epoch=3)
    is_long = free.label_lengths > 4
    assert is_long.any() and not is_long.all() and int(batch.label_lengths.max()) == 4
    assert torch.equal(batch.label_lengths[~is_long], free.label_lengths[~is_long])


def test_labels_that_might_not_fit_are_not_joined(data_list):
    # Every third second frame goes in: 0.3 s leaves 28 // 30 + 1 = 1 frame a clip.
    config = DatasetConfig(join_prob=1.0, frame_skip=30)
    dataset = make(data_list, dataclasses.replace(config, spec_aug=False))
    for index in range(len(dataset)):
        batch = dataset.batch([index])
        steps = -(-int(batch.feat_lengths[0]) // 30)
        labels = batch.labels[0, : batch.label_lengths[0]].tolist()
        repeats = sum(a == b for a, b in zip(labels, labels[1:], strict=False))
        assert steps >= len(labels) + repeats
