"""The closed-form steps of a transplant, each against an answer known beforehand."""

import pytest
import torch
from small_models import STUDENT, TEACHER, model, sample_of

from wekws.distill.transplant import TransplantConfig, transplant
from wekws.distill.transplant.blocks import BlockWeights, fit_block
from wekws.distill.transplant.channels import evenly_spaced, most_needed, need
from wekws.distill.transplant.head import fit_softmax
from wekws.distill.transplant.least_squares import compensate, fit_affine, fit_rectified
from wekws.distill.transplant.linear_pairs import factor
from wekws.distill.transplant.sample import compute_activations
from wekws.distill.transplant.tap_windows import TapWindows, tap_offsets


def test_channels_that_stay():
    assert evenly_spaced(9, 3).tolist() == [0, 4, 8]
    assert evenly_spaced(4, 4).tolist() == [0, 1, 2, 3]
    assert most_needed(torch.tensor([1.0, 5.0, 0.0, 3.0]), 2).tolist() == [1, 3]


def test_a_channel_is_needed_as_far_as_it_varies_and_is_read():
    # Variances 1, 0, 4; squared column norms 4, 9, 1.
    activations = torch.tensor([[0.0, 7.0, 0.0], [2.0, 7.0, 4.0]])
    consumer = torch.tensor([[2.0, 3.0, 0.0], [0.0, 0.0, 1.0]])
    assert need(activations, consumer).tolist() == [4.0, 0.0, 4.0]


@pytest.mark.parametrize("is_weighted", [False, True])
def test_a_pair_of_full_rank_loses_nothing(is_weighted):
    torch.manual_seed(0)
    matrix = torch.randn(7, 5) @ torch.randn(5, 9)
    fed = torch.randn(50, 9) if is_weighted else None
    for width in (5, 7):
        first, second = factor(matrix, width, fed)
        assert (first.shape, second.shape) == ((width, 9), (7, width))
        torch.testing.assert_close(second @ first, matrix, rtol=1e-5, atol=1e-5)
    # Channels beyond the rank read other directions and are ignored, so that they can learn.
    assert torch.equal(second[:, 5:], torch.zeros(7, 2))
    assert first[5:].norm(dim=1).min() > 0.1


def test_a_truncated_pair_is_the_best_of_its_rank():
    matrix = torch.diag(torch.tensor([3.0, 2.0, 1.0]))
    first, second = factor(matrix, 2)
    torch.testing.assert_close(second @ first, torch.diag(torch.tensor([3.0, 2.0, 0.0])))
    # Fed mostly along the last axis, that one is worth keeping: 3 * 0.1 and 2 * 0.1 against 1 * 9.
    fed = torch.diag(torch.tensor([0.1, 0.1, 9.0]))
    first, second = factor(matrix, 1, fed)
    torch.testing.assert_close(
        second @ first, torch.diag(torch.tensor([0.0, 0.0, 1.0])), atol=1e-4, rtol=1e-4
    )


def test_svd_keeps_the_function_of_a_pair_that_is_wide_enough():
    # Six outputs of three tokens: the head's product has rank 3, so 4 inner channels hold it.
    teacher = model(1, TEACHER)
    student = model(2, TEACHER, output_affine_dim=4)
    report = transplant(student, teacher, TransplantConfig(pairs="svd"))
    assert {r.action for r in report if "out_linear" in r.name} == {"svd"}
    assert {r.action for r in report if "out_linear" not in r.name} == {"copied"}
    x = torch.randn(2, 9, 10)
    torch.testing.assert_close(student(x), teacher(x), rtol=1e-5, atol=1e-6)


def test_compensation_of_the_mean_and_by_least_squares():
    # y = x0 + 2 x1 with x1 = 3 + x0 / 2: without x1, y = 2 x0 + 6.
    kept = torch.tensor([[-1.0], [0.0], [1.0], [4.0]])
    target = kept + 2 * (3 + kept / 2)
    weight, bias = torch.ones(1, 1), torch.zeros(1)
    assert compensate("none", weight, bias, kept, target) == (weight, bias)
    weight_mean, bias_mean = compensate("mean", weight, bias, kept, target)
    # The mean of x0 is 1, that of y is 8.
    assert (weight_mean.item(), bias_mean.item()) == (1.0, 7.0)
    weight_fit, bias_fit = compensate("least_squares", weight, bias, kept, target)
    assert weight_fit.item() == pytest.approx(2.0, rel=1e-3)
    assert bias_fit.item() == pytest.approx(6.0, rel=1e-3)


def test_a_mean_that_the_projection_drops_reaches_the_affines_bias():
    # Channel 7 of the input to block 0 is constant: leaving it out must change nothing but edges.
    teacher = model(1, TEACHER)
    with torch.no_grad():
        teacher.backbone.in_linear2.linear.weight[7] = 0.0
        teacher.backbone.in_linear2.linear.bias[7] = 2.0
    student = model(2, TEACHER, linear_dim=7, num_layers=1)
    rule = TransplantConfig(compensation="mean")
    transplant(student, teacher, rule, sample=sample_of(teacher))
    x = torch.randn(1, 30, 10)
    lengths = torch.tensor([30])
    sample = type(sample_of(teacher)).of(teacher, [(x, lengths)])
    packing = sample.packing(teacher)
    reached = compute_activations(student.backbone, sample.rows, packing).before[1]
    wanted = compute_activations(teacher.backbone, sample.rows, packing).before[1][:, :7]
    torch.testing.assert_close(reached[4:-4], wanted[4:-4], rtol=1e-4, atol=1e-4)


def test_what_the_relu_hides_need_not_be_fitted():
    # relu(target) is relu(x); where x < 0 the target is far from linear.
    x = torch.linspace(-1, 1, 41).unsqueeze(1)
    target = torch.where(x > 0, x, 50 * x)
    weight, bias = fit_rectified(x, target, rounds=200)
    reached = (x @ weight.T + bias).clamp(min=0)
    assert (reached - target.clamp(min=0)).abs().max() < 0.05
    plain, plain_bias = fit_affine(x, target)
    assert ((x @ plain.T + plain_bias).clamp(min=0) - target.clamp(min=0)).abs().max() > 1


def test_windows_are_the_memory_of_the_model():
    student = model(2, STUDENT, left_order=3, right_order=2, right_stride=2)
    config = student.config.backbone
    assert tap_offsets(config) == [-2, -1, 0, 2, 4]
    sample = sample_of(student)
    packing = sample.packing(student)
    rows = torch.randn(len(sample.rows), 7)
    project, memory, _ = student.backbone.fsmn[0]
    taps = torch.cat(
        [conv.weight.flatten(1) for conv in (memory.conv_left, memory.conv_right)], dim=1
    ).detach()
    taps[:, 2] += 1.0
    windows = TapWindows(rows, packing, config)
    with torch.no_grad():
        expected = memory(project(rows), packing)
        found = windows.run_memory(project.linear.weight, taps)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_block_that_can_be_matched_is_matched():
    config = model(0, STUDENT).config.backbone
    sample = sample_of(model(0, STUDENT), num=150)
    rows = torch.randn(len(sample.rows), 7)
    windows = TapWindows(rows, sample.packing(model(0, STUDENT)), config)
    torch.manual_seed(3)
    wanted = BlockWeights(torch.randn(3, 7), torch.randn(3, 3), torch.randn(7, 3), torch.randn(7))
    start = BlockWeights(
        *(value + 0.3 * torch.randn_like(value) for value in vars(wanted).values())
    )
    target = wanted.run(windows)

    def error(block):
        reached = block.run(windows).clamp(min=0)
        return float((reached - target.clamp(min=0)).square().mean())

    fitted = fit_block(start, windows, target, rounds=10, sweeps=3)
    assert error(fitted) < 2e-3 * error(start)


def test_a_softmax_regression_finds_the_posteriors_it_was_made_from():
    torch.manual_seed(0)
    inputs = torch.randn(500, 4)
    weight, bias = torch.randn(3, 4), torch.randn(3)
    logits = inputs @ weight.T + bias
    found_weight, found_bias = fit_softmax(inputs, logits)
    found = (inputs @ found_weight.T + found_bias).softmax(dim=-1)
    assert (found - logits.softmax(dim=-1)).abs().max() < 0.02


@pytest.mark.parametrize("changes", [{}, {"right_order": 0}, {"left_order": 3, "right_stride": 2}])
def test_moments_are_those_of_the_stacked_neighbours(changes):
    student = model(2, STUDENT, **changes)
    config = student.config.backbone
    sample = sample_of(student, num=6, num_frames=5)
    packing = sample.packing(student)
    rows, target = torch.randn(len(sample.rows), 7), torch.randn(len(sample.rows), 4)
    # The neighbours of each frame, utterance by utterance; beyond its ends there is nothing.
    stacked = []
    for utterance in rows.split(sample.lengths.tolist()):
        for t in range(len(utterance)):
            places = [t + offset for offset in tap_offsets(config)]
            inside = [0 <= place < len(utterance) for place in places]
            taps = [
                utterance[place] if is_in else torch.zeros(7)
                for place, is_in in zip(places, inside, strict=True)
            ]
            stacked.append(torch.stack(taps))
    stacked = torch.stack(stacked)
    centred = stacked - stacked.mean(dim=0)
    found = TapWindows(rows, packing, config).moments(target)
    expected = torch.einsum("nkh,nlj->khlj", centred, centred)
    torch.testing.assert_close(found.gram, expected, rtol=1e-4, atol=1e-4)
    expected = torch.einsum("nkh,no->kho", centred, target)
    torch.testing.assert_close(found.crossed, expected, rtol=1e-4, atol=1e-4)
