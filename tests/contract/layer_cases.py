"""How to build every layer of the shelf, another value for each option, and its formula."""

import inspect
import math

import numpy as np
import pytest
import torch
from torch import nn

import brickyard.nn  # noqa: F401  (puts the layers on the shelf)
from brickyard.catalog import build, shelf

C, SIDE = 6, 4
SIZES = {
    "num_features": C, "num_channels": C, "normalized_shape": (C, SIDE, SIDE), "dim": C,
    "in_features": C, "out_features": C, "input_size": SIDE, "hidden_size": SIDE,
}  # fmt: skip
#: Options without which a brick cannot be built or used.
NEEDED = {
    "softmax": {"dim": 1}, "group_norm": {"num_groups": 3}, "constant_": {"val": 0.5},
    "sparse_": {"sparsity": 0.5}, "variational_dropout": {"batch_first": True},
    "ghost_batch_norm": {"ghost_size": 3},
}  # fmt: skip
#: One value of each option that is not its default and must change something.
OTHER = {
    ("leaky_relu", "negative_slope"): 0.3, ("prelu", "num_parameters"): C, ("prelu", "init"): 0.9,
    ("elu", "alpha"): 2.0, ("gelu", "approximate"): "tanh", ("softplus", "beta"): 3.0,
    ("softplus", "threshold"): 0.1, ("hard_tanh", "min_val"): -0.2, ("hard_tanh", "max_val"): 0.2,
    ("batch_norm", "momentum"): 0.9, ("instance_norm", "momentum"): 0.9,
    ("group_norm", "num_groups"): 2, ("spectral_norm", "n_power_iterations"): 7,
    ("spectral_norm", "eps"): 5.0, ("dropout", "p"): 0.1, ("alpha_dropout", "p"): 0.1,
    ("spatial_dropout", "p"): 0.1, ("uniform_", "a"): -1.0, ("uniform_", "b"): 2.0,
    ("normal_", "mean"): 1.0, ("normal_", "std"): 2.0, ("trunc_normal_", "mean"): 1.0,
    ("trunc_normal_", "std"): 2.0, ("trunc_normal_", "a"): 0.0, ("trunc_normal_", "b"): 0.0,
    ("constant_", "val"): 2.0, ("xavier_uniform_", "gain"): 2.0, ("xavier_normal_", "gain"): 2.0,
    ("kaiming_uniform_", "a"): 1.0, ("kaiming_uniform_", "mode"): "fan_out",
    ("kaiming_uniform_", "nonlinearity"): "linear", ("kaiming_normal_", "a"): 1.0,
    ("kaiming_normal_", "mode"): "fan_out", ("kaiming_normal_", "nonlinearity"): "linear",
    ("orthogonal_", "gain"): 2.0, ("sparse_", "sparsity"): 0.9, ("sparse_", "std"): 1.0,
    ("identity_", "groups"): 2, ("maxout", "pieces"): 3, ("maxout", "bias"): False,
    ("swiglu", "hidden"): 5, ("swiglu", "bias"): True, ("geglu", "hidden"): 5,
    ("geglu", "bias"): True, ("frn", "learn_eps"): True, ("ghost_batch_norm", "ghost_size"): 2,
    ("ghost_batch_norm", "momentum"): 0.9, ("drop_path", "p"): 0.6,
    ("variational_dropout", "p"): 0.1, ("variational_dropout", "batch_first"): False,
    ("drop_connect", "p"): 0.1,
}  # fmt: skip
#: Options with the same meaning wherever they occur.
COMMON = {
    "inplace": True, "eps": 0.5, "affine": None, "elementwise_affine": False, "bias": False,
    "track_running_stats": None, "name": "bias",
}  # fmt: skip


#: Bricks of recurrent networks and of whole models: their tests are in tests/nn.
ELSEWHERE = {"zoneout", "zoneout_lstm", "initialize", "lsuv_", "prior_bias_", "zero_residual_"}
#: Bricks that work on the last axis.
LAST = {"maxout", "swiglu", "geglu"}
#: Options that torch takes and ignores; their cards say so.
IDLE = {("alpha_dropout", "inplace")}


def cards(*kinds):
    """Return the bricks of these kinds that take one tensor, as parameters of a test."""
    found = [card for kind in kinds for card in shelf(kind) if card.key not in ELSEWHERE]
    return [pytest.param(card, id=card.key) for card in found]


def data(requires_grad=False, seed=0):
    """Return ``(5, C, 4, 4)`` in float64, spread wide enough to meet every piece of each curve."""
    x = 2.5 * torch.randn(5, C, SIDE, SIDE, generator=torch.Generator().manual_seed(seed)).double()
    return x.requires_grad_(requires_grad)


def make(card, **options):
    """Return the brick as a module on ``(N, C, 4, 4)`` in float64, in training mode."""
    torch.manual_seed(0)
    options = {**NEEDED.get(card.key, {}), **options}
    if card.key == "drop_connect":
        return build(card.kind, card.key, nn.Linear(SIDE, SIDE), **options).double()
    if "module" in inspect.signature(card.load()).parameters:
        layer = build(card.kind, card.key, module=nn.Conv2d(C, C, 1), **options)
    else:
        names = inspect.signature(card.load()).parameters
        needed = {n: v for n, v in SIZES.items() if n in names and n not in options}
        if card.key in LAST:
            needed = dict.fromkeys(needed, SIDE)
        sizes = needed if card.key != "softmax" else {}
        layer = build(card.kind, card.key, **{**sizes, **options})
    return layer.double()


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def standardize(x, axes, eps=1e-5):
    mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    return (x - mean) / np.sqrt(var + eps)


ERF = np.vectorize(math.erf)
#: float64 transcriptions of the papers' formulas; None where another test is the oracle.
ORACLES = {
    "relu": lambda x: np.maximum(x, 0),
    "sigmoid": sigmoid,
    "tanh": lambda x: (np.exp(x) - np.exp(-x)) / (np.exp(x) + np.exp(-x)),
    "softmax": lambda x: np.exp(x) / np.exp(x).sum(1, keepdims=True),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "prelu": lambda x: np.where(x > 0, x, 0.25 * x),
    "elu": lambda x: np.where(x > 0, x, np.exp(x) - 1),
    "selu": lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * (np.exp(x) - 1)),
    "silu": lambda x: x * sigmoid(x),
    "mish": lambda x: x * np.tanh(np.log1p(np.exp(x))),
    "gelu": lambda x: x * 0.5 * (1 + ERF(x / math.sqrt(2))),
    "softplus": lambda x: np.log1p(np.exp(x)),
    "hard_sigmoid": lambda x: np.clip(x + 3, 0, 6) / 6,
    "hard_tanh": lambda x: np.clip(x, -1, 1),
    "hard_swish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
    "batch_norm": lambda x: standardize(x, (0, 2, 3)),
    "layer_norm": lambda x: standardize(x, (1, 2, 3)),
    "instance_norm": lambda x: standardize(x, (2, 3)),
    "group_norm": lambda x: standardize(x.reshape(5, 3, -1), (2,)).reshape(x.shape),
    "rms_norm": lambda x: x / np.sqrt((x**2).mean((1, 2, 3), keepdims=True) + np.finfo(float).eps),
    "maxout": None,  # tests/nn/test_gated.py, and so are the next two
    "swiglu": None,
    "geglu": None,
    "tlu": lambda x: np.maximum(x, 0),
    "squared_relu": lambda x: np.maximum(x, 0) ** 2,
    "frn": lambda x: x / np.sqrt((x**2).mean((2, 3), keepdims=True) + 1e-6),
    "ghost_batch_norm": lambda x: np.concatenate(
        [standardize(x[:3], (0, 2, 3)), standardize(x[3:], (0, 2, 3))]
    ),
    "weight_norm": None,  # tests/nn/test_build.py
    "spectral_norm": None,  # tests/nn/test_build.py
}
