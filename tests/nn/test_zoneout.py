"""Zoneout: the paper's equations, the two ends, and the state dict of nn.LSTM."""

import pytest
import torch
from torch import nn
from torch.func import functional_call

from brickyard.catalog import get
from brickyard.nn import Zoneout, ZoneoutLSTM

CELLS = [nn.RNNCell, nn.GRUCell, nn.LSTMCell]


def x64(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def states(cell):
    h = x64(5, 4, seed=1)
    return (h, x64(5, 4, seed=2)) if isinstance(cell, nn.LSTMCell) else h


def as_tuple(state):
    return state if isinstance(state, tuple) else (state,)


@pytest.mark.parametrize("kind", CELLS)
def test_evaluation_mixes_by_the_chances(kind):
    cell = kind(3, 4).double()
    chances = {"p_hidden": 0.3} | ({"p_cell": 0.6} if kind is nn.LSTMCell else {})
    x, old = x64(5, 3), states(cell)
    new = cell(x, old)
    got = Zoneout(cell, **chances).eval()(x, old)
    pairs = zip(as_tuple(got), as_tuple(new), as_tuple(old), chances.values(), strict=True)
    for g, n, o, p in pairs:
        torch.testing.assert_close(g, p * o + (1 - p) * n)


@pytest.mark.parametrize("kind", CELLS)
def test_training_keeps_entries_one_by_one(kind):
    cell = kind(3, 200).double()
    chances = {"p_hidden": 0.3} | ({"p_cell": 0.6} if kind is nn.LSTMCell else {})
    x = x64(100, 3)
    h = x64(100, 200, seed=1)
    old = (h, 2 * h) if kind is nn.LSTMCell else h
    new = cell(x, old)
    got = Zoneout(cell, **chances)(x, old)
    for g, n, o, p in zip(
        as_tuple(got), as_tuple(new), as_tuple(old), chances.values(), strict=True
    ):
        kept = g == o
        assert torch.equal(torch.where(kept, o, n), g)
        assert kept.double().mean().item() == pytest.approx(p, abs=0.015)
        assert kept.double().mean(0).std() < 0.08, "every entry is drawn by itself"


@pytest.mark.parametrize("kind", CELLS)
def test_the_ends(kind):
    cell = kind(3, 4).double()
    x, old = x64(5, 3), states(cell)
    one = {"p_hidden": 1.0} | ({"p_cell": 1.0} if kind is nn.LSTMCell else {})
    for mode in (True, False):
        for a, b in zip(
            as_tuple(Zoneout(cell, **one).train(mode)(x, old)), as_tuple(old), strict=True
        ):
            torch.testing.assert_close(a, b)
        none = Zoneout(cell, p_hidden=0.0).train(mode)(x, old)
        for a, b in zip(as_tuple(none), as_tuple(cell(x, old)), strict=True):
            assert torch.equal(a, b)
    for a, b in zip(as_tuple(Zoneout(cell, 0.0)(x)), as_tuple(cell(x)), strict=True):
        assert torch.equal(a, b), "no state is a state of zeros"


@pytest.mark.parametrize("kind", CELLS)
def test_cells_in_torch_s_machinery(kind):
    cell = Zoneout(kind(3, 4).double(), 0.2).eval()
    x, old = x64(5, 3).requires_grad_(), states(cell.cell)
    assert list(cell.state_dict()) == ["cell." + k for k in cell.cell.state_dict()]
    first = as_tuple(cell(x, old))[0]
    assert torch.autograd.gradcheck(lambda x, *_: cell(x, old), (x, *cell.parameters()))
    called = functional_call(cell, dict(cell.named_parameters()), (x, old))
    assert torch.equal(as_tuple(called)[0], first)
    compiled = torch.compile(cell, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(as_tuple(compiled(x, old))[0], first)
    assert as_tuple(cell.bfloat16()(torch.ones(2, 3).bfloat16()))[0].dtype == torch.bfloat16


OPTIONS = [
    {}, {"num_layers": 2}, {"bidirectional": True}, {"batch_first": True}, {"bias": False},
    {"num_layers": 3, "bidirectional": True, "batch_first": True},
]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("given", [True, False], ids=["state", "zeros"])
def test_lstm_steps_as_torch_s_own(options, given):
    """Chances too small to fall make the loop in Python compute what the fused call does."""
    theirs = nn.LSTM(3, 4, **options).double()
    ours = ZoneoutLSTM(3, 4, **options, p_hidden=1e-300, p_cell=1e-300).double()
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    x = x64(5, 6, 3).requires_grad_()
    lead = options.get("num_layers", 1) * (2 if options.get("bidirectional") else 1)
    n = 5 if options.get("batch_first") else 6
    hx = (x64(lead, n, 4, seed=1), x64(lead, n, 4, seed=2)) if given else None
    flat = lambda result: [result[0], *result[1]]  # noqa: E731
    for a, b in zip(flat(ours(x, hx)), flat(theirs(x, hx)), strict=True):
        torch.testing.assert_close(a, b)
    one = x64(6, 3)
    for a, b in zip(flat(ours(one)), flat(theirs(one)), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("direction", [1, -1])
def test_lstm_is_the_wrapped_cell_over_time(training, direction):
    lstm = ZoneoutLSTM(3, 4, p_hidden=0.3, p_cell=0.6, bidirectional=True).double().train(training)
    cell = nn.LSTMCell(3, 4).double()
    tail = "" if direction == 1 else "_reverse"
    cell.load_state_dict({k: getattr(lstm, f"{k}_l0{tail}") for k in cell.state_dict()})
    if training:  # whole masks: everything is kept, or nothing
        lstm.p_hidden, lstm.p_cell = 1.0, 1e-300
    wrapped = Zoneout(cell, lstm.p_hidden, lstm.p_cell).train(training)
    x = x64(7, 5, 3)
    state, outputs = (torch.zeros(5, 4).double(),) * 2, []
    for step in x.flip(0) if direction == -1 else x:
        state = wrapped(step, state)
        outputs.append(state[0])
    y, (h, c) = lstm(x)
    half = y[..., :4] if direction == 1 else y[..., 4:].flip(0)
    place = 0 if direction == 1 else 1
    torch.testing.assert_close(half, torch.stack(outputs))
    torch.testing.assert_close(h[place], state[0])
    torch.testing.assert_close(c[place], state[1])


def test_lstm_draws_anew_at_each_step_and_only_in_training():
    lstm = ZoneoutLSTM(3, 50, p_hidden=0.5)
    x = torch.randn(9, 8, 3)
    y, _ = lstm(x)
    stayed = (y[1:] == y[:-1]).float()
    assert stayed.mean().item() == pytest.approx(0.5, abs=0.03)
    assert not torch.equal(stayed[0], stayed[1])
    assert torch.equal(lstm.eval()(x)[0], lstm(x)[0])


def test_lstm_without_chances_is_torch_s_and_every_option_counts():
    lstm = ZoneoutLSTM(3, 4, p_hidden=0.0)
    x = torch.randn(5, 2, 3)
    assert torch.equal(lstm(x)[0], nn.LSTM.forward(lstm, x)[0])
    torch.manual_seed(0)
    base = ZoneoutLSTM(3, 4, p_hidden=0.2, p_cell=0.2).eval()
    for option in ({"p_hidden": 0.4, "p_cell": 0.2}, {"p_hidden": 0.2, "p_cell": 0.4}):
        other = ZoneoutLSTM(3, 4, **option).eval()
        other.load_state_dict(base.state_dict())
        assert not torch.equal(other(x)[0], base(x)[0])
    names = {o.name for o in get("zoneout_lstm").options}
    assert names == {"num_layers", "bias", "batch_first", "bidirectional", "p_hidden", "p_cell"}
    assert {o.name for o in get("zoneout").options} == {"p_hidden", "p_cell"}


def test_lstm_gradients_and_places():
    lstm = ZoneoutLSTM(2, 3, p_hidden=0.3, p_cell=0.2, bidirectional=True).double().eval()
    x = x64(4, 2, 2).requires_grad_()
    inputs = (x, *lstm.parameters())
    assert torch.autograd.gradcheck(lambda x, *_: lstm(x)[0], inputs, fast_mode=True)
    lstm.train()

    def drawn(x, *_):
        torch.manual_seed(3)
        return lstm(x)[0]

    assert torch.autograd.gradcheck(drawn, inputs, fast_mode=True)
    meta = ZoneoutLSTM(2, 3, device="meta")
    assert all(p.is_meta for p in meta.parameters())
    half = ZoneoutLSTM(2, 3, dtype=torch.bfloat16).eval()
    assert half(torch.ones(4, 2, 2).bfloat16())[0].dtype == torch.bfloat16


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda: Zoneout(nn.LSTM(1, 1)), TypeError, "got LSTM; for whole sequences take ZoneoutLSTM"),
    (lambda: Zoneout(nn.GRUCell(1, 1), 0.1, 0.1), ValueError, "GRUCell has no cell state"),
    (lambda: Zoneout(nn.GRUCell(1, 1), 1.1), ValueError, "p_hidden must be a probability"),
    (lambda: Zoneout(nn.LSTMCell(1, 1), 0.1, -1), ValueError, "p_cell must be a probability"),
    (lambda: ZoneoutLSTM(1, 1, p_cell=2), ValueError, "p_cell must be a probability"),
    (lambda: ZoneoutLSTM(1, 1)(torch.ones(1)), ValueError, r"got \(1,\)"),
    (lambda: ZoneoutLSTM(3, 1)(torch.ones(4, 2, 2)), ValueError, r"3 features, got \(4, 2, 2\)"),
    (lambda: ZoneoutLSTM(1, 1)(torch.ones(0, 2, 1)), ValueError, "at least one step"),
    (lambda: ZoneoutLSTM(1, 1, 2)(torch.ones(4, 2, 1), (torch.ones(4, 2, 1),) * 2), ValueError,
     r"starts from states \(2, 2, 1\) .* got \(4, 2, 1\)"),
    (lambda: ZoneoutLSTM(1, 1)(nn.utils.rnn.pack_sequence([torch.ones(2, 1)])), TypeError,
     "takes a padded tensor, got PackedSequence"),
])  # fmt: skip
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()
