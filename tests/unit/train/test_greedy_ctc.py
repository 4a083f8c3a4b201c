import torch

from wekws.train.greedy_ctc import (
    NUM_BUCKETS,
    edit_distances,
    frame_counts,
    greedy_tokens,
    output_histogram,
)


def levenshtein(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        row, old = [i], row
        for j, y in enumerate(b, 1):
            row.append(min(old[j] + 1, row[-1] + 1, old[j - 1] + (x != y)))
    return row[-1]


def test_edit_distances_equal_the_textbook_table():
    generator = torch.Generator().manual_seed(0)
    hypotheses = torch.randint(1, 4, (200, 7), generator=generator)
    labels = torch.randint(1, 4, (200, 5), generator=generator)
    hypothesis_lengths = torch.randint(0, 8, (200,), generator=generator)
    label_lengths = torch.randint(0, 6, (200,), generator=generator)
    expected = [
        levenshtein(h[:m].tolist(), y[:n].tolist())
        for h, m, y, n in zip(hypotheses, hypothesis_lengths, labels, label_lengths, strict=True)
    ]
    values = edit_distances(hypotheses, hypothesis_lengths, labels, label_lengths)
    assert values.tolist() == expected


def test_greedy_tokens_collapse_repeats_and_blanks_within_the_length():
    best = torch.tensor([[1, 1, 0, 1, 2, 2], [0, 0, 3, 3, 0, 2]])
    logits = torch.nn.functional.one_hot(best, 4).float()
    tokens, lengths = greedy_tokens(logits, torch.tensor([6, 5]))
    assert tokens.tolist() == [[1, 1, 2, -1, -1, -1], [3, -1, -1, -1, -1, -1]]
    assert lengths.tolist() == [3, 1]


def test_silence_against_no_label_is_no_error_and_against_one_is_a_deletion():
    logits = torch.tensor([[[9.0, 0.0]] * 3] * 2)
    labels, lengths = torch.tensor([[0], [1]]), torch.tensor([3, 3])
    hypotheses = greedy_tokens(logits, lengths)
    assert edit_distances(*hypotheses, labels, torch.tensor([0, 1])).tolist() == [0, 1]


def test_a_batch_of_none():
    empty = torch.zeros(0, 3, dtype=torch.long)
    none = torch.zeros(0, dtype=torch.long)
    assert edit_distances(empty, none, empty, none).tolist() == []


def test_frames_of_blank_and_filler_are_counted_within_the_length():
    best = torch.tensor([[0, 0, 1, 2], [0, 1, 1, 1]])
    logits = torch.nn.functional.one_hot(best, 3).float()
    # Frames 4 + 2; blanks 2 + 1; fillers 1 + 1.
    assert frame_counts(logits, torch.tensor([4, 2])).tolist() == [6, 3, 2]


def test_equal_outputs_fall_into_one_bucket_however_they_are_padded():
    outputs = torch.tensor([[3, 1], [1, 3], [3, 1], [3, -1], [-1, -1]])
    longer = torch.nn.functional.pad(outputs, (0, 4), value=-1)
    counts = output_histogram(outputs)
    assert counts.shape == (NUM_BUCKETS,) and counts.sum() == 5
    assert sorted(counts[counts > 0].tolist()) == [1, 1, 1, 2]
    assert torch.equal(counts, output_histogram(longer))


def test_different_outputs_spread_over_the_buckets():
    outputs = torch.cartesian_prod(*[torch.arange(-1, 6)] * 4)
    # 2,401 outputs in 1,024 buckets: 2.3 each, and by chance never more than 15 (Poisson).
    assert output_histogram(outputs).max() < 16
