"""Stochastic layers: what is dropped together, how often, and with what mean."""

import pytest
import torch
from torch import nn

from brickyard.nn import DropConnect, DropPath, VariationalDropout, weight_norm
from brickyard.nn.functional import drop_path, variational_dropout

N = 20_000
#: Each layer, an input of ones, and the axes along which a mask is shared.
CASES = [
    (DropPath, {}, (N, 3, 2), (1, 2)),
    (VariationalDropout, {}, (5, N, 3), (0,)),
    (VariationalDropout, {"batch_first": True}, (N, 5, 3), (1,)),
    (nn.Dropout, {}, (N, 3), ()),
    (nn.Dropout2d, {}, (N, 3, 2, 2), (2, 3)),
]


@pytest.mark.parametrize(("kind", "options", "shape", "shared"), CASES)
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_rate_mean_and_granularity(kind, options, shape, shared, p):
    y = kind(p=p, **options).train()(torch.ones(shape))
    kept = y != 0
    assert torch.allclose(y[kept], torch.tensor(1 / (1 - p)), rtol=1e-6)
    one = kept
    for axis in shared:
        one = one.narrow(axis, 0, 1)
    assert torch.equal(one.expand(shape), kept), "a mask must be shared along these axes"
    draws = one.numel()
    error = 4 * (p * (1 - p) / draws) ** 0.5  # four standard deviations
    assert abs(one.float().mean().item() - (1 - p)) < error
    flat = one.movedim(0 if shape[0] == N else 1, 0).reshape(N, -1).float()
    if flat.shape[1] > 1:  # what is not shared is drawn by itself
        both = (flat[:, 0] * flat[:, 1]).mean().item()
        assert abs(both - (1 - p) ** 2) < 4 * (1 / N) ** 0.5


@pytest.mark.parametrize(("kind", "options", "shape", "shared"), CASES)
def test_ends_of_the_range_and_evaluation(kind, options, shape, shared):
    x = torch.randn(shape)
    assert torch.equal(kind(p=0.0, **options).train()(x), x)
    assert not bool(kind(p=1.0, **options).train()(x).any())
    assert kind(p=0.7, **options).eval()(x) is x or torch.equal(kind(p=0.7, **options).eval()(x), x)


def test_functions_do_nothing_out_of_training():
    x = torch.randn(3, 4, 5)
    assert drop_path(x, 0.5, training=False) is x
    assert variational_dropout(x, 0.5, training=False) is x


@pytest.mark.parametrize("layer", [nn.Linear(6, 5), nn.Conv2d(3, 4, 2, padding=1, groups=1)])
def test_drop_connect_drops_weights_and_keeps_the_mean(layer):
    x = torch.randn(1, 3, 4, 6)
    noisy = DropConnect(layer, p=0.4)
    clean = layer(x)
    with torch.no_grad():
        draws = torch.stack([noisy(x) for _ in range(2000)])
    spread = draws.std(0) / 2000**0.5
    assert bool(((draws.mean(0) - clean).abs() < 5 * spread + 1e-6).all())
    assert torch.equal(noisy.eval()(x), clean)
    assert torch.equal(DropConnect(layer, p=0.0)(x), clean)
    silent = DropConnect(layer, p=1.0)(x)
    bias = layer.bias.view(-1, 1, 1) if isinstance(layer, nn.Conv2d) else layer.bias
    assert torch.allclose(silent, bias.expand_as(silent))


def test_drop_connect_shares_one_mask_in_the_batch_and_draws_each_weight():
    layer = DropConnect(nn.Linear(400, 300, bias=False), p=0.25)
    nn.init.ones_(layer.linear.weight)
    y = layer(torch.eye(400).repeat(2, 1))  # row i shows column i of the weight, twice
    assert torch.equal(y[:400], y[400:])
    assert y.unique().tolist() == [0.0, pytest.approx(4 / 3)]
    assert (y == 0).float().mean().item() == pytest.approx(0.25, abs=0.006)
    y.sum().backward()
    dropped = y[:400].T == 0
    assert not bool(layer.linear.weight.grad[dropped].any())


def test_drop_connect_keeps_the_layer_s_names_and_options():
    layer = DropConnect(
        nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=2, padding_mode="reflect"), 0.5
    )
    assert list(layer.state_dict()) == ["linear.weight", "linear.bias"]
    assert layer(torch.randn(1, 4, 8, 8)).shape == (1, 4, 4, 4)
    normed = DropConnect(weight_norm(nn.Linear(3, 3)), 0.5)
    normed(torch.ones(1, 3)).sum().backward()


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda: DropConnect(nn.ReLU()), TypeError, "nn.Linear, or of a convolution .* got ReLU"),
    (lambda: DropConnect(weight_norm(nn.Conv1d(1, 1, 1))), TypeError, "weight is a parameter"),
    (lambda: DropConnect(nn.Linear(1, 1), 1.5), ValueError, "from 0 to 1, got 1.5"),
    (lambda: DropPath(-0.1), ValueError, "DropPath: p must be a probability"),
    (lambda: VariationalDropout(2), ValueError, "VariationalDropout: p must be a probability"),
    (lambda: VariationalDropout()(torch.ones(2, 3)), ValueError, r"\(T, N, \*\).*got \(2, 3\)"),
    (lambda: drop_path(torch.ones(2), 7), ValueError, "from 0 to 1, got 7"),
])  # fmt: skip
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()
