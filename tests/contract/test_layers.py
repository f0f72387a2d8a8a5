"""What every activation, normalization, dropout and initializer promises; driven by the shelf.

A new brick is tested by standing on the shelf. It needs a line in ``ORACLES`` (or the reason why
it has none) and a line in ``OTHER`` for each of its options.
"""

import inspect
import math

import numpy as np
import pytest
import torch
from torch import nn

import brickyard.nn  # noqa: F401  (puts the layers on the shelf)
from brickyard.catalog import build, shelf
from brickyard.errors import CatalogError
from brickyard.nn.build import make_layer, normalize

C, SIDE = 6, 4
SIZES = {
    "num_features": C, "num_channels": C, "normalized_shape": (C, SIDE, SIDE), "dim": C,
    "in_features": C, "out_features": C,
}  # fmt: skip
#: Options without which a brick cannot be built or used.
NEEDED = {
    "softmax": {"dim": 1}, "group_norm": {"num_groups": 3}, "constant_": {"val": 0.5},
    "sparse_": {"sparsity": 0.5},
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
    ("identity_", "groups"): 2,
}  # fmt: skip
#: Options with the same meaning wherever they occur.
COMMON = {
    "inplace": True, "eps": 0.5, "affine": None, "elementwise_affine": False, "bias": False,
    "track_running_stats": None, "name": "bias",
}  # fmt: skip


#: Options that torch takes and ignores; their cards say so.
IDLE = {("alpha_dropout", "inplace")}


def cards(*kinds):
    return [pytest.param(card, id=card.key) for kind in kinds for card in shelf(kind)]


def data(requires_grad=False, seed=0):
    """Return ``(5, C, 4, 4)`` in float64, spread wide enough to meet every piece of each curve."""
    x = 2.5 * torch.randn(5, C, SIDE, SIDE, generator=torch.Generator().manual_seed(seed)).double()
    return x.requires_grad_(requires_grad)


def make(card, **options):
    """Return the brick as a module on ``(N, C, 4, 4)`` in float64, in training mode."""
    torch.manual_seed(0)
    options = {**NEEDED.get(card.key, {}), **options}
    if "module" in inspect.signature(card.load()).parameters:
        layer = build(card.kind, card.key, module=nn.Conv2d(C, C, 1), **options)
    else:
        names = inspect.signature(card.load()).parameters
        needed = {n: v for n, v in SIZES.items() if n in names and n not in options}
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
    "weight_norm": None,  # tests/nn/test_build.py
    "spectral_norm": None,  # tests/nn/test_build.py
}


@pytest.mark.parametrize("card", cards("activation", "normalization"))
def test_forward_is_the_formula(card):
    assert card.key in ORACLES, f"write the formula of {card.key!r} into ORACLES"
    oracle = ORACLES[card.key]
    if oracle is None:
        return
    x = data()
    y = make(card)(x)
    np.testing.assert_allclose(y.detach().numpy(), oracle(x.numpy()), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("card", cards("activation", "normalization", "dropout"))
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_gradients_are_those_of_the_function(card, training):
    layer = make(card)
    layer(data())  # running statistics and power iterations off their start
    if card.key == "spectral_norm" and training:
        pytest.skip("each training pass moves the estimate: no fixed function to differentiate")
    layer.train(training)
    x = data()[:3, :, :2, :1].clone().requires_grad_()
    if card.key in ("layer_norm", "rms_norm"):
        layer = make(card, normalized_shape=(C, 2, 1)).train(training)
    parameters = list(layer.parameters())

    def function(x, *_):
        torch.manual_seed(1)
        return layer(x)

    assert torch.autograd.gradcheck(function, (x, *parameters))


@pytest.mark.parametrize("card", cards("activation", "normalization", "dropout"))
def test_shape_and_dtype_are_kept(card):
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        layer, x = make(card).to(dtype), data().to(dtype)
        before = x.clone()
        y = layer(x)
        assert (y.shape, y.dtype) == (x.shape, dtype)
        assert bool(y.isfinite().all())
        assert torch.equal(x, before), "the input was changed in place"


@pytest.mark.parametrize("card", cards("activation", "normalization", "dropout"))
def test_state_dict_restores_the_layer(card):
    layer = make(card)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.1 * torch.rand_like(parameter))
    layer(data())
    layer(data(seed=1))
    other = make(card)
    other.load_state_dict(layer.state_dict())
    x = data(seed=2)
    assert torch.equal(other.eval()(x), layer.eval()(x))


@pytest.mark.parametrize("card", cards("activation"))
def test_activations_do_not_know_of_training(card):
    layer, x = make(card), data()
    assert torch.equal(layer.train()(x), layer.eval()(x))


@pytest.mark.parametrize("card", cards("dropout"))
def test_dropouts_are_random_in_training_alone_and_keep_the_mean(card):
    layer, x = make(card, p=0.3), data()
    assert torch.equal(layer.eval()(x), x)
    layer.train()
    assert not torch.equal(layer(x), layer(x))
    torch.manual_seed(3)
    first = layer(x)
    torch.manual_seed(3)
    assert torch.equal(layer(x), first)
    units = torch.randn(20_000, C, 1, 1, generator=torch.Generator().manual_seed(0))
    y = layer(units)
    assert abs(y.mean().item() - units.mean().item()) < 0.03
    assert torch.equal(make(card, p=0.0).train()(x), x)


def effect(card, **options):
    """Return everything an option could change about a layer, as a list of tensors and names."""
    layer, x = make(card, **options), data()
    torch.manual_seed(7)
    given = x.clone()
    trained = layer(given)
    return [trained, given, layer.eval()(data(seed=1)), *layer.state_dict().items()]


def flat(effects):
    return [str(e) if not isinstance(e, torch.Tensor) else e for e in effects]


def differ(a, b):
    if len(a) != len(b):
        return True
    return any(str(x) != str(y) if isinstance(x, str) else not torch.equal(x, y)
               for x, y in zip(flat(a), flat(b), strict=True))  # fmt: skip


def options_of(*kinds):
    return [
        pytest.param(card, option, id=f"{card.key}-{option.name}")
        for kind in kinds
        for card in shelf(kind)
        for option in card.options
        if option.name not in ("module", "min_value", "max_value")
    ]


def other_value(card, option):
    if (card.key, option.name) in OTHER:
        return OTHER[card.key, option.name]
    assert option.name in COMMON, f"add ({card.key!r}, {option.name!r}) to OTHER"
    value = COMMON[option.name]
    return not option.default if value is None else value


@pytest.mark.parametrize(("card", "option"), options_of("activation", "normalization", "dropout"))
def test_every_option_changes_something(card, option):
    base = {"affine": True} if (card.key, option.name) == ("instance_norm", "bias") else {}
    if (card.key, option.name) == ("instance_norm", "momentum"):
        base = {"track_running_stats": True}
    value = other_value(card, option)
    works = differ(effect(card, **base), effect(card, **base, **{option.name: value}))
    assert works == ((card.key, option.name) not in IDLE)


def fill(card, shape=(8, 6), seed=0, **options):
    torch.manual_seed(seed)
    return card.load()(torch.empty(shape), **{**NEEDED.get(card.key, {}), **options})


@pytest.mark.parametrize("card", cards("initializer"))
def test_initializers_fill_in_place_and_return_what_they_filled(card):
    function = card.load()
    if "tensor" not in inspect.signature(function).parameters:
        return  # works on a whole model: tests/nn/test_init.py
    tensor = torch.full((8, 6), float("nan"))
    assert function(tensor, **NEEDED.get(card.key, {})) is tensor
    assert bool(tensor.isfinite().all())
    leaf = nn.Parameter(torch.full((8, 6), float("nan")))
    function(leaf, **NEEDED.get(card.key, {}))
    assert leaf.grad_fn is None, "initializing a parameter was recorded by autograd"


@pytest.mark.parametrize(("card", "option"), options_of("initializer"))
def test_every_option_of_an_initializer_changes_something(card, option):
    shape = (8, 4, 3, 3) if option.name == "groups" else (8, 6)
    value = other_value(card, option)
    assert not torch.equal(fill(card, shape), fill(card, shape, **{option.name: value}))


@pytest.mark.parametrize("card", cards("initializer"))
def test_generator_is_the_source_of_all_randomness(card):
    function = card.load()
    if "generator" not in inspect.signature(function).parameters or card.key == "sparse_":
        return  # torch's sparse_ draws the zeros' places elsewhere, and its card says so
    first, second = (fill(card, seed=s, generator=torch.Generator().manual_seed(5)) for s in (0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, fill(card, generator=torch.Generator().manual_seed(6)))


LAYERS = cards("activation", "normalization", "dropout")


@pytest.mark.parametrize("card", LAYERS)
def test_a_wrong_option_is_one_clear_error_with_its_path(card):
    with pytest.raises(CatalogError, match=rf"model\.part.*{card.key}.*'nonsense'"):
        make_layer(card.kind, {"name": card.key, "nonsense": 1}, path="model.part")
    typed = [o for o in card.options if o.type in ("float", "int", "bool") and o.name != "name"]
    for option in typed:
        spec = {"name": card.key, option.name: "many"}
        with pytest.raises(CatalogError, match=rf"model\.part.*'{option.name}'.*'many'"):
            make_layer(card.kind, spec, path="model.part")


@pytest.mark.parametrize("card", cards("normalization"))
def test_normalizations_attach_to_a_layer_by_key(card):
    spec = {"name": card.key, **NEEDED.get(card.key, {})}
    layer, norm = normalize(nn.Conv2d(C, C, 3, padding=1), spec, dims=2, **SIZES)
    y = norm(layer(data().float()))
    assert y.shape == (5, C, SIDE, SIDE)
    shifts = getattr(norm, "bias", None) is not None
    assert (layer.bias is None) == shifts, "a bias before a norm with a shift has no effect"
