"""Parts by key: what a spec may say, what reaches the layer, and what the errors say."""

import numpy as np
import pytest
import torch
from torch import nn

from brickyard.errors import CatalogError
from brickyard.nn import init
from brickyard.nn.build import init_weights, make_layer, normalize, sibling


def test_none_is_the_identity():
    assert isinstance(make_layer("activation", None), nn.Identity)


@pytest.mark.parametrize(
    ("spec", "repr_"),
    [
        ("swish", "SiLU()"),
        ({"name": "leaky_relu", "negative_slope": 1}, "LeakyReLU(negative_slope=1.0)"),
        ({"target": "torch.nn:Softsign"}, "Softsign()"),
        ({"target": "torch.nn:Softshrink", "lambd": 0.2}, "Softshrink(0.2)"),
    ],
)
def test_specs(spec, repr_):
    assert repr(make_layer("activation", spec)) == repr_


def test_sizes_go_to_required_parameters_alone():
    assert make_layer("normalization", "layer_norm", normalized_shape=7).normalized_shape == (7,)
    assert make_layer("activation", {"name": "softmax", "dim": 1}, dim=7).dim == 1
    group = make_layer(
        "normalization", {"name": "group_norm", "num_groups": 2}, num_channels=4, dim=4
    )
    assert (group.num_groups, group.num_channels) == (2, 4)


@pytest.mark.parametrize(
    ("dims", "name"),
    [(0, "BatchNorm1d"), (1, "BatchNorm1d"), (2, "BatchNorm2d"), (3, "BatchNorm3d")],
)
def test_the_family_member_fits_the_axes(dims, name):
    assert (
        type(make_layer("normalization", "batch_norm", dims=dims, num_features=3)).__name__ == name
    )
    assert sibling(nn.LayerNorm, dims) is nn.LayerNorm


@pytest.mark.parametrize(
    ("kind", "spec", "message"),
    [
        ("activation", "rleu", r"^m\.a: no activation is called 'rleu'; did you mean 'relu'"),
        ("activation", "batch_norm", r"^m\.a: no activation is called 'batch_norm'"),
        ("activation", 3, r"^m\.a: give a key.*got 3"),
        ("activation", {"slope": 0.1}, r"^m\.a: give 'name' or 'target', one of the two"),
        ("activation", {"name": "relu", "target": "torch.nn:ReLU"}, r"one of the two"),
        (
            "activation",
            {"target": "torch.nn.ReLU"},
            r"target: write 'package\.module:object'",
        ),
        (
            "activation",
            {"target": "torch.nn:Relu"},
            r"target: cannot import 'torch\.nn:Relu'",
        ),
        ("activation", {"target": "torch.nn:functional"}, r"^m\.a\.target: .* cannot be called"),
        ("activation", {"target": "builtins:dict"}, r"^m\.a: 'builtins:dict' makes a dict"),
        ("activation", {"name": "elu", "alfa": 2}, r"no option 'alfa'; did you mean 'alpha'"),
        (
            "activation",
            {"name": "elu", "alpha": "x"},
            r"'alpha' of 'elu' wants float; got 'x'",
        ),
        ("normalization", "group_norm", r"^m\.a: GroupNorm needs the option 'num_groups'"),
        (
            "normalization",
            {"name": "group_norm", "num_groups": 3},
            r"^m\.a: 'group_norm' refuses .*divisible",
        ),
        ("dropout", {"name": "dropout", "p": 1.5}, r"^m\.a: 'dropout' refuses .*1\.5"),
        ("dropout", "spatial_dropout", r"^m\.a: 'spatial_dropout' works over spatial axes"),
        ("normalization", "instance_norm", r"^m\.a: 'instance_norm' works over spatial axes"),
    ],
)
def test_errors_name_the_path_the_value_and_the_way_out(kind, spec, message):
    with pytest.raises(CatalogError, match=message):
        make_layer(kind, spec, path="m.a", dims=0, num_channels=4, num_features=4)


def test_a_bias_before_a_shift_is_removed_and_another_kept():
    for spec, bias in [("batch_norm", False), ("rms_norm", True), ("weight_norm", True)]:
        layer, _ = normalize(nn.Linear(3, 4), spec, num_features=4, normalized_shape=4)
        assert (layer.bias is not None) == bias, spec


def test_weight_norm_is_length_times_direction():
    layer, norm = normalize(nn.Linear(5, 3).double(), "weight_norm")
    assert isinstance(norm, nn.Identity)
    weights = layer.parametrizations.weight
    with torch.no_grad():
        weights.original0.copy_(torch.tensor([[1.0], [2.0], [3.0]]))
    v = weights.original1.detach().numpy()
    expected = v / np.linalg.norm(v, axis=1, keepdims=True) * np.array([[1.0], [2.0], [3.0]])
    np.testing.assert_allclose(layer.weight.detach().numpy(), expected, rtol=1e-12)


def test_spectral_norm_divides_by_the_largest_singular_value():
    torch.manual_seed(0)
    spec = {"name": "spectral_norm", "n_power_iterations": 100}
    layer, _ = normalize(nn.Linear(5, 3).double(), spec)
    layer(torch.zeros(1, 5).double())
    values = np.linalg.svd(layer.weight.detach().numpy(), compute_uv=False)
    assert values[0] == pytest.approx(1.0, abs=1e-9)


def test_init_fills_weights_by_key_and_zeroes_biases():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 4))
    init_weights(model, {"name": "constant_", "val": 0.25})
    for layer in (model[0], model[3]):
        assert bool((layer.weight == 0.25).all())
        assert not bool(layer.bias.any())
    assert bool((model[1].weight == 1).all())


def test_init_reaches_weights_behind_a_parametrization():
    layer, _ = normalize(nn.Linear(5, 3), "weight_norm")
    init_weights(layer, {"name": "constant_", "val": 0.5})
    assert torch.allclose(layer.weight, torch.full((3, 5), 0.5))


def test_init_none_keeps_torchs_own_start():
    layer = nn.Linear(3, 3)
    before = layer.weight.clone()
    init_weights(layer, None)
    assert torch.equal(layer.weight, before)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("kaiming", r"^init: no initializer is called 'kaiming'; did you mean"),
        ("zero_residual_", r"^init: 'zero_residual_' works on a whole model"),
        ({"name": "sparse_", "sparsity": 0.5}, r"^init: 'sparse_' cannot fill \(2, 3, 1, 1\)"),
    ],
)
def test_init_errors(spec, message):
    with pytest.raises(CatalogError, match=message):
        init_weights(nn.Conv2d(3, 2, 1), spec)


@pytest.mark.parametrize("name", ["kaiming_normal_", "kaiming_uniform_"])
def test_kaiming_has_he_variance_and_torchs_own_start_a_sixth_of_it(name):
    torch.manual_seed(0)
    he = getattr(init, name)(torch.empty(400, 300)).var().item()
    own = nn.Linear(300, 400).weight.detach().var().item()
    assert he == pytest.approx(2 / 300, rel=0.02)
    assert own == pytest.approx(he / 6, rel=0.04)
