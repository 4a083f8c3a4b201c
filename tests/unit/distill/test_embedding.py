"""Loss on the embeddings of a feature teacher."""

import pytest
import torch
from small_models import embedding_space, objective_of, tiny_model, two_utterances

from wekws.dataset.batch import Embeddings
from wekws.distill.embedding import (
    EmbeddingConfig,
    EmbeddingDistance,
    piece_means,
    unlearnt_embedding,
)
from wekws.distill.method import LossInputs, LossTargets
from wekws.distill.methods import DistillConfig, MethodSections, build_objective
from wekws.distill.stages import Stage, StagePlan
from wekws.distill.taps import ModelOutputs, StepOutputs, forward_tapped
from wekws.errors import ConfigError
from wekws.runlog.health import RunLog


def windows(starts, ends, lengths, num_values=4):
    starts, ends = torch.tensor(starts), torch.tensor(ends)
    generator = torch.Generator().manual_seed(2)
    values = torch.randn(*starts.shape, num_values, generator=generator)
    return Embeddings(values=values, starts=starts, ends=ends, lengths=torch.tensor(lengths))


def test_means_of_pieces_by_hand():
    # Two utterances of 4 and 2 frames, one channel.
    features = torch.tensor([[1.0], [2.0], [4.0], [8.0], [10.0], [30.0]])
    targets = windows([[-0.5, 0.5], [0.0, 9.0]], [[3.5, 1.5], [1.0, 9.5]], [2, 1])
    means = piece_means(features, torch.tensor([4, 2]), targets, 2)
    # Window 0: all frames, halves (1 + 2) / 2 and (4 + 8) / 2. Window 1: frame 1 alone, twice.
    assert means[0].tolist() == [[1.5, 6.0], [2.0, 2.0]]
    # 0 to 1 is the second half of frame 0, then the first half of frame 1; past the end: the last.
    assert means[1].tolist() == [[10.0, 30.0], [30.0, 30.0]]


def test_means_of_pieces_before_the_first_and_after_the_last_frame():
    features = torch.tensor([[1.0], [3.0]])
    targets = windows([[-4.0, -1.0, 0.0]], [[-2.0, 1.0, 4.0]], [3])
    means = piece_means(features, torch.tensor([2]), targets, 1)
    # Before -1/2 there is no frame; it stands for nothing but itself, so -1 to 1 is frame 0 with
    # 1 and frame 1 with 1/2; 0 to 4 is half of frame 0 and all of frame 1.
    expected = [1.0, (1.0 + 1.5) / 1.5, (0.5 + 3.0) / 1.5]
    assert means[0, :, 0].tolist() == pytest.approx(expected)


def fine_average(frames, low, high, num=20000):
    """The mean over a piece of time, sampled finely; frame t lasts from t - 1/2 to t + 1/2."""
    places = torch.linspace(low, high, num + 1)[:-1] + (high - low) / num / 2
    index = (places + 0.5).floor().long()
    inside = (index >= 0) & (index < len(frames))
    return frames[index[inside]].mean(dim=0)


@pytest.mark.parametrize("num", [1, 3, 5])
def test_means_of_pieces_against_a_fine_grid(num):
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([11, 7])
    features = torch.randn(18, 3, generator=generator)
    targets = windows(
        [[-0.42, 2.25, 4.91], [-0.42, 0.3, 0]], [[6.1, 8.77, 11.4], [6.1, 7.2, 0]], [3, 2]
    )
    means = piece_means(features, lengths, targets, num)
    for row, frames in enumerate(features.split(lengths.tolist())):
        for k in range(int(targets.lengths[row])):
            start, end = targets.starts[row, k].item(), targets.ends[row, k].item()
            edges = [start + (end - start) * i / num for i in range(num + 1)]
            pieces = zip(edges, edges[1:], strict=False)
            expected = torch.cat([fine_average(frames, *piece) for piece in pieces])
            assert means[row, k].tolist() == pytest.approx(expected.tolist(), abs=2e-3)


def method_of(space=None, width=3, hop_ms=30.0, **config):
    config = EmbeddingConfig(weight=1.0, **config)
    return EmbeddingDistance(
        config, space or embedding_space(), path="tap", width=width, hop_ms=hop_ms
    )


def inputs_of(features, lengths, targets):
    outputs = StepOutputs(ModelOutputs(torch.zeros(1, 1, 2), {"tap": features}))
    labels = torch.ones(len(lengths), 1, dtype=torch.long)
    return LossInputs(outputs, LossTargets(lengths, labels, labels[:, 0], embeddings=targets), 1.0)


@pytest.mark.parametrize("distance", ["cosine", "mse"])
def test_values_by_a_loop(distance):
    space = embedding_space()
    space.mean.copy_(torch.tensor([1.0, -2.0, 0.0, 3.0]))
    space.deviation.copy_(torch.tensor([1.0, 2.0, 0.5, 4.0]))
    method = method_of(space, distance=distance, segment_ms=45)
    features = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([5, 4])
    targets = windows([[0.0, 2.0], [0.0, 99.0]], [[3.0, 5.0], [3.0, 99.0]], [2, 1])
    values = method.values(inputs_of(features, lengths, targets), {"embedding"})
    means = piece_means(features, lengths, targets, 2)
    total = 0.0
    for row, k in ((0, 0), (0, 1), (1, 0)):
        mapped = method.adapter.weight @ means[row, k] + method.adapter.bias
        target = (targets.values[row, k] - space.mean) / space.deviation
        if distance == "mse":
            total += ((mapped - target) ** 2).mean().item()
        else:
            total += 1 - (mapped @ target / mapped.norm() / target.norm()).item()
    # An embedding every 60 ms counts as two frames of 30 ms.
    assert values["embedding"].item() == pytest.approx(2 * total, rel=1e-5)
    figures = method.figures({n: values[n].item() for n in method.count_names})
    assert figures == {"embedding_distance": pytest.approx(total / 3, rel=1e-5)}


def test_a_batch_without_any_window_has_a_loss_of_0():
    method = method_of()
    targets = windows([[0.0]], [[0.0]], [0])
    empty = Embeddings(
        values=torch.zeros(1, 0, 4),
        starts=torch.zeros(1, 0),
        ends=torch.zeros(1, 0),
        lengths=torch.tensor([0]),
    )
    for found in (targets, empty):
        inputs = inputs_of(torch.randn(3, 3, requires_grad=True), torch.tensor([3]), found)
        values = method.values(inputs, {"embedding"})
        assert values["embedding"].item() == 0.0
        values["embedding"].backward()
    assert method.figures({"embedding_sum": 0.0, "embedding_num": 0.0}) == {}


@pytest.mark.parametrize(
    ("window_ms", "segment_ms", "num"), [(782, 150, 5), (25, 150, 1), (782, 1000, 1), (90, 30, 3)]
)
def test_number_of_pieces(window_ms, segment_ms, num):
    space = embedding_space(window_ms=window_ms)
    assert method_of(space, segment_ms=segment_ms).adapter.in_features == 3 * num


def test_what_is_linear_in_the_features_is_learnt_and_what_is_noise_is_not():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(400, 3, generator=generator)
    lengths = torch.tensor([400])
    places = torch.arange(0, 396.0, 2.0)[None]
    targets = windows(places.tolist(), (places + 3).tolist(), [198])
    means = piece_means(features, lengths, targets, 2)[0]
    linear = (means @ torch.randn(6, 4, generator=generator)).unsqueeze(0)
    for values, expected in ((linear, 0.0), (torch.randn(1, 198, 4, generator=generator), 1.0)):
        space = embedding_space()
        space.mean.copy_(values[0].mean(dim=0))
        space.deviation.copy_(values[0].std(dim=0))
        found = Embeddings(
            values=values, starts=targets.starts, ends=targets.ends, lengths=targets.lengths
        )
        method = method_of(space, distance="mse", segment_ms=45)
        optimizer = torch.optim.Adam(method.parameters(), lr=0.05)
        for _ in range(150):
            optimizer.zero_grad()
            inputs = inputs_of(features, lengths, found)
            values_now = method.values(inputs, {"embedding"})
            (values_now["embedding"] / 198).backward()
            optimizer.step()
        distance = method.figures({n: values_now[n].item() for n in method.count_names})
        assert distance["embedding_distance"] == pytest.approx(expected, abs=0.1)


WEIGHTED = DistillConfig(alpha=0.2, embedding=EmbeddingConfig(weight=0.5))


def test_weights_with_and_without_a_teachers_checkpoint():
    space = embedding_space()
    alone = objective_of(WEIGHTED, has_teacher=False, embedding_space=space)
    # Beside CTC: alpha has no part in it.
    assert alone.weights(0.0) == {"ctc": 1.0, "embedding": 0.5}
    assert not alone.needs_teacher(alone.active_terms(0.0))
    both = objective_of(WEIGHTED, embedding_space=space)
    assert both.weights(0.0) == pytest.approx({"ctc": 0.2, "kd": 0.8, "embedding": 0.4})
    # A teacher that is only a start: CTC and embeddings, no posteriors.
    start = DistillConfig(alpha=1.0, embedding=EmbeddingConfig(weight=0.5))
    assert objective_of(start, embedding_space=space).weights(0.0) == alone.weights(0.0)
    plan = StagePlan([Stage(name="a", epochs=1, task=0.0, feature=2.0)], 1)
    staged = objective_of(
        DistillConfig(embedding=EmbeddingConfig(weight=0.5)),
        has_teacher=False,
        plan=plan,
        embedding_space=space,
    )
    assert staged.weights(0.0) == {"ctc": 0.0, "embedding": 1.0}


def test_a_weight_without_a_feature_teacher_is_refused():
    with pytest.raises(ConfigError, match="above 0 without a feature teacher"):
        objective_of(WEIGHTED)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"weight": -1.0}, "weight"), ({"segment_ms": 0.0}, "segment_ms: found 0.0")],
)
def test_values_out_of_range(change, message):
    with pytest.raises(ConfigError, match=message):
        EmbeddingConfig(**change)


def test_the_tap_is_the_last_block_or_a_named_layer():
    space = embedding_space()
    objective = objective_of(WEIGHTED, has_teacher=False, embedding_space=space)
    assert objective.student_paths == ("backbone.fsmn.1.2",)
    named = EmbeddingConfig(weight=0.5, tap="backbone.in_linear2")
    conf = DistillConfig(embedding=named)
    objective = objective_of(conf, has_teacher=False, embedding_space=space)
    assert objective.student_paths == ("backbone.in_linear2",)
    wrong = DistillConfig(embedding=EmbeddingConfig(weight=0.5, tap="backbone.none"))
    with pytest.raises(ConfigError, match="student: no module backbone.none"):
        objective_of(wrong, embedding_space=space)


def test_gradients_reach_student_and_adapter_and_random_numbers_stay_the_same():
    student, sections = tiny_model(), MethodSections(distill_conf=WEIGHTED)
    torch.manual_seed(5)
    objective = build_objective(sections, student, embedding_space=embedding_space())
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert drawn == torch.rand(1)
    again = build_objective(sections, student, embedding_space=embedding_space())
    first, second = (o.methods["embedding"].adapter.weight for o in (objective, again))
    assert torch.equal(first, second)
    x, targets = two_utterances()
    outputs = StepOutputs(forward_tapped(student, x, targets.lengths, objective.student_paths))
    loss = objective(outputs, targets, 2, 0.0)
    loss.weighted["embedding"].backward()
    trained = {name for name, p in student.named_parameters() if p.grad is not None}
    assert "backbone.in_linear1.linear.weight" in trained
    assert not any("out_linear" in name for name in trained)
    assert all(p.grad is not None for p in objective.trained_parameters)


def log_of(distances, weighted=1.0):
    rows = [
        {"kind": "cv", "epoch": i, "embedding_distance": value} for i, value in enumerate(distances)
    ]
    step = {"kind": "step", "epoch": len(distances) - 1, "weighted_embedding": weighted}
    return RunLog.from_rows([*rows, step])


def test_features_that_say_nothing_are_found():
    assert unlearnt_embedding(log_of([1.0, 1.0, 0.99])) is None  # too early
    assert "mean distance 0.97 after 4" in unlearnt_embedding(log_of([1.0, 1.0, 0.99, 0.97]))
    assert unlearnt_embedding(log_of([1.0, 0.9, 0.8, 0.7])) is None
    assert unlearnt_embedding(log_of([1.0] * 4, weighted=0.0)) is None
    assert unlearnt_embedding(log_of([])) is None
