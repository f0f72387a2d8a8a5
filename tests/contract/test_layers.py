"""What every activation, normalization, dropout and initializer promises; driven by the shelf.

A new brick is tested by standing on the shelf. It needs a line in ``ORACLES`` of ``layer_cases``
(or the reason why it has none) and a line in ``OTHER`` for each of its options.
"""

import inspect

import numpy as np
import pytest
import torch
from layer_cases import (
    COMMON,
    ELSEWHERE,
    IDLE,
    LAST,
    NEEDED,
    ORACLES,
    OTHER,
    SIDE,
    SIZES,
    C,
    cards,
    data,
    make,
)  # fmt: skip
from torch import nn

from brickyard.catalog import shelf
from brickyard.errors import CatalogError
from brickyard.nn.build import make_layer, normalize


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
    if card.key in LAST or card.key == "drop_connect":
        x = data()[:1, :2, :2].clone().requires_grad_()
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
    plain = layer.linear if card.key == "drop_connect" else nn.Identity()
    assert torch.equal(layer.eval()(x), plain(x))
    layer.train()
    assert not torch.equal(layer(x), layer(x))
    torch.manual_seed(3)
    first = layer(x)
    torch.manual_seed(3)
    assert torch.equal(layer(x), first)
    if card.key == "drop_connect":  # tests/nn/test_noise.py has its mean
        assert torch.equal(make(card, p=0.0).train()(x), make(card).linear(x))
        return
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
        if card.key not in ELSEWHERE
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
    shifts = getattr(norm, "bias", None) is not None and card.key != "frn"  # keeps the mean
    assert (layer.bias is None) == shifts, "a bias before a norm with a shift has no effect"
