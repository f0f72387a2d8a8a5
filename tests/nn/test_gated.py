"""Maxout and the gated blocks against NumPy, and what they refuse."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from brickyard.nn import GeGLU, Maxout, SwiGLU
from brickyard.nn.functional import maxout
from brickyard.nn.thresholds import TLU, SquaredReLU

PHI = np.vectorize(lambda z: 0.5 * (1 + math.erf(z / math.sqrt(2))))


def x64(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).double()


@pytest.mark.parametrize("pieces", [2, 3, 5])
@pytest.mark.parametrize("bias", [True, False])
def test_maxout_is_the_largest_of_affine_maps(pieces, bias):
    layer, x = Maxout(4, 3, pieces, bias).double(), x64(5, 7, 4)
    w = layer.linear.weight.detach().numpy().reshape(pieces, 3, 4)
    b = layer.linear.bias.detach().numpy().reshape(pieces, 3) if bias else np.zeros((pieces, 3))
    maps = np.einsum("koi,nti->knto", w, x.numpy()) + b[:, None, None]
    np.testing.assert_allclose(layer(x).detach().numpy(), maps.max(0), rtol=1e-12)
    assert layer(x[0, 0]).shape == (3,)


def test_maxout_gives_the_gradient_to_the_winner_alone():
    x = torch.tensor([1.0, 5.0, 1.0, 2.0], requires_grad=True)  # the first unit is a tie
    maxout(x).sum().backward()
    assert x.grad.sum() == 2
    assert x.grad.tolist()[1::2] == [1, 0]


@pytest.mark.parametrize(("kind", "curve"), [
    (SwiGLU, lambda z: z / (1 + np.exp(-z))), (GeGLU, lambda z: z * PHI(z)),
])  # fmt: skip
@pytest.mark.parametrize("bias", [True, False])
def test_gated_blocks_are_the_paper_s(kind, curve, bias):
    layer, x = kind(4, hidden=6, bias=bias).double(), x64(5, 4)
    assert (layer.w_in.bias is not None, layer.w_out.bias is not None) == (bias, bias)
    w, out = layer.w_in.weight.detach().numpy(), layer.w_out.weight.detach().numpy()
    b = layer.w_in.bias.detach().numpy() if bias else np.zeros(12)
    c = layer.w_out.bias.detach().numpy() if bias else np.zeros(4)
    gate, value = x.numpy() @ w[:6].T + b[:6], x.numpy() @ w[6:].T + b[6:]
    expected = (curve(gate) * value) @ out.T + c
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("dim", "hidden"), [(3, 8), (4, 16), (12, 32), (768, 2048)])
def test_hidden_is_eight_thirds_in_steps_of_eight(dim, hidden):
    assert SwiGLU(dim, device="meta").hidden == GeGLU(dim, device="meta").hidden == hidden


def test_tlu_learns_its_threshold_where_it_cuts():
    layer = TLU(2)
    with torch.no_grad():
        layer.tau.copy_(torch.tensor([-1.0, 0.5]))
    x = torch.tensor([[-3.0, 2.0], [0.0, 0.0]], requires_grad=True)
    y = layer(x)
    assert y.tolist() == [[-1.0, 2.0], [0.0, 0.5]]
    y.sum().backward()
    assert layer.tau.grad.tolist() == [1, 1]
    assert x.grad.tolist() == [[0, 1], [1, 0]]
    images = layer(torch.full((1, 2, 3, 3), -2.0))
    assert images[:, 0].eq(-1).all()
    assert images[:, 1].eq(0.5).all()


def test_squared_relu_has_no_kink():
    x = torch.zeros(1, requires_grad=True)
    SquaredReLU()(x).backward()
    assert x.grad.item() == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Maxout(2, 2, pieces=1), "pieces must be a whole number of at least 2, got 1"),
        (lambda: Maxout(2, 2, pieces=True), "at least 2, got True"),
        (lambda: maxout(torch.zeros(2, 5), 2), r"multiple of pieces=2, got shape \(2, 5\)"),
        (lambda: maxout(torch.zeros(2, 4), 0), "multiple of pieces=0"),
        (lambda: SwiGLU(0), "dim and hidden must be at least 1, got dim=0"),
        (lambda: GeGLU(3, hidden=-1), "hidden=-1"),
        (lambda: TLU(3)(torch.zeros(2, 4)), r"of 3 channels .* got \(2, 4\); give num_features=4"),
        (lambda: TLU(3)(torch.zeros(3)), r"of 3 channels .* got \(3,\)"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_maxout_weights_count_as_one_linear_layer():
    assert [n for n, _ in Maxout(4, 3).named_parameters()] == ["linear.weight", "linear.bias"]
    assert isinstance(Maxout(4, 3).linear, nn.Linear)
