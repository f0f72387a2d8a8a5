"""The reference networks: shapes, options, start, state, gradients."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from brickyard.catalog import build, shelf
from brickyard.errors import CatalogError
from brickyard.nn import CNN, MLP, Residual
from brickyard.nn.init import zero_residual_

#: Options without which a layer cannot be used in a network.
NEEDED = {"group_norm": {"num_groups": 2}, "constant_": {"val": 0.1}, "sparse_": {"sparsity": 0.5}}
#: Bricks that cannot stand in a network, or in one of the two, and what the error says.
REFUSED = {
    ("mlp", "instance_norm"): "spatial axes", ("mlp", "spatial_dropout"): "spatial axes",
    ("mlp", "frn"): "spatial axes.*learn_eps", ("mlp", "drop_path"): "residual branch",
    ("cnn", "maxout"): "last axis", ("cnn", "swiglu"): "last axis", ("cnn", "geglu"): "last axis",
    "variational_dropout": "sequences.*no time axis", "zoneout": "recurrent cell",
    "zoneout_lstm": "recurrent layer", "zero_residual_": "whole model.*take initialize",
    "prior_bias_": "whole model or layer", "lsuv_": "whole model.*call it yourself",
}  # fmt: skip
SMALL = {"mlp": {"hidden": 8}, "cnn": {"width": 4}}
SHAPE = {"mlp": (6,), "cnn": (2, 9, 7)}


def model(key, **options):
    torch.manual_seed(0)
    if key == "cnn" and options.get("activation") == {"name": "softmax"}:
        options["activation"] = {"name": "softmax", "dim": 1}
    return build("model", key, SHAPE[key], 3, **{**SMALL[key], **options})


def batch(key, n=5):
    return torch.randn(n, *SHAPE[key], generator=torch.Generator().manual_seed(1))


@settings(max_examples=25, deadline=None)
@given(
    channels=st.sampled_from([1, 3]),
    height=st.integers(1, 64),
    width=st.integers(1, 64),
    blocks=st.lists(st.integers(0, 2), min_size=1, max_size=3),
    pool=st.integers(1, 6),
)
def test_cnn_takes_images_of_any_size(channels, height, width, blocks, pool):
    net = CNN((channels, height, width), 7, width=2, blocks=blocks, pool=pool)
    y = net.eval()(torch.randn(2, channels, height, width))
    assert y.shape == (2, 7)
    assert bool(y.isfinite().all())


@settings(max_examples=25, deadline=None)
@given(
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    hidden=st.one_of(st.integers(1, 9), st.lists(st.integers(1, 9), min_size=1, max_size=4)),
)
def test_mlp_takes_samples_of_any_shape(shape, hidden):
    assert MLP(shape, 2, hidden=hidden)(torch.randn(3, *shape)).shape == (3, 2)


def every(kind):
    return [pytest.param(card, id=card.key) for card in shelf(kind)]


@pytest.mark.parametrize("key", ["mlp", "cnn"])
@pytest.mark.parametrize(
    ("option", "card"),
    [
        pytest.param(option, card, id=card.key)
        for option, kind in [
            ("activation", "activation"),
            ("normalization", "normalization"),
            ("dropout", "dropout"),
            ("residual", "residual"),
            ("init", "initializer"),
        ]
        for card in shelf(kind)
    ],
)
def test_every_key_makes_a_network_that_computes_and_learns(key, option, card):
    spec = {"name": card.key, **NEEDED.get(card.key, {})}
    if card.key == "softmax":
        spec["dim"] = 1
    if card.key == "sparse_" and key == "cnn":
        return  # fills matrices alone, and says so
    refused = REFUSED.get((key, card.key)) or REFUSED.get(card.key)
    if refused:
        with pytest.raises(CatalogError, match=rf"^{option}: '{card.key}'.*{refused}"):
            model(key, **{option: spec})
        return
    net, x = model(key, **{option: spec}), batch(key)
    assert net(x).shape == (5, 3)
    net(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def signature(net, key):
    """Return what an option may change: parameters' names and shapes, and two outputs."""
    x = batch(key)
    with torch.no_grad():
        nn.init.normal_(net.head.weight, generator=torch.Generator().manual_seed(3))
        shapes = [(n, tuple(p.shape)) for n, p in net.state_dict().items()]
        torch.manual_seed(4)
        return shapes, net.train()(x), net.eval()(x)


@pytest.mark.parametrize(
    ("key", "option", "value"),
    [
        ("mlp", "hidden", [8, 4]),
        ("mlp", "depth", 3),
        ("mlp", "activation", "tanh"),
        ("mlp", "normalization", "layer_norm"),
        ("mlp", "dropout", "dropout"),
        ("mlp", "residual", "residual"),
        ("mlp", "init", "xavier_uniform_"),
        ("cnn", "width", 6),
        ("cnn", "blocks", [1, 2]),
        ("cnn", "activation", "silu"),
        ("cnn", "normalization", "instance_norm"),
        ("cnn", "dropout", {"name": "spatial_dropout", "p": 0.3}),
        ("cnn", "residual", None),
        ("cnn", "pool", 1),
        ("cnn", "init", None),
    ],
)
def test_every_option_changes_the_network(key, option, value):
    a, b = signature(model(key), key), signature(model(key, **{option: value}), key)
    assert any(
        x != y if isinstance(x, list) else not torch.equal(x, y) for x, y in zip(a, b, strict=True)
    )


def test_all_options_are_tested_above():
    marks = test_every_option_changes_the_network.pytestmark[0].args[1]
    named = {(key, option) for key, option, _ in marks}
    assert named == {(c.key, o.name) for c in shelf("model") if c.key in SHAPE for o in c.options}


@pytest.mark.parametrize("key", ["mlp", "cnn"])
def test_training_starts_near_even_odds(key):
    net = build("model", key, SHAPE[key], 10)
    loss = F.cross_entropy(net(batch(key, 64)), torch.arange(64) % 10)
    assert loss.item() == pytest.approx(math.log(10), rel=0.05)


@pytest.mark.parametrize("key", ["mlp", "cnn"])
@pytest.mark.parametrize("norm", ["batch_norm", "layer_norm", "weight_norm"])
def test_state_dict_restores_the_network(key, norm):
    net = model(key, normalization=norm)
    net(batch(key))
    torch.manual_seed(9)
    other = build("model", key, SHAPE[key], 3, **SMALL[key], normalization=norm)
    other.load_state_dict(net.state_dict())
    x = batch(key)
    assert torch.equal(net.eval()(x), other.eval()(x))


@pytest.mark.parametrize(
    ("key", "options"),
    [
        ("mlp", {"hidden": 3, "activation": "gelu", "normalization": "layer_norm"}),
        ("mlp", {"hidden": 3, "activation": "tanh", "residual": "residual_scale"}),
        ("cnn", {"width": 2, "blocks": [1], "activation": "silu", "pool": 2}),
    ],
)
def test_gradients_in_float64(key, options):
    net = model(key, **options).double()
    x = batch(key, 2).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x, *_: net(x), (x, *net.parameters()), fast_mode=True)


def test_skip_init_starts_a_residual_network_as_its_stem():
    net = model("mlp", hidden=8, depth=4, residual="residual_scale").eval()
    stem = model("mlp", hidden=8, depth=1).eval()
    net.load_state_dict({**net.state_dict(), **stem.state_dict()})
    assert torch.equal(net(batch("mlp")), stem(batch("mlp")))


def test_zero_residual_finds_every_block():
    net = model("cnn", blocks=[2, 1])
    blocks = [m for m in net.modules() if isinstance(m, Residual)]
    assert len(zero_residual_(net)) == len(blocks) == 3
    x = torch.rand(2, 4, 5, 4)
    assert torch.equal(blocks[0].eval()(x), x)


def test_frn_stands_in_a_dense_network_when_it_learns_eps():
    net = model("mlp", normalization={"name": "frn", "learn_eps": True})
    assert net.body[1].bias is not None, "FRN takes no mean away: the bias before it has an effect"
    net(batch("mlp")).sum().backward()
    assert net.body[2].eps_l.grad is not None


def test_drop_connect_goes_around_layers_and_drop_path_into_branches():
    dense = model("mlp", dropout={"name": "drop_connect", "p": 0.3}, normalization="batch_norm")
    assert [type(m).__name__ for m in dense.body][:3] == ["Flatten", "DropConnect", "BatchNorm1d"]
    assert dense.body[1].linear.bias is None
    deep = model("mlp", dropout="drop_path", residual="residual", depth=3)
    kinds = [type(m).__name__ for m in deep.body]
    assert kinds == ["Flatten", "Linear", "ReLU", "Residual", "ReLU", "Residual", "ReLU"]
    assert type(deep.body[3].branch[-1]).__name__ == "DropPath"
    images = model("cnn", dropout="drop_connect")
    kinds = [[type(m).__name__ for m in block.branch] for block in images.modules()
             if isinstance(block, Residual)]  # fmt: skip
    assert kinds[0] == ["Conv2d", "BatchNorm2d", "ReLU", "DropConnect", "BatchNorm2d"]
    with pytest.raises(CatalogError, match="there is no branch here"):
        model("cnn", dropout="drop_path", residual=None)


def test_ghost_batch_norm_takes_the_member_that_fits():
    spec = {"name": "ghost_batch_norm", "ghost_size": 2}
    for key, name in [("mlp", "GhostBatchNorm1d"), ("cnn", "GhostBatchNorm2d")]:
        net = model(key, normalization=spec)
        found = [type(m).__name__ for m in net.modules() if "Ghost" in type(m).__name__]
        assert set(found) == {name}


def test_dropout_stands_at_the_end_of_each_branch():
    net = model("cnn", dropout="dropout")
    for block in [m for m in net.modules() if isinstance(m, Residual)]:
        assert isinstance(block.branch[-1], nn.Dropout)
    kinds = [type(m).__name__ for m in model("mlp", dropout="dropout").body]
    assert kinds == ["Flatten", *["Linear", "ReLU", "Dropout"] * 2]


@pytest.mark.parametrize(
    ("key", "options", "message"),
    [
        ("mlp", {"hidden": 0}, "hidden must be a whole number of at least 1, got 0"),
        ("mlp", {"hidden": [8, 2.5]}, "hidden must be a whole number of at least 1, got 2.5"),
        ("mlp", {"hidden": []}, "hidden must have at least one entry"),
        ("mlp", {"hidden": [8], "depth": 2}, "depth=2 repeats one width, but hidden="),
        ("mlp", {"hidden": [8, 4], "residual": "residual"}, r"all hidden widths must be equal"),
        ("cnn", {"blocks": []}, "blocks must have at least one entry"),
        ("cnn", {"blocks": [-1]}, "blocks must be a whole number of at least 0, got -1"),
        ("cnn", {"width": 0}, "width must be a whole number"),
        ("cnn", {"pool": 0}, "pool must be a whole number"),
        ("cnn", {"activation": "rleu"}, "activation: no activation is called 'rleu'"),
        ("cnn", {"residual": "resdual"}, "residual: no residual is called 'resdual'"),
    ],
)
def test_wrong_options_are_clear_errors(key, options, message):
    with pytest.raises((ValueError, CatalogError), match=message):
        model(key, **options)


def test_cnn_wants_channels_first_images():
    with pytest.raises(
        ValueError, match=r"input_shape of a cnn must be \(C, H, W\), got \[28, 28\]"
    ):
        CNN((28, 28), 10)
