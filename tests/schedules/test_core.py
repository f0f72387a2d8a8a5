"""Schedules as functions of the step: formulas, lengths, composition, binding."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from brickyard.optim import AdamW
from brickyard.schedules import Length, constant, cosine, linear, warmup

STEPS = st.integers(1, 400)


def test_seed_figures():
    """Warmup 100 + cosine to 1000 with peak 1e-3, and warmup 50."""
    schedule = (warmup(100) >> cosine()).resolve(total=1000)
    got = [1e-3 * schedule(step) for step in (0, 50, 100, 300, 700, 1000)]
    assert got == pytest.approx([0, 5.00e-4, 1.000e-3, 8.83e-4, 2.50e-4, 0], abs=5e-7)
    other = (warmup(50) >> cosine()).resolve(total=1000)
    assert max(range(1000), key=other) == 50
    assert other(525) == pytest.approx(0.5, rel=0.01)


@given(total=STEPS, end=st.floats(0, 1), step=st.integers(0, 800))
def test_cosine_is_its_formula_and_stays_at_its_end(total, end, step):
    t = min(step / total, 1.0)
    want = end + (1 - end) * (1 + math.cos(math.pi * t)) / 2
    assert cosine(total, end)(step) == pytest.approx(want, abs=1e-12)


@given(total=STEPS, end=st.floats(0, 2), step=st.integers(0, 800))
def test_linear_is_its_formula_and_stays_at_its_end(total, end, step):
    assert linear(total, end)(step) == pytest.approx(1 + (end - 1) * min(step / total, 1))


@given(steps=STEPS, step=st.integers(0, 800), start=st.floats(1e-6, 1))
def test_warmups_are_their_formulas(steps, step, start):
    t = min(step / steps, 1.0)
    assert warmup(steps)(step) == pytest.approx(t)
    assert warmup(steps, start=start)(step) == pytest.approx(start + (1 - start) * t)
    assert warmup(steps, "exponential", start)(step) == pytest.approx(start ** (1 - t))
    assert warmup(steps, "exponential")(0) == pytest.approx(1e-3)


@given(first=STEPS, second=STEPS, step=st.integers(0, 1000))
def test_each_piece_counts_from_its_own_start(first, second, step):
    a, b, c = warmup(first), constant(0.5, second), cosine(37, end=0.1)
    whole = a >> b >> c
    if step < first:
        want = a(step)
    elif step < first + second:
        want = b(step - first)
    else:
        want = c(step - first - second)
    assert whole(step) == want
    assert (a >> (b >> c))(step) == want, "the order of putting together does not matter"


def test_matches_torch_where_torch_is_right():
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.3)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=50, eta_min=0.03)
    ours = cosine(50, end=0.1)
    for step in range(51):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.3 * ours(step), rel=1e-9)
        optimizer.step()
        theirs.step()
    for _ in range(10):  # past its end torch's climbs again; ours stays
        theirs.step()
    assert optimizer.param_groups[0]["lr"] > 0.04
    assert ours(61) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("given_length", "total", "epoch", "want"),
    [(7, None, None, 7), ("3ep", None, 20, 60), ("10%", 2000, None, 200), ("rest", 90, None, 80),
     ("0.5ep", None, 9, 4), ("1%", 10, None, 1)],
)  # fmt: skip
def test_lengths(given_length, total, epoch, want):
    assert Length.parse(given_length).steps(total, epoch, used=10) == want


@pytest.mark.parametrize("wrong", [0, -3, "0%", "101%", "3 hours", 2.5, True, None, "", "1e3"])
def test_wrong_lengths_say_what_is_right(wrong):
    with pytest.raises(ValueError, match=r"length"):
        Length.parse(wrong)


def test_unresolved_lengths_are_errors():
    with pytest.raises(ValueError, match="total steps"):
        cosine()(3)
    with pytest.raises(ValueError, match="steps per epoch"):
        warmup("2ep")(3)
    with pytest.raises(ValueError, match="100 of 80 steps"):
        (warmup(100) >> cosine()).resolve(total=80)


def test_nothing_runs_after_an_endless_piece():
    with pytest.raises(ValueError, match="has no end"):
        constant() >> cosine(5)
    with pytest.raises(ValueError, match="has no end"):
        cosine() >> constant()


@pytest.mark.parametrize(
    "make", [lambda: cosine(5, end=-1), lambda: linear(5, end=-1), lambda: constant(-1),
             lambda: warmup(5, "cubic"), lambda: warmup(5, "exponential", 0.0),
             lambda: warmup(5, start=1.5)],
)  # fmt: skip
def test_wrong_options(make):
    with pytest.raises(ValueError, match="got"):
        make()


def test_values_and_repr():
    schedule = warmup("10%") >> cosine(end=0.1)
    values = schedule.values(200)
    assert values.dtype == np.float64
    assert values.shape == (200,)
    assert values.argmax() == 20
    assert "warmup(10%" in repr(schedule)
    assert "end=0.1" in repr(schedule)


def _two_groups():
    a, b = (torch.nn.Parameter(torch.ones(2)) for _ in "ab")
    return torch.optim.SGD([{"params": [a], "lr": 0.5}, {"params": [b], "lr": 0.1}], momentum=0.9)


def test_bind_keeps_every_groups_own_peak():
    optimizer = _two_groups()
    scheduler = (warmup(4) >> cosine(16)).bind(optimizer)
    assert isinstance(scheduler, torch.optim.lr_scheduler.LRScheduler)
    assert scheduler.get_last_lr() == [0.0, 0.0], "the very first step is in the warmup already"
    for _ in range(4):
        scheduler.step()
    assert scheduler.get_last_lr() == [0.5, 0.1]
    assert scheduler.base_lrs == [0.5, 0.1]
    assert scheduler.get_lr() == [0.5, 0.1]


def test_a_group_added_later_is_scheduled():
    optimizer = _two_groups()
    scheduler = linear(10).bind(optimizer)
    for _ in range(5):
        scheduler.step()
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))], "lr": 1.0})
    seen = []
    optimizer.register_step_pre_hook(lambda owner, *_: seen.append(owner.param_groups[2]["lr"]))
    optimizer.step()
    assert seen == [0.5], "its very first step is scheduled, too"
    scheduler.step()
    assert scheduler.get_last_lr() == pytest.approx([0.2, 0.04, 0.4])
    del scheduler  # the optimizer goes on without
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))], "lr": 1.0})
    optimizer.step()
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.2, 0.04, 0.4, 1.0])


@given(st.integers(0, 60))
def test_resume_gives_the_rate_of_its_step(k):
    """Optimizer loaded first, scheduler built and loaded after it: torch's SequentialLR fails."""
    optimizer = _two_groups()
    scheduler = (warmup(10) >> cosine(50)).bind(optimizer)
    for _ in range(k):
        scheduler.step()
    again = _two_groups()
    again.load_state_dict(optimizer.state_dict())
    resumed = (warmup(10) >> cosine(50)).bind(again)
    resumed.load_state_dict(scheduler.state_dict())
    assert resumed.get_last_lr() == scheduler.get_last_lr()
    assert [g["lr"] for g in again.param_groups] == scheduler.get_last_lr()


def test_bind_any_hyperparameter():
    optimizer = _two_groups()
    scheduler = linear(10, end=0.5).bind(optimizer, hyper="momentum")
    for _ in range(10):
        scheduler.step()
    assert [g["momentum"] for g in optimizer.param_groups] == pytest.approx([0.45, 0.45])
    assert [g["lr"] for g in optimizer.param_groups] == [0.5, 0.1]
    with pytest.raises(ValueError, match="no group has 'beta'"):
        linear(10).bind(optimizer, hyper="beta")
    adam = torch.optim.Adam([torch.nn.Parameter(torch.ones(1))], betas=(0.8, 0.99))
    both = [linear(10, end=e).bind(adam, hyper=h) for h, e in (("beta1", 0.5), ("beta2", 0.9))]
    for scheduler in both:
        scheduler.step(10)
    assert adam.param_groups[0]["betas"] == pytest.approx((0.4, 0.891))
    assert [s.base_lrs for s in both] == [[0.8], [0.99]]
    ours = AdamW([torch.nn.Parameter(torch.ones(1))], lr=0.1, weight_decay=0.2)
    linear(10).bind(ours, hyper="weight_decay").step()
    copied = {**ours.param_groups[0], "params": [torch.nn.Parameter(torch.ones(1))]}
    ours.add_param_group(copied)
    assert [g["weight_decay"] for g in ours.param_groups] == pytest.approx([0.18, 0.18])
    assert [g["initial_weight_decay"] for g in ours.param_groups] == [0.2, 0.2]
    for hyper, got in (("betas", "0.4"), ("weight_decay", "None")):
        adam.param_groups[0]["weight_decay"] = None
        with pytest.raises(ValueError, match=f"base value of {hyper}, which is .*{got}"):
            linear(10).bind(adam, hyper=hyper)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_rates_that_are_tensors_stay_the_same_tensors():
    """A new object would make torch compile a compiled step anew (composition error 7)."""
    w = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.Adam([w], lr=torch.tensor(0.5))
    rate = optimizer.param_groups[0]["lr"]
    scheduler = linear(4).bind(optimizer)
    step = torch.compile(optimizer.step, backend="eager")
    for done in range(4):
        w.grad = torch.ones(1)
        with torch.compiler.set_stance("fail_on_recompile" if done > 1 else "default"):
            step()
        scheduler.step()
        assert optimizer.param_groups[0]["lr"] is rate
        assert rate.item() == pytest.approx(0.5 * (1 - (done + 1) / 4))
    assert scheduler.get_last_lr() == [0.0]


def test_plot_draws_what_values_says(tmp_path):
    whole = warmup("10%") >> cosine()
    (panel,) = whole.plot(100).panels
    assert list(panel.curves[0].y) == pytest.approx(whole.values(100), abs=1e-3)
    assert warmup("1ep").plot(40, 10, tmp_path / "rate.svg").exists()


def test_bound_state_of_something_else_is_refused():
    scheduler = linear(10).bind(_two_groups())
    with pytest.raises(ValueError, match="last_epoch"):
        scheduler.load_state_dict({"last_epoch": 3, "T_max": 4})


def test_bound_step_can_jump():
    scheduler = linear(10).bind(_two_groups())
    scheduler.step(5)
    assert scheduler.get_last_lr() == pytest.approx([0.25, 0.05])
