"""Every curve against its formula in float64, and against torch's where that is right."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from brickyard import schedules as S
from brickyard.catalog import shelf

STEPS = st.integers(0, 500)
UNIT = st.floats(0.01, 1)


@given(t=STEPS, every=st.integers(1, 90), factor=UNIT, k=st.floats(0, 2))
def test_rates(t, every, factor, k):
    assert S.step(every, factor)(t) == pytest.approx(factor ** math.floor(t / every))
    assert S.exponential(factor, every)(t) == pytest.approx(factor ** (t / every))
    assert S.natural_exponential(k, every)(t) == pytest.approx(math.exp(-k * t / every))
    assert S.inverse_time(k, every)(t) == pytest.approx(1 / (1 + k * t / every))
    assert S.inverse_sqrt(every)(t) == pytest.approx((every / (every + t)) ** 0.5)
    marks = [every, every + 7, 3 * every + 7]
    want = factor ** sum(mark <= t for mark in marks)
    assert S.multistep(marks, factor)(t) == pytest.approx(want)


@given(t=STEPS, total=st.integers(1, 300), power=st.floats(0.1, 4), end=UNIT)
def test_polynomial(t, total, power, end):
    want = end + (1 - end) * (1 - min(t / total, 1)) ** power
    assert S.polynomial(total, power, end)(t) == pytest.approx(want, abs=1e-12)


@given(t=STEPS, first=st.integers(1, 60), mult=st.sampled_from([1, 1.5, 2, 3]), end=UNIT)
def test_cosine_restarts(t, first, mult, end):
    start, size = 0.0, float(first)
    while t >= start + size:
        start, size = start + size, size * mult
    want = end + (1 - end) * (1 + math.cos(math.pi * (t - start) / size)) / 2
    schedule = S.cosine_restarts(first, mult, end)
    assert schedule(t) == pytest.approx(want, abs=1e-12)
    if mult != 1.5:
        assert all(schedule(stop) == 1 for stop in schedule.restarts(500))


@pytest.mark.parametrize("mode", ["triangular", "triangular2", "exp_range"])
@given(t=STEPS, up=st.integers(1, 40), down=st.integers(1, 40))
def test_cyclic(mode, t, up, down):
    cycle, inside = divmod(t, up + down)
    x = inside / up if inside <= up else (up + down - inside) / down
    size = {"triangular": 1, "triangular2": 2.0**-cycle, "exp_range": 0.99**t}[mode]
    got = S.cyclic(0.1, 0.9, up, down, mode, gamma=0.99)(t)
    assert got == pytest.approx(0.1 + 0.8 * x * size, abs=1e-12)


@pytest.mark.parametrize("shape", ["cosine", "linear"])
@given(t=st.integers(0, 300), total=st.integers(2, 250), up=st.floats(0.05, 0.95))
def test_one_cycle(shape, t, total, up):
    def between(a, b, x):
        return a + (b - a) * (x if shape == "linear" else (1 - math.cos(math.pi * x)) / 2)

    x, rise = min(t, total), up * total
    there, back = x / rise, (x - rise) / (total - rise)
    want = between(1 / 20, 1, there) if x <= rise else between(1, 1 / 20 / 300, back)
    other = between(0.9, 0.8, there) if x <= rise else between(0.8, 0.9, back)
    schedule = S.one_cycle(total, None, 20, 300, (0.9, 0.8), up, shape)
    assert schedule(t) == pytest.approx(want, abs=1e-12)
    assert schedule.companions["momentum"](t) == pytest.approx(other, abs=1e-12)


@pytest.mark.parametrize("shape", ["linear", "cosine", "sqrt"])
@given(t=STEPS, parts=st.tuples(*[st.integers(1, 120)] * 3), end=UNIT)
def test_wsd(shape, t, parts, end):
    warm, stable, decay = parts
    x = min(max((t - warm - stable) / decay, 0), 1)
    left = {"linear": 1 - x, "cosine": (1 + math.cos(math.pi * x)) / 2, "sqrt": 1 - x**0.5}[shape]
    want = t / warm if t < warm else end + (1 - end) * left
    assert S.wsd(*parts, end=end, shape=shape)(t) == pytest.approx(want, abs=1e-12)
    free = S.wsd(warm, "rest", decay, end, shape).resolve(total=sum(parts))
    assert free(t) == pytest.approx(want, abs=1e-12)


def optimizer(**options):
    return torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], **{"lr": 0.3, **options})


TORCH = {
    "step": (lambda: S.step(7, 0.5), lambda o: lr_scheduler.StepLR(o, 7, 0.5)),
    "multistep": (lambda: S.multistep([5, 30], 0.2),
                  lambda o: lr_scheduler.MultiStepLR(o, [5, 30], 0.2)),
    "exponential": (lambda: S.exponential(0.9), lambda o: lr_scheduler.ExponentialLR(o, 0.9)),
    "polynomial": (lambda: S.polynomial(40, 0.9), lambda o: lr_scheduler.PolynomialLR(o, 40, 0.9)),
    "constant": (lambda: S.constant(1.0), lambda o: lr_scheduler.ConstantLR(o, 1.0)),
    "linear": (lambda: S.linear(40, 0.1), lambda o: lr_scheduler.LinearLR(o, 1.0, 0.1, 40)),
    "warmup": (lambda: S.warmup(40, start=0.25), lambda o: lr_scheduler.LinearLR(o, 0.25, 1, 40)),
    "cosine_restarts": (lambda: S.cosine_restarts(10, 2, 0.1),
                        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 10, 2, 0.03)),
    "cyclic": (lambda: S.cyclic(1 / 3, 1, 8, 5, "triangular2"),
               lambda o: lr_scheduler.CyclicLR(o, 0.1, 0.3, 8, 5, "triangular2",
                                               cycle_momentum=False)),
    # torch counts its steps from 0 to total - 1, with the peak at up*total - 1
    "one_cycle": (lambda: S.one_cycle(60, up=0.3),
                  lambda o: lr_scheduler.OneCycleLR(o, 0.3, total_steps=61, pct_start=19 / 61)),
}  # fmt: skip


@pytest.mark.parametrize("name", TORCH)
def test_equals_torch(name):
    make, theirs = TORCH[name]
    mine, other = optimizer(momentum=0.9), optimizer(momentum=0.9)
    ours, scheduler = make().bind(mine), theirs(other)
    for _ in range(60):
        assert mine.param_groups[0]["lr"] == pytest.approx(other.param_groups[0]["lr"], rel=1e-7)
        assert mine.param_groups[0]["momentum"] == pytest.approx(other.param_groups[0]["momentum"])
        for one, s in ((mine, ours), (other, scheduler)):
            one.step()
            s.step()


@given(losses=st.lists(st.floats(0.1, 3), min_size=20, max_size=60),
       cooldown=st.integers(0, 3), patience=st.integers(0, 4),
       how=st.sampled_from(["rel", "abs"]), mode=st.sampled_from(["min", "max"]))  # fmt: skip
def test_plateau_equals_torch(losses, cooldown, patience, how, mode):
    mine, other = optimizer(), optimizer()
    schedule = S.reduce_on_plateau(0.5, patience, 0.05, how, mode, cooldown, end=0.01)
    ours = schedule.bind(mine)
    theirs = lr_scheduler.ReduceLROnPlateau(
        other, mode, 0.5, patience, threshold=0.05, threshold_mode=how, cooldown=cooldown,
        min_lr=0.003, eps=0,
    )  # fmt: skip
    for k, loss in enumerate(losses):
        ours.step()
        ours.report(loss)
        theirs.step(loss)
        assert mine.param_groups[0]["lr"] == pytest.approx(other.param_groups[0]["lr"])
        if k == len(losses) // 2:  # saved and loaded in the middle
            again = optimizer()
            state, ours = ours.state_dict(), schedule.bind(again)
            ours.load_state_dict(state)
            mine = again


def test_every_schedule_of_the_shelf_resumes_by_construction():
    """Bound anew and set to step k, the rate is that of step k, for every schedule."""
    made = {
        "step": (5,), "multistep": ([3, 8],), "exponential": (0.9,), "natural_exponential": (0.1,),
        "inverse_time": (0.1,), "cosine_restarts": (6,), "cyclic": (0.1, 1, 4), "warmup": (9,),
    }  # fmt: skip
    keys = [card.key for card in shelf() if card.kind == "schedule"]
    assert len(keys) >= 16
    for key in keys:
        schedule = getattr(S, key)(*made.get(key, ()))
        assert repr(schedule).startswith("warmup(" if key == "wsd" else f"{key}("), "as written"
        assert "<function" not in repr(schedule)
        first = optimizer(momentum=0.9)
        whole = schedule.bind(first, total=20, epoch=5)
        rates = []
        for _ in range(20):
            rates.append(first.param_groups[0]["lr"])
            whole.step()
        for k in (0, 7, 19):
            other = optimizer(momentum=0.9)
            again = schedule.bind(other, total=20, epoch=5)
            again.load_state_dict({**whole.state_dict(), "step": k})
            assert other.param_groups[0]["lr"] == rates[k], key
