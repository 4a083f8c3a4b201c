import pytest
import torch
import torch.nn.functional as F

from wekws.errors import ConfigError
from wekws.model.fsmn import FSMN, Memory, pack
from wekws.model.model_conf import FSMNConfig


def config(**changes):
    sizes = {
        "input_affine_dim": 5,
        "num_layers": 2,
        "linear_dim": 6,
        "proj_dim": 4,
        "left_order": 3,
        "right_order": 2,
        "output_affine_dim": 5,
    }
    return FSMNConfig(**{**sizes, **changes})


def network(seed=0, **changes):
    torch.manual_seed(seed)
    return FSMN(7, 3, config(**changes)).eval()


def memory_by_definition(x, left, right, left_stride, right_stride):
    """One utterance (T, P), frame by frame; left (L, P), right (R, P)."""
    out = x.clone()
    for t in range(len(x)):
        for i in range(len(left)):
            past = t - (len(left) - 1 - i) * left_stride
            if past >= 0:
                out[t] += left[i] * x[past]
        for j in range(len(right)):
            future = t + (j + 1) * right_stride
            if future < len(x):
                out[t] += right[j] * x[future]
    return out


SHAPES = [
    {},
    {"right_order": 0},
    {"left_order": 1, "right_order": 0},
    {"left_order": 1, "right_order": 3},
    {"left_stride": 2, "right_stride": 2},
    {"left_stride": 2, "right_stride": 3},
    {"left_stride": 3, "right_stride": 1, "right_order": 3},
    {"left_stride": 2, "right_order": 0},
    {"left_order": 10, "right_order": 2, "proj_dim": 128},
]


@pytest.mark.parametrize("changes", SHAPES, ids=str)
def test_memory_is_its_definition_for_any_order_and_stride(changes):
    torch.manual_seed(1)
    sizes = config(**changes)
    memory = Memory(sizes).double()
    lengths = torch.tensor([9, 1, 0, 12])
    x = torch.randn(int(lengths.sum()), sizes.proj_dim, dtype=torch.float64)
    gap = max(sizes.left_reach, sizes.right_reach, 1)
    out = memory(x, pack(lengths, 12, gap))
    left = memory.conv_left.weight[:, 0, :, 0].t()
    right = left[:0] if memory.conv_right is None else memory.conv_right.weight[:, 0, :, 0].t()
    strides = sizes.left_stride, sizes.right_stride
    rows = x.split(lengths.tolist())
    expected = torch.cat([memory_by_definition(row, left, right, *strides) for row in rows])
    torch.testing.assert_close(out, expected)


def test_memory_by_hand():
    # One channel; left taps 10 (one back) and 1 (present), right tap 100 (one ahead), identity.
    memory = Memory(config(proj_dim=1, left_order=2, right_order=1))
    with torch.no_grad():
        memory.conv_left.weight.copy_(torch.tensor([10.0, 1.0]).reshape(1, 1, 2, 1))
        memory.conv_right.weight.fill_(100.0)
    out = memory(torch.tensor([[1.0], [2.0], [3.0]]), pack(torch.tensor([3]), 3, 1))
    # 1 + 1*1 + 100*2; 2 + 10*1 + 1*2 + 100*3; 3 + 10*2 + 1*3.
    assert out.flatten().tolist() == [202.0, 314.0, 26.0]


@pytest.mark.parametrize("strides", [(1, 1), (2, 3)])
def test_memory_gradients_are_right(strides):
    torch.manual_seed(2)
    memory = Memory(config(left_stride=strides[0], right_stride=strides[1])).double()
    packing = pack(torch.tensor([5, 2]), 5, 6)
    x = torch.randn(7, 4, dtype=torch.float64, requires_grad=True)
    taps = list(memory.parameters())
    assert torch.autograd.gradcheck(lambda x, *taps: memory(x, packing), (x, *taps))


def test_packing_by_hand():
    packing = pack(torch.tensor([2, 0, 1]), 3, 4)
    # Frames 0, 1 of the first utterance, 0 of the third (row 6); 4 slots after each utterance.
    assert packing.rows.tolist() == [0, 1, 6]
    assert packing.slots.tolist() == [0, 1, 10]
    assert packing.num_slots == 15


def test_packing_to_a_multiple_repeats_a_valid_frame_behind_the_last_utterance():
    packing = pack(torch.tensor([0, 2, 1]), 3, 4, multiple=8)
    assert packing.rows.tolist() == [3, 4, 6, 3, 3, 3, 3, 3] and packing.num_valid == 3
    # No frame is within the reach of 4 of another utterance or of the rows that are ignored.
    assert packing.slots.tolist() == [4, 5, 10, 15, 16, 17, 18, 19]
    assert packing.num_slots == 24
    nothing = pack(torch.tensor([0, 0]), 3, 4, multiple=8)
    assert len(nothing.rows) == 0 and nothing.num_slots == 8


@pytest.mark.parametrize("changes", SHAPES[:6], ids=str)
def test_padding_changes_nothing(changes):
    model = network(**changes)
    lengths = torch.tensor([4, 13, 1, 0])
    x = torch.randn(4, 13, 7)
    loud = x.clone()
    for row, length in enumerate(lengths):
        loud[row, length:] = torch.inf
    batched = model(loud, lengths)
    assert torch.equal(batched, model(x, lengths))
    for row, length in enumerate(lengths.tolist()):
        assert (batched[row, length:] == 0).all()
        if length:
            alone = model(x[row : row + 1, :length])
            torch.testing.assert_close(batched[row, :length], alone[0], rtol=1e-6, atol=1e-6)


def test_lengths_left_out_means_all_frames():
    model, x = network(), torch.randn(3, 8, 7)
    assert torch.equal(model(x), model(x, torch.tensor([8, 8, 8])))


def test_all_padding_and_no_frames():
    model = network()
    assert torch.equal(model(torch.randn(2, 5, 7), torch.tensor([0, 0])), torch.zeros(2, 5, 3))
    assert model(torch.randn(2, 0, 7)).shape == (2, 0, 3)


def test_receptive_field_is_exactly_what_the_orders_say():
    # Two blocks, 2 frames back and 2 ahead each: output 10 depends on inputs 6 to 14 only.
    model = network().double()
    x = torch.randn(1, 21, 7, dtype=torch.float64, requires_grad=True)
    model(x)[0, 10].sum().backward()
    used = x.grad[0].abs().sum(1).nonzero().flatten().tolist()
    assert used == list(range(6, 15))


def left_padded(model, x):
    """WeKWS's network, written from its definition: every block pads on the left alone."""
    sizes = model.config
    reach = (sizes.left_order - 1) * sizes.left_stride
    delay = sizes.right_order * sizes.right_stride
    x = F.relu(model.in_linear2(model.in_linear1(x)))
    for project, memory, expand in model.fsmn:
        image = F.pad(project(x).transpose(1, 2), (reach + delay, 0))
        num_frames = x.shape[1]
        past, now = image[..., : reach + num_frames], image[..., reach : reach + num_frames]
        left = memory.conv_left.weight.squeeze(3)
        y = now + F.conv1d(past, left, dilation=sizes.left_stride, groups=len(left))
        right = memory.conv_right.weight.squeeze(3)
        future = image[..., reach + sizes.right_stride :]
        y = y + F.conv1d(future, right, dilation=sizes.right_stride, groups=len(right))
        x = F.relu(expand(y.transpose(1, 2)))
    return model.out_linear2(model.out_linear1(x))


@pytest.mark.parametrize("changes", [{}, {"left_stride": 2, "right_stride": 2}], ids=str)
def test_wekws_is_ours_late_by_the_right_taps_of_all_blocks(changes):
    model = network(**changes).double()
    delay = 2 * model.config.right_reach
    edge = 2 * (model.config.left_reach + model.config.right_reach)
    x = torch.randn(2, 60, 7, dtype=torch.float64)
    late, ours = left_padded(model, x), model(x)
    torch.testing.assert_close(late[:, delay + edge :], ours[:, edge : 60 - delay])
    assert not torch.allclose(late[:, edge:], ours[:, edge:])


def test_gradients_are_finite_and_reach_every_parameter():
    model = network()
    x = torch.randn(3, 6, 7, requires_grad=True)
    model(x, torch.tensor([6, 1, 0])).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name
    assert torch.isfinite(x.grad).all()
    assert (x.grad[1, 1:] == 0).all() and (x.grad[2] == 0).all()


def test_bfloat16_autocast_stays_close():
    model, x = network(), torch.randn(2, 9, 7)
    lengths = torch.tensor([9, 4])
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(x, lengths)
    assert rough.dtype == torch.bfloat16
    rough.float().sum().backward()
    exact = model(x, lengths)
    assert (rough.float() - exact).abs().max() < 0.03 * exact.abs().max()
    rough_grads = [p.grad for p in model.parameters()]
    for parameter in model.parameters():
        parameter.grad = None
    exact.sum().backward()
    for found, parameter in zip(rough_grads, model.parameters(), strict=True):
        wanted = parameter.grad
        assert (found - wanted).abs().max() < 0.05 * wanted.abs().max()


def test_bfloat16_on_the_cpu_has_few_sizes_of_matrices():
    model, sizes = network(), []
    model.in_linear1.register_forward_hook(lambda *call: sizes.append(len(call[2])))
    for length in (5, 7):
        for use_bf16 in (False, True):
            with torch.autocast("cpu", torch.bfloat16, enabled=use_bf16):
                model(torch.randn(2, 9, 7), torch.tensor([9, length]))
    assert sizes == [14, 256, 16, 256]


def test_bfloat16_ignores_padding_as_float32_does():
    """The rows that bfloat16 adds repeat a valid frame: padding that is inf reaches no gradient."""
    model, lengths = network(), torch.tensor([0, 9, 4])
    x = torch.randn(3, 9, 7)
    x[0], x[2, 4:] = torch.inf, torch.nan
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(x, lengths)
    assert (logits[0] == 0).all() and (logits[2, 4:] == 0).all()
    logits.float().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize(
    "changes", [{"num_layers": 0}, {"left_order": 0}, {"right_order": -1}, {"left_stride": 0}]
)
def test_impossible_sizes_are_refused(changes):
    with pytest.raises(ConfigError, match=next(iter(changes))):
        config(**changes)


def test_no_outputs_is_refused():
    with pytest.raises(ConfigError, match="vocabulary"):
        FSMN(7, 0, config())


@pytest.mark.parametrize("name", ["num_layers", "linear_dim", "left_stride"])
def test_sizes_that_would_take_all_memory_are_refused(name):
    with pytest.raises(ConfigError, match=f"{name}: found 10000000; expected at most"):
        config(**{name: 10_000_000})
