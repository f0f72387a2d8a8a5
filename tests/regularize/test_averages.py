"""Averages of weights: their formulas in float64, and that the trained weights always come back."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from brickyard.regularize import EMA, SWA, recalibrate


def _net(seed=0, dtype=torch.float64):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2)).to(
        dtype
    )


def _wander(model, steps, seed=1):
    """Move all weights and statistics at random; yield after each move."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        with torch.no_grad():
            for t in (*model.parameters(), *model.buffers()):
                if t.is_floating_point():
                    t.add_(torch.randn(t.shape, generator=generator, dtype=t.dtype) * 0.1)
                else:
                    t.add_(1)
        yield


def _copy(model):
    return {name: t.clone() for name, t in model.state_dict().items()}


def _same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("warmup", [0, 1, 10, 50])
@pytest.mark.parametrize("decay", [0.0, 0.5, 0.97])
def test_ema_is_its_formula(decay, warmup):
    model = _net()
    ema = EMA(model, decay, warmup)
    oracle = {n: p.detach().numpy().copy() for n, p in model.named_parameters()}
    mean = model[1].running_mean.numpy().copy()
    for n, _ in enumerate(_wander(model, 30)):
        d = decay if warmup == 0 else min(decay, (1 + n) / (warmup + n))
        ema.update()
        oracle = {k: d * v + (1 - d) * dict(model.named_parameters())[k].detach().numpy()
                  for k, v in oracle.items()}  # fmt: skip
        mean = d * mean + (1 - d) * model[1].running_mean.numpy()
    raw = _copy(model)
    with ema.applied() as inside:
        assert inside is model
        for name, p in model.named_parameters():
            np.testing.assert_allclose(p.detach().numpy(), oracle[name], rtol=1e-12)
        np.testing.assert_allclose(model[1].running_mean.numpy(), mean, rtol=1e-12)
        assert int(model[1].num_batches_tracked) == 30, "counts are copied"
    assert _same(_copy(model), raw)


def test_buffers_are_averaged_or_copied():
    model = _net()
    start = model[1].running_var.clone()
    for buffers in ("average", "copy"):
        ema = EMA(model, 0.9, 0, buffers=buffers)
        for _ in _wander(model, 3):
            ema.update()
        with ema.applied():
            own = model[1].running_var.clone()
        assert torch.equal(own, model[1].running_var) == (buffers == "copy")
    assert not torch.equal(start, model[1].running_var)


def test_swa_is_the_mean_of_what_counts():
    model = _net()
    swa = SWA(model, start=4, every=3)
    kept = []
    for step, _ in enumerate(_wander(model, 14), 1):
        assert swa.ready == bool(kept)
        assert swa.update() == (step in (7, 10, 13))
        if step in (7, 10, 13):
            kept.append({n: p.detach().numpy().copy() for n, p in model.named_parameters()})
    mean = {n: np.mean([k[n] for k in kept], axis=0) for n in kept[0]}
    for name, p in swa.copy().named_parameters():
        np.testing.assert_allclose(p.detach().numpy(), mean[name], rtol=1e-12)


def test_lengths_are_resolved_or_refused():
    swa = SWA(_net(), start="75%", every="1ep")
    with pytest.raises(ValueError, match="in a loop of your own give steps"):
        swa.update()
    swa.resolve(lambda length: {"75%": 30, "1ep": 10}[length])
    assert (swa.start, swa.every) == (30, 10)


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_trained_weights_come_back_also_on_errors(error):
    model = _net()
    ema = EMA(model, 0.5)
    for _ in _wander(model, 2):
        ema.update()
    raw = _copy(model)
    try:
        with ema.applied():
            assert not _same(_copy(model), raw)
            with ema.applied():
                inner = _copy(model)
            assert _same(_copy(model), inner), "an inner block leaves the outer one its weights"
            with pytest.raises(RuntimeError, match="leave it first"):
                ema.update()
            if error:
                raise error
    except (RuntimeError, KeyboardInterrupt):
        pass
    assert _same(_copy(model), raw)
    assert ema.update(), "and updates go on"


def test_training_goes_on_as_if_nothing_had_been_looked_at():
    runs = []
    for look in (False, True):
        model = _net()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        ema = EMA(model, 0.9)
        torch.manual_seed(3)
        for _ in range(5):
            optimizer.zero_grad()
            model(torch.randn(8, 3, dtype=torch.float64)).square().sum().backward()
            optimizer.step()
            ema.update()
            if look:
                with ema.applied():
                    model.eval()(torch.ones(2, 3, dtype=torch.float64))
                model.train()
        runs.append(_copy(model))
    assert _same(*runs)


def test_tied_weights_are_kept_once():
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    model[1].weight = model[0].weight
    ema = EMA(model, 0.5, 0)
    assert list(ema.averaged) == ["0.weight"]
    with torch.no_grad():
        model[0].weight.zero_()
    before = ema.averaged["0.weight"].clone()
    ema.update()
    torch.testing.assert_close(ema.averaged["0.weight"], before / 2)


def test_half_precision_is_averaged_in_fp32():
    model = _net(dtype=torch.bfloat16)
    ema = EMA(model, 0.999, 0)
    assert {t.dtype for t in ema.averaged.values()} == {torch.float32}
    with torch.no_grad():
        model[0].weight.fill_(1.0)
        ema.averaged["0.weight"].zero_()
    for _ in range(100):
        ema.update()
    torch.testing.assert_close(ema.averaged["0.weight"].mean(), torch.tensor(1 - 0.999**100))
    with ema.applied():
        assert model[0].weight.dtype == torch.bfloat16


def test_state_goes_by_name_and_shares_nothing():
    model = _net()
    ema = EMA(model, 0.9)
    for _ in _wander(model, 3):
        ema.update()
    state = ema.state_dict()
    other = EMA(_net(5), 0.9)
    other.load_state_dict(state)
    saved = {n: t.clone() for n, t in state["averaged"].items()}
    for _ in _wander(model, 1, seed=9):
        other.model.load_state_dict(model.state_dict())
        ema.update()
        other.update()
    assert _same(ema.averaged, other.averaged), "the warm-up's count is a part of the state"
    assert _same(state["averaged"], saved), "updates do not reach into a saved state"


def test_a_state_of_another_model_is_refused():
    ema = EMA(_net())
    with pytest.raises(ValueError, match=r"no weight called '0\.wight'"):
        ema.load_state_dict({"steps": 0, "updates": 0, "averaged": {"0.wight": torch.ones(1)}})
    state = EMA(_net()).state_dict()
    state["averaged"]["0.bias"] = torch.ones(7)
    with pytest.raises(ValueError, match=r"'0\.bias' has the shape \(7,\)"):
        ema.load_state_dict(state)
    del state["averaged"]["0.bias"]
    with pytest.raises(ValueError, match=r"'0\.bias', which is missing"):
        ema.load_state_dict(state)


@pytest.mark.parametrize(
    ("options", "says"),
    [({"decay": 1.0}, "decay must be"), ({"decay": -0.1}, "decay must be"),
     ({"warmup": 0.5}, "warmup must be"), ({"buffers": "no"}, "buffers must be")],
)  # fmt: skip
def test_impossible_options(options, says):
    with pytest.raises(ValueError, match=says):
        EMA(_net(), **options)
    with pytest.raises(ValueError, match="every must be 1 or more"):
        SWA(_net(), start=0, every=0)


def test_recalibration_is_torchs_over_whole_batches_and_leaves_no_trace():
    batches = [torch.randn(8, 3, dtype=torch.float64) for _ in range(4)]
    small = torch.randn(2, 3, dtype=torch.float64) + 100
    model, reference = _net(), _net()
    model.eval()
    model[3].train()
    rng = torch.get_rng_state()
    assert recalibrate(model, iter([*batches, small]))
    assert torch.equal(torch.get_rng_state(), rng), "dropout drew from a copy"
    assert [m.training for m in model] == [False, False, False, True]
    update_bn(batches, reference)
    assert torch.equal(model[1].running_mean, reference[1].running_mean)
    assert torch.equal(model[1].running_var, reference[1].running_var)
    assert model[1].momentum == 0.1

    def untouched():
        raise AssertionError("a model without batch norm takes no batch")
        yield

    assert not recalibrate(nn.Linear(2, 2), untouched())
    with pytest.raises(ValueError, match="a batch at least"):
        recalibrate(model, [])


def test_swa_keeps_statistics_that_belong_to_its_weights():
    model = _net()
    swa = SWA(model, start=0, every=1)
    for _ in _wander(model, 3):
        swa.update()
    raw = _copy(model)
    batches = [torch.randn(8, 3, dtype=torch.float64) for _ in range(3)]
    assert swa.recalibrate(batches)
    assert _same(_copy(model), raw)
    assert not swa.recalibrate(batches), "once for each average"
    fresh = swa.copy()
    update_bn(batches, fresh)
    assert torch.equal(swa.copy()[1].running_var, fresh[1].running_var)
    again = SWA(_net(4), start=0, every=1)
    again.load_state_dict(swa.state_dict())
    assert torch.equal(again.copy()[1].running_var, fresh[1].running_var)
    assert not again.recalibrate(batches)
