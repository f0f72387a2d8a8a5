"""Designs that look like bugs: steps that an optimizer skips itself, attacks, weights in half."""

import torch
from doctor_loops import data, mlp
from torch import nn
from torch.nn import functional as F

from brickyard.doctor import watch
from brickyard.optim import AdamW


def loud(doctor):
    return [f.check for f in doctor.report().findings if f.severity != "info"]


def steps(model, optimizer, loss, count=8, before=lambda i: None):
    x, y = data()
    for i in range(count):
        rows = slice(i * 32, i * 32 + 32)
        optimizer.zero_grad()
        loss(model, x[rows], y[rows]).backward()
        before(i)
        optimizer.step()


def plain(model, x, y):
    return F.cross_entropy(model(x), y)


def test_overflow_that_the_optimizer_is_told_to_skip():
    model = mlp()
    optimizer = AdamW(model.parameters(), lr=1e-3)

    def overflow(i):
        bad = i < 2
        if bad:
            for p in model.parameters():
                p.grad.fill_(float("inf"))
        optimizer.found_inf = torch.tensor(float(bad))

    with watch() as doctor:
        steps(model, optimizer, plain, before=overflow)
    assert "nonfinite" not in loud(doctor)
    with watch() as doctor:
        steps(mlp(), torch.optim.SGD(model.parameters(), 0.1), plain)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        steps(model, optimizer, plain, before=lambda i: model[0].weight.grad.fill_(float("inf")))
    assert "nonfinite" in loud(doctor)


def attacked(model, x, y):
    """Make samples harder in evaluation mode, and train on them."""
    model.eval()
    x = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(F.cross_entropy(model(x), y), x)
    model.train()
    return F.cross_entropy(model((x + 0.1 * grad.sign()).detach()), y)


def forgotten(model, x, y):
    model.eval()
    return F.cross_entropy(model(x), y)


def test_evaluation_mode_beside_a_call_in_training_mode():
    for loss, expected in ((attacked, False), (forgotten, True)):
        model = mlp(8, 16, 4, nn.BatchNorm1d(16), nn.Dropout(0.3))
        optimizer = torch.optim.SGD(model.parameters(), 0.05)
        with watch() as doctor:
            steps(model, optimizer, plain, 4)
            steps(model, optimizer, loss, 4)
        assert ("mode-wrong" in loud(doctor)) == expected, loss


def test_epsilon_in_half_precision():
    for kind, expected in ((torch.optim.AdamW, True), (AdamW, False)):
        model = mlp().half()
        optimizer = kind(model.parameters(), lr=1e-3)
        with watch() as doctor:
            steps(model, optimizer, lambda m, x, y: F.cross_entropy(m(x.half()).float(), y), 4)
        assert ("adam-eps-dtype" in loud(doctor)) == expected, kind
