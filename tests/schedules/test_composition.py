"""Schedules put together, bound to optimizers, and the composition errors 1 to 6 by name."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from brickyard import optim
from brickyard import schedules as S


def optimizer(kind=torch.optim.SGD, **options):
    return kind([torch.nn.Parameter(torch.ones(1))], **{"lr": 0.3, **options})


@given(step=st.integers(0, 60), factor=st.floats(0, 3))
def test_products_scales_and_clamps(step, factor):
    a, b = S.warmup(10) >> S.cosine(40), S.step(7, 0.5)
    assert (a * b)(step) == pytest.approx(a(step) * b(step))
    assert (factor * a)(step) == (a * factor)(step) == a.scaled(factor)(step)
    assert a.scaled(factor)(step) == factor * a(step)
    assert a.clamped(0.2, 0.7)(step) == min(max(a(step), 0.2), 0.7)
    whole = a.scaled(0.5) >> b
    assert whole(step) == (0.5 * a(step) if step < 50 else b(step - 50))


def test_lengths_inside_curves_are_resolved():
    schedule = S.multistep(["50%", "75%"], 0.1) * S.step("2ep", 0.5)
    ready = schedule.resolve(total=100, epoch=10)
    assert [ready(t) for t in (0, 20, 50, 80)] == pytest.approx([1, 0.5, 0.25 * 0.1, 0.5**4 * 0.01])
    with pytest.raises(ValueError, match="total steps"):
        schedule(3)
    with pytest.raises(ValueError, match="ascend"):
        S.multistep(["50%", 10]).resolve(total=100)(3)


def test_restarts_of_a_chain_count_from_the_run():
    schedule = S.warmup(5) >> S.cosine_restarts(10, 2)
    assert schedule.restarts(100) == [15, 35, 75]
    assert S.cyclic(0.1, 1, 3).restarts(20) == [6, 12, 18]
    assert S.cosine(10).restarts(100) == []


def test_only_one_piece_takes_the_rest():
    with pytest.raises(ValueError, match="only one piece"):
        S.constant(steps="rest") >> S.cosine()
    ready = (S.constant(steps="rest") >> S.linear(20)).resolve(total=100)
    assert (ready(79), ready(90)) == (1, 0.5)
    with pytest.raises(ValueError, match="nothing is left"):
        (S.constant(steps="rest") >> S.linear(20)).resolve(total=20)


@pytest.mark.parametrize(
    "make",
    [
        lambda: S.step(5, 0), lambda: S.multistep([]), lambda: S.multistep([5, 3]),
        lambda: S.multistep("50%"), lambda: S.exponential(1.5), lambda: S.exponential(0),
        lambda: S.natural_exponential(-1), lambda: S.inverse_time(-1), lambda: S.inverse_sqrt(0),
        lambda: S.inverse_sqrt("rest"), lambda: S.polynomial(5, 0), lambda: S.polynomial(5, end=-1),
        lambda: S.cosine_restarts(5, 0.5), lambda: S.cyclic(1, 0.5, 3),
        lambda: S.cyclic(0, 1, 3, mode="square"), lambda: S.cyclic(0, 1, 3, gamma=2),
        lambda: S.one_cycle(9, peak=0), lambda: S.one_cycle(9, start_factor=0.5),
        lambda: S.one_cycle(9, momentum=(0.8, 0.9)), lambda: S.one_cycle(9, up=1),
        lambda: S.one_cycle(9, shape="square"), lambda: S.wsd(shape="square"),
        lambda: S.wsd(end=-1),
        lambda: S.reduce_on_plateau(1.0), lambda: S.reduce_on_plateau(patience=-1),
        lambda: S.reduce_on_plateau(threshold=-1), lambda: S.reduce_on_plateau(mode="low"),
        lambda: S.reduce_on_plateau(threshold_mode="x"), lambda: S.reduce_on_plateau(end=2),
        lambda: S.cosine(5).scaled(-1), lambda: S.cosine(5).clamped(1, 0.5),
        lambda: S.cosine("2ep") * S.linear("50%"),
        lambda: S.reduce_on_plateau() * S.reduce_on_plateau(),
    ],
)  # fmt: skip
def test_wrong_options_name_what_they_got(make):
    with pytest.raises(ValueError, match="got"):
        make()


@pytest.mark.parametrize(
    ("kind", "read"),
    [
        (lambda: optimizer(momentum=0.9), lambda group: group["momentum"]),
        (lambda: optimizer(torch.optim.AdamW), lambda group: group["betas"][0]),
        (lambda: optimizer(optim.AdamW), lambda group: group["betas"][0]),
        (lambda: optimizer(optim.SGD, momentum=0.9), lambda group: group["momentum"]),
    ],
)
def test_one_cycle_moves_momentum_and_takes_its_peak_as_a_rate(kind, read):
    bound = kind()
    scheduler = S.one_cycle(100, peak=0.5).bind(bound)
    group = bound.param_groups[0]
    seen = []
    for _ in range(101):
        seen.append((group["lr"], read(group)))
        scheduler.step()
    assert seen[0] == pytest.approx((0.02, 0.95))
    assert seen[30] == pytest.approx((0.5, 0.85))
    assert seen[100] == pytest.approx((2e-6, 0.95))


def test_a_momentum_that_is_not_there_is_an_error():
    with pytest.raises(ValueError, match="momentum=None"):
        S.one_cycle(100).bind(torch.optim.Adagrad([torch.nn.Parameter(torch.ones(1))]))
    S.one_cycle(100, momentum=None).bind(torch.optim.Adagrad([torch.nn.Parameter(torch.ones(1))]))
    with pytest.raises(ValueError, match="momentum=None"):
        (S.warmup(5) >> S.one_cycle(100)).bind(optimizer(momentum=0.9))


def test_01_warmup_then_plateau_composes():
    """torch's SequentialLR refuses; here the plateau starts to count after the warmup."""
    theirs = optimizer()
    with pytest.raises(Exception, match=r"."):
        lr_scheduler.SequentialLR(
            theirs, [lr_scheduler.LinearLR(theirs), lr_scheduler.ReduceLROnPlateau(theirs)], [5]
        )
    ours = optimizer()
    scheduler = (S.warmup(4) >> S.reduce_on_plateau(0.5, patience=0)).bind(ours)
    lrs = []
    for _ in range(8):
        lrs.append(ours.param_groups[0]["lr"])
        scheduler.step()
        scheduler.report(1.0)
    assert lrs == pytest.approx([0, 0.075, 0.15, 0.225, 0.15, 0.075, 0.0375, 0.01875])
    with pytest.raises(ValueError, match="waits for a metric"):
        S.cosine(5).bind(optimizer()).report(1.0)


def test_02_resume_has_the_rate_of_its_step():
    """torch: a chain built and loaded behind a loaded optimizer goes on at another rate."""
    schedule = S.warmup(5) >> S.cosine(50)
    first = optimizer(momentum=0.9)
    scheduler = schedule.bind(first)
    for _ in range(12):
        scheduler.step()
    second = optimizer(momentum=0.9)
    second.load_state_dict(first.state_dict())
    again = schedule.bind(second)
    again.load_state_dict(scheduler.state_dict())
    for _ in range(20):
        assert second.param_groups[0]["lr"] == first.param_groups[0]["lr"]
        scheduler.step()
        again.step()


def test_03_the_first_step_is_warm_and_the_cosine_stays_down():
    bound = optimizer()
    scheduler = (S.warmup(10) >> S.cosine(20)).bind(bound)
    assert bound.param_groups[0]["lr"] == 0
    for _ in range(45):
        scheduler.step()
    assert bound.param_groups[0]["lr"] == 0


def test_04_lengths_count_optimizer_steps():
    """The factor depends on steps taken alone: nothing else is asked for or known."""
    schedule = S.warmup("10%") >> S.cosine()
    for accumulation in (1, 4):
        bound = optimizer()
        scheduler = schedule.bind(bound, total=100)
        for micro in range(40 * accumulation):
            if micro % accumulation == accumulation - 1:
                scheduler.step()
        assert bound.param_groups[0]["lr"] == pytest.approx(0.3 * schedule.resolve(100)(40))


def test_05_a_group_added_later_is_scheduled_from_its_own_base():
    theirs = optimizer()
    other = lr_scheduler.LambdaLR(theirs, lambda step: 1.0)
    theirs.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))], "lr": 0.1})
    theirs.step()
    with pytest.raises((ValueError, KeyError, IndexError)):
        other.step()
    ours = optimizer()
    scheduler = S.linear(10).bind(ours)
    scheduler.step()
    ours.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))], "lr": 0.1})
    scheduler.step()
    assert [g["lr"] for g in ours.param_groups] == pytest.approx([0.3 * 0.8, 0.1 * 0.8])


def test_06_units_are_part_of_the_length():
    """A schedule in epochs bound without their length is an error, not another schedule."""
    with pytest.raises(ValueError, match="steps per epoch"):
        S.step("1ep").bind(optimizer())
    bound = optimizer()
    scheduler = S.step("1ep", 0.1).bind(bound, epoch=7)
    for _ in range(7):
        assert bound.param_groups[0]["lr"] == 0.3
        scheduler.step()
    assert bound.param_groups[0]["lr"] == pytest.approx(0.03)


def test_states_of_other_schedules_are_refused():
    plateau = S.reduce_on_plateau().bind(optimizer())
    with pytest.raises(ValueError, match="another schedule"):
        S.cosine(5).bind(optimizer()).load_state_dict(plateau.state_dict())
    with pytest.raises(ValueError, match="another schedule"):
        plateau.load_state_dict({"step": 3})
