"""Attacks: formulas in float64, the ball, and that nothing but the inputs is touched."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from brickyard.regularize import (
    FGSM,
    PGD,
    RobustAccuracy,
    adversarial_loss,
    fgsm,
    pgd,
    robust_accuracy,
)


def _net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3)
    ).double()


def _batch(n=6):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(n, 5, dtype=torch.float64, generator=generator), torch.arange(n) % 3


def _gradient(weight, bias, x, y):
    """Return the gradient of each sample's cross-entropy under a linear model, in NumPy."""
    z = x @ weight.T + bias
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    p[np.arange(len(y)), y] -= 1
    return p @ weight


@pytest.mark.parametrize("norm", ["inf", "2"])
@pytest.mark.parametrize("clip", [None, (0.2, 0.8)])
def test_fgsm_and_pgd_are_their_formulas(norm, clip):
    model = nn.Linear(5, 3).double()
    x, y = _batch()
    w, b = model.weight.detach().numpy(), model.bias.detach().numpy()
    clean, labels = x.numpy(), y.numpy()

    def direction(g):
        return np.sign(g) if norm == "inf" else g / np.linalg.norm(g, axis=1, keepdims=True)

    def bounded(v):
        return v if clip is None else np.clip(v, *clip)

    one = bounded(clean + 0.3 * direction(_gradient(w, b, clean, labels)))
    np.testing.assert_allclose(fgsm(model, x, y, 0.3, norm=norm, clip=clip), one, rtol=1e-12)
    moved = clean
    for _ in range(4):
        gap = moved + 0.2 * direction(_gradient(w, b, moved, labels)) - clean
        if norm == "inf":
            gap = np.clip(gap, -0.3, 0.3)
        else:
            gap *= np.minimum(1, 0.3 / np.linalg.norm(gap, axis=1, keepdims=True))
        moved = bounded(clean + gap)
    found = pgd(model, x, y, 0.3, 4, step_size=0.2, norm=norm, clip=clip, restarts=0)
    np.testing.assert_allclose(found, moved, rtol=1e-12)


@given(st.floats(0, 2), st.integers(1, 5), st.sampled_from(["inf", "2"]), st.booleans(),
       st.integers(0, 3))  # fmt: skip
def test_pgd_stays_in_its_ball_and_range(eps, steps, norm, clip, restarts):
    model = _net().eval()
    x, y = _batch()
    found = PGD(eps, steps, norm=norm, restarts=restarts, clip=(0.1, 0.9) if clip else None)(
        model, x.clamp(0.1, 0.9), y
    )
    gap = (found - x.clamp(0.1, 0.9)).flatten(1)
    reach = gap.abs().max() if norm == "inf" else gap.norm(dim=1).max()
    assert reach <= eps * (1 + 1e-9) + 1e-12
    if clip:
        assert found.min() >= 0.1
        assert found.max() <= 0.9
    assert not found.requires_grad


def _outer(kind):
    return {"grad": torch.enable_grad, "no_grad": torch.no_grad,
            "inference": torch.inference_mode}[kind]()  # fmt: skip


@pytest.mark.parametrize("outer", ["grad", "no_grad", "inference"])
@pytest.mark.parametrize("attack", [FGSM(0.1), PGD(0.1, restarts=0), PGD(0.1, restarts=2)])
def test_nothing_else_is_touched(attack, outer):
    model = _net()
    model[3].eval()
    for p in model.parameters():
        p.grad = torch.full_like(p, 7.0)
    model[0].bias.grad = None
    model[4].weight.requires_grad_(False)
    state = {n: t.clone() for n, t in model.state_dict().items()}
    rng = torch.get_rng_state()
    with _outer(outer):
        x, y = _batch()
        kept = x.clone()
        found = attack(model, x, y, generator=torch.Generator().manual_seed(3))
        assert torch.is_grad_enabled() == (outer == "grad")
        assert torch.equal(x, kept)
        assert not torch.equal(found, x)
    assert [m.training for m in model] == [True, True, True, False, True]
    assert all(torch.equal(t, state[n]) for n, t in model.state_dict().items()), "batch norm too"
    assert model[0].bias.grad is None
    assert all((p.grad == 7).all() for n, p in model.named_parameters() if n != "0.bias")
    assert torch.equal(torch.get_rng_state(), rng)


def test_modes_come_back_after_errors():
    model = _net()
    with pytest.raises(RuntimeError):
        fgsm(model, torch.ones(2, 4, dtype=torch.float64), torch.zeros(2, dtype=torch.long))
    assert all(m.training for m in model.modules())


def test_train_mode_attacks_the_modules_as_they_are():
    model = _net()
    x, y = _batch()
    before = model[1].running_mean.clone()
    FGSM(0.1, train_mode=True)(model, x, y)
    assert not torch.equal(model[1].running_mean, before)


def test_random_starts_are_documented():
    """From the generator given, else from torch's own; none without a random start."""
    model, (x, y) = _net().eval(), _batch()

    def run(seed=None, **options):
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        return pgd(model, x, y, 0.5, 1, step_size=1e-6, generator=generator, **options)

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))
    torch.manual_seed(5)
    first = run()
    assert not torch.equal(run(), first)
    torch.manual_seed(5)
    assert torch.equal(run(), first)
    torch.testing.assert_close(run(restarts=0), x, rtol=0, atol=1e-5)
    big = torch.zeros(4000, 2, dtype=torch.float64)
    flat = nn.Linear(2, 3).double()
    drawn = pgd(flat, big, torch.zeros(4000, dtype=torch.long), 1.0, 1, step_size=1e-9, norm="2",
                generator=torch.Generator().manual_seed(0))  # fmt: skip
    inside = (drawn.norm(dim=1) <= 0.5).double().mean()
    assert abs(inside - 0.25) < 0.03, "uniform in the disc: a quarter within half its radius"


@pytest.mark.parametrize("mean", [False, True])
def test_restarts_keep_each_samples_worst(mean):
    model, (x, y) = _net().eval(), _batch(12)
    loss = lambda z, t: F.cross_entropy(z, t, reduction="mean" if mean else "none")  # noqa: E731

    def each(moved):
        return F.cross_entropy(model(moved), y, reduction="none").detach()

    def run(restarts):
        generator = torch.Generator().manual_seed(0)
        return pgd(model, x, y, 0.8, 1, loss, generator, step_size=0.01, restarts=restarts)

    one, many = each(run(1)), each(run(6))
    assert (many >= one).all()
    assert many.mean() > one.mean() + 1e-3
    singles = []
    generator = torch.Generator().manual_seed(0)
    for _ in range(6):
        singles.append(each(pgd(model, x, y, 0.8, 1, loss, generator, step_size=0.01)))
    torch.testing.assert_close(many, torch.stack(singles).max(0).values)


def test_more_steps_find_more():
    model, (x, y) = _net().eval(), _batch(12)
    losses = [
        F.cross_entropy(model(found), y).item()
        for found in (x, fgsm(model, x, y, 0.3), pgd(model, x, y, 0.3, 20, restarts=4))
    ]
    assert losses == sorted(losses)
    assert losses[0] < losses[2]


def test_adversarial_loss_is_its_mix():
    model, (x, y) = _net().eval(), _batch()
    moved = fgsm(model, x, y, 0.2)
    clean, hard = F.cross_entropy(model(x), y), F.cross_entropy(model(moved), y)
    for share in (0.0, 0.3, 1.0):
        found = adversarial_loss(model, x, y, FGSM(0.2, weight=share))
        torch.testing.assert_close(found, (1 - share) * clean + share * hard)
        torch.testing.assert_close(adversarial_loss(model, x, y, FGSM(0.2), weight=share), found)
    given = adversarial_loss(model, x, y, FGSM(0.2), F.cross_entropy, 0.5, clean=clean * 0)
    torch.testing.assert_close(given, 0.5 * hard)
    found.backward()
    assert model[0].weight.grad is not None
    own = adversarial_loss(model, x, y, lambda m, x, y, loss: x + 0.1)
    torch.testing.assert_close(own, (clean + F.cross_entropy(model(x + 0.1), y)) / 2)


def test_robust_accuracy_counts_what_is_right_twice():
    model = nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[-1.0], [1.0]]))
    x = torch.tensor([[0.05], [0.5], [-0.5], [-0.05]])
    y = torch.tensor([1, 1, 1, 0])
    assert robust_accuracy(model, x, y, PGD(0.1)) == 0.25
    assert robust_accuracy(model, x, y, PGD(0.01)) == 0.75
    assert robust_accuracy(model, x, y, FGSM(0.0)) == 0.75
    # The third is wrong as it is, though a random start may bring it over the line.
    assert robust_accuracy(model, x, y, PGD(5.0, 1, step_size=1e-6)) <= 0.75
    single = nn.Linear(1, 1, bias=False)
    nn.init.ones_(single.weight)
    assert robust_accuracy(single, x, y, PGD(0.1)) == 0.25


def test_the_metric_is_the_same_every_time_and_draws_nothing():
    model, (x, y) = _net(), _batch(40)
    metric = RobustAccuracy(eps=0.4, steps=2, restarts=2)
    rng = torch.get_rng_state()
    values = []
    for _ in range(2):
        metric.reset()
        with torch.inference_mode():
            metric.update_on(model, x[:25], y[:25])
            metric.update_on(model, x[25:], y[25:])
        values.append(metric.compute().item())
    assert values[0] == values[1] < _accuracy_at(model, x, y, 0.0)
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(m.training for m in model.modules())
    with pytest.raises(TypeError, match="update_on"):
        metric.update(x, y)
    metric.reset()
    assert metric.compute().isnan()


def _accuracy_at(model, x, y, eps):
    metric = RobustAccuracy(eps=eps)
    metric.update_on(model, x, y)
    return metric.compute().item()


@pytest.mark.parametrize(
    ("call", "says"),
    [(lambda: FGSM(-1), "eps must be"), (lambda: FGSM(norm="1"), "norm must be"),
     (lambda: FGSM(clip=(1.0, 0.0)), "clip must be"), (lambda: FGSM(weight=2), "weight must be"),
     (lambda: PGD(steps=0), "steps must be"), (lambda: PGD(restarts=-1), "restarts must be"),
     (lambda: PGD(step_size=0), "step_size must be"),
     (lambda: fgsm(_net(), torch.ones(2, 5, dtype=torch.long), torch.ones(2)), "floating point"),
     (lambda: fgsm(_net(), *_batch(), loss=lambda z, y: torch.ones(6, requires_grad=True)),
      "does not depend on the inputs")],
)  # fmt: skip
def test_what_is_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()
