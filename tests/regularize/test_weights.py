"""Penalties, max-norm and decay: formulas in float64, what they act on, hooks and chains."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from brickyard import optim
from brickyard.nn import FRN
from brickyard.optim import Adam
from brickyard.regularize import (
    ElasticNet,
    L1Penalty,
    L2Penalty,
    MaxNorm,
    WeightDecay,
    elastic_net,
    l1_penalty,
    l2_penalty,
    max_norm_,
)


def _net(dtype=torch.float64):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv1d(2, 3, 3), nn.BatchNorm1d(3), nn.Flatten(), nn.Linear(6, 4), nn.LayerNorm((2, 2)),
    ).to(dtype)  # fmt: skip


def _weights(model, *names):
    return np.concatenate([dict(model.named_parameters())[n].detach().numpy().ravel()
                           for n in names])  # fmt: skip


BOTH = ("0.weight", "3.weight")


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.floats(0, 10), st.floats(0, 1))
def test_elastic_net_is_its_formula_and_its_gradient(weight, ratio):
    model = _net()
    w = _weights(model, *BOTH)
    penalty = elastic_net(model, weight, ratio)
    wanted = weight * (ratio * np.abs(w).sum() + (1 - ratio) / 2 * (w**2).sum())
    np.testing.assert_allclose(penalty.item(), wanted, rtol=1e-12, atol=1e-300)
    penalty.backward()
    got = np.concatenate([model[i].weight.grad.numpy().ravel() for i in (0, 3)])
    np.testing.assert_allclose(got, weight * (ratio * np.sign(w) + (1 - ratio) * w), rtol=1e-12,
                               atol=1e-300)  # fmt: skip
    assert model[0].bias.grad is None
    assert model[1].weight.grad is None


def test_single_penalties_are_the_ends_of_the_mix():
    model = _net()
    assert l1_penalty(model, 0.3) == elastic_net(model, 0.3, 1.0) == L1Penalty(0.3)(model)
    assert l2_penalty(model, 0.3) == elastic_net(model, 0.3, 0.0) == L2Penalty(0.3)(model)
    assert ElasticNet(0.3, 0.25).penalty(model) == elastic_net(model, 0.3, 0.25)


@pytest.mark.parametrize("ratio", [0.0, 0.4, 1.0])
def test_penalties_differentiate_twice(ratio):
    a = torch.randn(3, 2, dtype=torch.float64).requires_grad_()
    b = torch.randn(2, 2, 2, dtype=torch.float64).requires_grad_()

    def penalty(a, b):
        return elastic_net({"a": a, "b": b}, 0.7, ratio) ** 2

    assert torch.autograd.gradcheck(penalty, (a, b))
    assert torch.autograd.gradgradcheck(penalty, (a, b))


def test_zero_weights_have_finite_gradients():
    layer = nn.Linear(3, 3)
    nn.init.zeros_(layer.weight)
    elastic_net(layer, 1.0).backward()
    assert torch.equal(layer.weight.grad, torch.zeros(3, 3))


def test_what_is_penalized():
    model = _net()
    everything = [n for n, _ in model.named_parameters()]
    for where, names in (("weights", BOTH), ("all", everything), ("3.*", ["3.weight", "3.bias"]),
                         (["0.bias", "3.bias"], ["0.bias", "3.bias"])):  # fmt: skip
        wanted = np.abs(_weights(model, *names)).sum()
        np.testing.assert_allclose(l1_penalty(model, 1.0, where).item(), wanted, rtol=1e-12)
    assert l1_penalty(model.named_parameters(), 1.0, "3.*") == l1_penalty(model, 1.0, "3.*")
    assert l1_penalty({"a": model[3].weight}, 1.0) == l1_penalty(model[3], 1.0)
    model[3].weight.requires_grad_(False)
    assert l1_penalty(model, 1.0) == l1_penalty(model[0], 1.0), "frozen weights are left out"
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    assert l1_penalty(tied, 1.0) == l1_penalty(tied[0], 1.0)
    marked = nn.Sequential(nn.Linear(3, 3), FRN(3))
    assert l1_penalty(marked, 1.0) == l1_penalty(marked[0], 1.0)
    marked[0].weight.no_decay = True
    with pytest.raises(ValueError, match="no matrix or filter"):
        l1_penalty(marked, 1.0)


def test_half_precision_is_summed_in_fp32():
    layer = nn.Linear(300, 300).bfloat16()
    nn.init.ones_(layer.weight)
    for penalty in (l1_penalty(layer, 1.0), 2 * l2_penalty(layer, 1.0)):
        assert penalty.dtype == torch.float32
        assert penalty.item() == pytest.approx(90_000, rel=1e-4)
    mixed = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double())
    assert l1_penalty(mixed, 1.0).item() == pytest.approx(
        sum(m.weight.abs().sum().item() for m in mixed)
    )


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [(lambda m: l1_penalty(m, -1.0), ValueError, "l1_penalty: weight must be"),
     (lambda m: L2Penalty(float("nan")), ValueError, "l2_penalty: weight must be"),
     (lambda m: ElasticNet(1.0, 1.5), ValueError, "l1_ratio must be"),
     (lambda m: l1_penalty(m, 1.0, "3.wight"), ValueError, r"'3\.wight' matches no .*3\.weight"),
     (lambda m: l1_penalty(m.parameters(), 1.0), TypeError, "with their names"),
     (lambda m: max_norm_(m[3].weight, 0.0), ValueError, "c must be"),
     (lambda m: max_norm_(m[3].weight, 1.0, dim=2), IndexError, "dim must be"),
     (lambda m: WeightDecay(-1), ValueError, "rate must be"),
     (lambda m: WeightDecay(1.0, "independent"), ValueError, "below 1"),
     (lambda m: WeightDecay(0.1, "coupled"), ValueError, "coupled decay is l2_penalty")],
)  # fmt: skip
def test_what_is_refused(call, error, says):
    with pytest.raises(error, match=says):
        call(_net())


def test_l2_penalty_is_what_weight_decay_is_to_sgd():
    runs = []
    for decay, penalty in ((0.1, 0.0), (0.0, 0.1)):
        model = _net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, weight_decay=decay)
        for _ in range(3):
            optimizer.zero_grad()
            (model[3](torch.ones(5, 6, dtype=torch.float64)).square().mean()
             + l2_penalty(model, penalty, "all")).backward()  # fmt: skip
            optimizer.step()
        runs.append(model[3].weight.detach())
    torch.testing.assert_close(*runs, rtol=1e-12, atol=1e-12)


def test_effect_tells_how_many_weights_are_near_zero():
    layer = nn.Linear(4, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, -0.5, 1e-4, 0.0]]))
    told = L1Penalty(0.1).effect(layer)
    assert told["near_zero"] == 0.5
    assert told["weights"] == 4
    assert told["penalty"] == pytest.approx(0.15001)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(0, 3), st.floats(0.1, 3), st.integers(0, 1000))
def test_max_norm_is_its_formula(dim, c, seed):
    w = torch.randn(3, 4, 2, 5, dtype=torch.float64,
                    generator=torch.Generator().manual_seed(seed))  # fmt: skip
    w.select(dim, 0).zero_()
    others = tuple(d for d in range(4) if d != dim)
    norms = np.sqrt((w.numpy() ** 2).sum(axis=others, keepdims=True))
    wanted = w.numpy() * np.minimum(1, c / np.maximum(norms, 1e-300))
    max_norm_(w, c, dim)
    np.testing.assert_allclose(w.numpy(), wanted, rtol=1e-12)


def test_max_norm_of_vectors_numbers_and_lists():
    v, scalar, small = torch.tensor([3.0, 4.0]), torch.tensor(-5.0), torch.ones(2, 2)
    max_norm_([v, scalar, small], 2.0)
    torch.testing.assert_close(v, torch.tensor([1.2, 1.6]))
    assert scalar == -2
    assert torch.equal(small, torch.ones(2, 2)), "below the bound nothing changes"


def test_max_norm_as_function_hook_and_chain_are_the_same():
    runs = []
    for kind in ("function", "hook", "chain"):
        model = _net()
        pieces = [optim.scale_by_momentum()]
        if kind == "chain":
            pieces.append(optim.max_norm(0.8, where="[03].weight"))
        optimizer = optim.Optimizer(model, optim.chain(*pieces), lr=0.03)
        bound = MaxNorm(0.8)
        if kind == "hook":
            bound.attach(optimizer, model)
        for step in range(4):
            optimizer.zero_grad()
            x = torch.randn(5, 2, 4, generator=torch.Generator().manual_seed(step)).double()
            model[:4](x).square().sum().backward()
            optimizer.step()
            if kind == "function":
                bound.after_step(model)
        assert model[0].weight.flatten(1).norm(dim=1).max() <= 0.8 + 1e-6
        runs.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.testing.assert_close(runs[0], runs[1], rtol=0, atol=0)
    torch.testing.assert_close(runs[0], runs[2], rtol=1e-9, atol=1e-9)


def test_units_of_transposed_convolutions():
    layer = nn.ConvTranspose2d(3, 5, 2)
    with torch.no_grad():
        layer.weight.mul_(50)
    MaxNorm(1.0).after_step(layer)
    torch.testing.assert_close(layer.weight.transpose(0, 1).flatten(1).norm(dim=1), torch.ones(5))
    with pytest.raises(ValueError, match="grouped transposed"):
        MaxNorm(1.0).after_step(nn.ConvTranspose2d(4, 4, 2, groups=2))
    linear = nn.Linear(3, 5)
    with torch.no_grad():
        linear.weight.mul_(50)
    MaxNorm(1.0, dim=1).after_step(linear)
    torch.testing.assert_close(linear.weight.norm(dim=0), torch.ones(3))
    told = MaxNorm(1.0, dim=1).effect(linear, bins=4)
    assert told["at_bound"] == 1.0
    assert told["histogram"] == [0, 0, 0, 3]
    untouched = nn.Linear(3, 5)
    before = untouched.weight.clone()
    MaxNorm(1e-3, where="bias").after_step(untouched)
    assert torch.equal(untouched.weight, before)
    assert untouched.bias.norm() <= 1e-3 + 1e-9


@pytest.mark.parametrize("convention", ["times_lr", "independent"])
def test_decay_is_its_formula_beside_the_step(convention):
    model = nn.Linear(3, 2).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    WeightDecay(0.1, convention).attach(optimizer, model)
    model(torch.ones(1, 3, dtype=torch.float64)).sum().backward()
    share = 0.1 * (0.5 if convention == "times_lr" else 1.0)
    weight = model.weight * (1 - share) - 0.5 * model.weight.grad
    bias = model.bias - 0.5 * model.bias.grad
    optimizer.step()
    torch.testing.assert_close(model.weight, weight, rtol=1e-14, atol=0)
    torch.testing.assert_close(model.bias, bias, rtol=1e-14, atol=0)


def test_decay_times_lr_is_that_of_adamw():
    runs = []
    for own in (True, False):
        model = nn.Linear(3, 2).double()
        nn.init.ones_(model.weight)
        nn.init.ones_(model.bias)
        if own:
            optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
            WeightDecay(0.2, where="all").attach(optimizer, model)
        else:
            optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.2)
        for step in range(4):
            optimizer.param_groups[0]["lr"] = 0.1 / (step + 1)
            optimizer.zero_grad()
            model(torch.ones(1, 3, dtype=torch.float64)).square().sum().backward()
            optimizer.step()
        runs.append(model.weight.detach())
    torch.testing.assert_close(*runs, rtol=1e-12, atol=0)


def test_decay_twice_is_refused_and_frozen_weights_stay():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"AdamW decays already \(weight_decay=0\.01\)"):
        WeightDecay(0.1).attach(torch.optim.AdamW(model.parameters()), model)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    handle = WeightDecay(0.5).attach(optimizer, model)
    model[0](torch.ones(1, 2)).sum().backward()
    before = [m.weight.clone() for m in model]
    optimizer.step()
    assert not torch.equal(model[0].weight, before[0])
    assert torch.equal(model[1].weight, before[1]), "no gradient, no step, no decay"
    handle.remove()
    model[0].weight.grad.zero_()
    before = model[0].weight.clone()
    optimizer.step()
    assert torch.equal(model[0].weight, before)


def test_a_step_that_a_scaler_leaves_out_decays_nothing():
    """Optimizers that take the scale themselves are called all the same, and so are their hooks."""
    model = nn.Linear(3, 2)
    optimizer = Adam(model, lr=0.1)
    WeightDecay(0.5, "independent").attach(optimizer, model)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for broken in (True, False):
        before = model.weight.clone()
        scaler.scale(model(torch.ones(1, 3)).sum()).backward()
        if broken:
            model.weight.grad[0, 0] = torch.inf
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        assert torch.equal(model.weight, before) == broken
