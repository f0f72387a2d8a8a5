"""initialize: what it does to each kind of layer, what it reads, what it leaves, and depth."""

import math
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from brickyard.catalog import get
from brickyard.nn import (
    CNN,
    FRN,
    MLP,
    TLU,
    DropConnect,
    GeGLU,
    LayerScale,
    Maxout,
    Residual,
    SquaredReLU,
    SwiGLU,
    spectral_norm,
    weight_norm,
)  # fmt: skip
from brickyard.nn.gains import TANH_GAIN, best_of, spread
from brickyard.nn.init import initialize


def rows(model, *args, **options):
    torch.manual_seed(0)
    return {row.parameter: row for row in initialize(model, *args, **options)}


ACTIVATIONS = [
    (nn.ReLU(), "kaiming", math.sqrt(2)), (nn.LeakyReLU(0.5), "kaiming", math.sqrt(2 / 1.25)),
    (nn.PReLU(init=0.5), "kaiming", math.sqrt(2 / 1.25)), (TLU(200), "kaiming", math.sqrt(2)),
    (nn.SELU(), "lecun", 1), (nn.Tanh(), "xavier", TANH_GAIN), (nn.Sigmoid(), "xavier", 1),
    (nn.Softmax(-1), "xavier", 1), (nn.ReLU(inplace=True), "kaiming", math.sqrt(2)),
    (nn.ReLU6(), "kaiming", None), (nn.GELU(), "kaiming", None), (nn.SiLU(), "kaiming", None),
    (nn.RReLU(0.2, 0.8), "kaiming", math.sqrt(2 / 1.25)), (SquaredReLU(), "kaiming", None),
    (nn.Identity(), "xavier", 1), (nn.LeakyReLU(0.5, True), "kaiming", math.sqrt(2 / 1.25)),
]  # fmt: skip


@pytest.mark.parametrize(("activation", "family", "gain"), ACTIVATIONS,
                         ids=lambda v: repr(v) if isinstance(v, nn.Module) else "")  # fmt: skip
@pytest.mark.parametrize("distribution", ["normal", "uniform"])
def test_the_activation_behind_decides(activation, family, gain, distribution):
    model = nn.Sequential(nn.Linear(300, 200), nn.LayerNorm(200), nn.Dropout(), activation)
    row = rows(model, distribution=distribution)["0.weight"]
    assert row.done.startswith(family)
    gain = spread(activation) if gain is None else gain
    fan = {"kaiming": 1 / 300, "lecun": 1 / 300, "xavier": 2 / 500}[family]
    w = model[0].weight
    assert w.std().item() == pytest.approx(gain * math.sqrt(fan), rel=0.02)
    uniform = w.abs().max().item() < 1.8 * w.std().item()
    assert uniform == (distribution == "uniform")
    assert not bool(model[0].bias.any())


def test_gains_keep_the_mean_square_of_a_normal():
    z = torch.randn(1_000_000, dtype=torch.float64)
    for activation in (nn.GELU(), nn.SiLU(), nn.ELU(), nn.Softplus(), nn.ReLU6(), SquaredReLU()):
        assert spread(activation) ** -2 == pytest.approx(
            activation(z).square().mean().item(), rel=0.01
        )
    assert best_of(2) == pytest.approx(1)  # the square of the larger of two has mean 1
    draws = torch.randn(300_000, 5, dtype=torch.float64).amax(1).square().mean().item()
    assert best_of(5) ** -2 == pytest.approx(draws, rel=0.02)


@pytest.mark.parametrize("scheme", ["kaiming", "xavier", "lecun", "orthogonal"])
def test_a_scheme_by_name_is_used_for_all(scheme):
    model = nn.Sequential(nn.Linear(40, 60), nn.ReLU(), nn.Conv1d(4, 6, 3))
    found = rows(model, scheme)
    assert found["0.weight"].done.startswith(scheme)
    assert found["2.weight"].done.startswith(scheme)
    if scheme == "orthogonal":
        w = model[0].weight.detach()
        torch.testing.assert_close(w.T @ w, 2 * 60 / 40 * torch.eye(40), atol=1e-5, rtol=1e-5)


def test_mode_generator_and_other_options():
    model = nn.Sequential(nn.Linear(100, 400), nn.ReLU())
    rows(model, mode="fan_out")
    assert model[0].weight.std().item() == pytest.approx(math.sqrt(2 / 400), rel=0.02)
    first, second = nn.Sequential(nn.LSTM(3, 4), nn.Linear(4, 4)), nn.LSTM(3, 4)
    initialize(first, generator=torch.Generator().manual_seed(3))
    torch.manual_seed(99)
    initialize(second, generator=torch.Generator().manual_seed(3))
    assert all(
        torch.equal(a, b) for a, b in zip(first[0].parameters(), second.parameters(), strict=True)
    )
    names = {"scheme", "distribution", "mode", "zero_residual", "forget_bias"}
    assert {o.name for o in get("initialize").options} == names  # each has a test here


@pytest.mark.parametrize(("layer", "fan_in"), [
    (nn.Conv2d(8, 64, 3, groups=4), 18), (nn.Conv1d(30, 40, 5), 150),
    (nn.ConvTranspose2d(32, 40, 4, stride=2), 128), (nn.ConvTranspose1d(30, 60, 4, 2), 60),
])  # fmt: skip
def test_fans_of_convolutions(layer, fan_in):
    rows(nn.Sequential(layer, nn.ReLU()))
    assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / fan_in), rel=0.04)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN, nn.LSTMCell, nn.GRUCell])
def test_recurrent_matrices_are_orthogonal_gate_by_gate(kind):
    layer = kind(6, 8)
    found = rows(layer, forget_bias=1.0)
    for name, p in layer.named_parameters():
        if name.startswith("weight_hh"):
            for gate in p.detach().split(8):
                torch.testing.assert_close(gate @ gate.T, torch.eye(8), atol=1e-5, rtol=1e-5)
        elif name.startswith("weight_ih"):
            assert p.std().item() == pytest.approx(math.sqrt(2 / 14), rel=0.25)
        elif "LSTM" in kind.__name__ and name.startswith("bias_ih"):
            assert p.tolist() == [0] * 8 + [1] * 8 + [0] * 16
            assert found[name].done == "zero, forget gate 1"
        else:
            assert not bool(p.any())
    rows(layer)
    assert not any(bool(p.any()) for n, p in layer.named_parameters() if "bias" in n)
    rows(nn.LSTM(3, 4, proj_size=2))


def test_norms_are_units_and_their_statistics_fresh():
    model = nn.Sequential(nn.BatchNorm1d(3), nn.LayerNorm(3), FRN(3, learn_eps=True))
    for p in model.parameters():
        nn.init.constant_(p, 7.0)
    model[0].running_mean.fill_(5)
    found = rows(model)
    assert [r.done for r in found.values()] == ["one", "zero"] * 3 + ["left as it was"]
    assert all(bool((m.weight == 1).all()) and not bool(m.bias.any()) for m in model)
    assert not bool(model[0].running_mean.any())


def test_gated_blocks_and_maxout():
    model = nn.Sequential(SwiGLU(300, 400), GeGLU(300, 400), Maxout(300, 200, 5))
    rows(model)
    x = torch.randn(500, 300)
    for layer in model:
        y = layer(x)
        assert y.square().mean().item() == pytest.approx(1, rel=0.1)


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.relu = nn.Linear(4, 4)
        self.method = nn.Linear(4, 4)
        self.leaky = nn.Linear(4, 4)
        self.gate, self.value = nn.Linear(4, 4), nn.Linear(4, 4)
        self.last = nn.Linear(4, 4)

    def forward(self, x):
        x = F.relu(F.dropout(self.relu(x), 0.1, self.training))
        x = self.method(x).tanh()
        x = x + F.leaky_relu(self.leaky(x), 0.5)
        return self.last(F.silu(self.gate(x)) * self.value(x))


def test_the_graph_knows_functions_and_methods():
    found = rows(Functional())
    assert [found[f"{n}.weight"].why for n in ("relu", "method", "leaky", "gate")] == [
        "ReLU follows", "Tanh follows", "LeakyReLU follows", "SiLU follows"]  # fmt: skip
    assert found["value.weight"].why == found["last.weight"].why == "no activation follows"
    assert f"{math.sqrt(2 / 1.25) / 2:.4f}" in found["leaky.weight"].done


def test_what_cannot_be_traced_is_read_by_order_and_says_so():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.act, self.b = nn.Linear(4, 4), nn.SELU(), nn.Linear(4, 4)

        def forward(self, x):
            return self.b(self.act(self.a(x))) if x.sum() > 0 else x

    found = rows(Branching())
    assert found["a.weight"].why == "SELU follows, by order of definition"
    assert found["b.weight"].why == "no activation follows, by order of definition"


def test_residual_blocks_are_traced_and_their_ends_zeroed_on_demand():
    block = Residual(nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4)), LayerScale(4, 0.5))
    model = nn.Sequential(nn.Linear(4, 4), block, nn.ReLU(), nn.Linear(4, 2))
    found = rows(model, zero_residual=True)
    assert found["0.weight"].why == "ReLU follows"  # past the sum; the branch starts anew
    assert found["1.branch.0.weight"].why == "Tanh follows"
    assert (found["1.branch.2.weight"].done, found["1.branch.2.bias"].done) == ("zero", "zero")
    assert not bool(block.branch[2].weight.any())
    assert rows(model)["1.branch.2.weight"].why == "ReLU follows"
    assert found["1.scale.gamma"].left
    assert bool((block.scale.gamma == 0.5).all())


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.matrix = nn.Embedding(5, 4), nn.Parameter(torch.randn(4, 4))
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.slope = nn.PReLU()

    def forward(self, x):
        return self.slope(self.frozen(self.second(self.first(self.table(x) @ self.matrix))))


def test_what_has_no_place_is_named_and_left_alone():
    model = Own()
    kept = {n: p.detach().clone() for n, p in model.named_parameters(remove_duplicate=False)}
    done = initialize(model)
    whys = {row.parameter: row.why for row in done if row.left}
    assert whys == {
        "matrix": "no rule for Own", "table.weight": "a table of vectors has no fan; its recipe "
        "knows the spread", "second.weight": "the same parameter as first.weight",
        "frozen.weight": "frozen", "frozen.bias": "frozen", "slope.weight": "a slope, not a weight",
    }  # fmt: skip
    now = dict(model.named_parameters(remove_duplicate=False))
    for name in whys:
        assert torch.equal(now[name], kept[name]) or name == "second.weight"
    assert set(done.left) == set(whys)
    assert [row.parameter for row in done] == list(kept), "every parameter has its row"
    assert "3 of 9 parameters set, 6 left" in str(done)


def test_attention_and_transformers():
    model = nn.TransformerEncoderLayer(32, 4, 64, activation="gelu", batch_first=True)
    found = rows(model)
    assert not [r for r in found.values() if r.left]
    assert found["linear1.weight"].why == "GELU follows"
    assert model.self_attn.in_proj_weight.std().item() == pytest.approx(math.sqrt(2 / 64), rel=0.05)
    odd = nn.MultiheadAttention(8, 2, kdim=6, vdim=4, add_bias_kv=True)
    found = rows(odd)
    assert [n for n, r in found.items() if r.left] == ["bias_k", "bias_v"]
    assert found["k_proj_weight"].done == f"xavier, std {math.sqrt(2 / 14):.4f}"


def test_weights_behind_a_parametrization_and_half_precision():
    layer = weight_norm(nn.Linear(300, 200))
    found = rows(nn.Sequential(layer, nn.ReLU()))
    assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / 300), rel=0.02)
    assert all(r.done.startswith("kaiming") for n, r in found.items() if "original" in n)
    half = nn.Linear(300, 200, dtype=torch.bfloat16)
    rows(half, "orthogonal")
    assert half.weight.dtype == torch.bfloat16


@pytest.mark.parametrize("net", [MLP((4,), 3, hidden=8, residual="residual"), CNN((1, 8, 8), 3)])
def test_the_reference_networks_are_traced(net):
    done = initialize(net)
    assert not done.left
    assert not any("order" in row.why for row in done)


def test_the_reference_networks_take_it_by_key():
    torch.manual_seed(0)
    options = {"hidden": 64, "activation": "selu", "residual": "residual", "depth": 3}
    net = MLP((64,), 3, init={"name": "auto", "zero_residual": True}, **options)
    assert net.body[1].weight.std().item() == pytest.approx(1 / 8, rel=0.05)
    assert not bool(net.body[3].branch[0].weight.any())
    assert net.head.weight.std().item() < 0.02


@pytest.mark.parametrize(("model", "options", "message"), [
    (nn.Linear(2, 2), {"scheme": "he"}, "scheme must be one of auto, kaiming.*got 'he'"),
    (nn.Linear(2, 2), {"distribution": "cauchy"}, "distribution must be one of normal, uniform"),
    (nn.Linear(2, 2), {"mode": "fan"}, "mode must be one of fan_in, fan_out"),
    (nn.Linear(2, 2), {"zero_residual": True}, "the model has none"),
    (nn.Linear(2, 2, device="meta"), {}, r"weight is on the meta device.*to_empty"),
    (nn.LazyLinear(2), {}, "lazy layer"),
])  # fmt: skip
def test_refusals(model, options, message):
    with pytest.raises(ValueError, match=message):
        initialize(model, **options)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.SELU])
@pytest.mark.parametrize("seed", range(5))
def test_thirty_layers_start_level(activation, seed):
    """The last layer's activations and gradients stay within [0.3, 3] of the first's."""
    g = torch.Generator().manual_seed(seed)
    model = nn.Sequential(*[m for _ in range(30) for m in (nn.Linear(256, 256), activation())])
    initialize(model, "auto", generator=g)
    h, kept = torch.randn(256, 256, generator=g), []
    for i, layer in enumerate(model):
        h = layer(h)
        if i % 2:
            h.retain_grad()
            kept.append(h)
    h.backward(torch.randn(256, 256, generator=g))
    assert 0.3 <= (kept[-1].std() / kept[0].std()).item() <= 3
    assert 0.3 <= (kept[-1].grad.std() / kept[0].grad.std()).item() <= 3
    first, last = (model[i].weight.grad.std() for i in (0, 58))
    assert 0.3 <= (last / first).item() <= 3


class Calls(nn.Module):
    """Calls its activations, and one only under a condition that a trace cannot follow."""

    def __init__(self, condition):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2)
        self.condition = condition

    def forward(self, x, mask=None, named=True):
        h = torch.relu(self.a(x) if mask is None else self.a(x) * mask)
        h = self.b(h)
        h = h * torch.sigmoid(h)
        if self.condition and h.sum() > 0:
            h = -h
        return {"y": self.c(h)} if named else self.c(h)


def test_options_of_forward_do_not_hinder_the_trace():
    why = {row.parameter: row.why for row in initialize(Calls(False))}
    assert why["a.weight"] == "ReLU follows"
    assert why["b.weight"] == "SiLU follows"
    assert why["c.weight"] == "no activation follows"


def test_what_cannot_be_placed_is_named_and_left_alone():
    model = Calls(True)
    before = [p.clone() for p in model.parameters()]
    done = initialize(model)
    assert done.left == ["a.weight", "b.weight", "c.weight"]
    assert all("cannot tell what follows" in row.why for row in done if row.left)
    for p, was in zip(model.parameters(), before, strict=True):
        assert torch.equal(p, was) or not p.any()
    assert initialize(model, "kaiming").left == []


def test_parts_of_a_model_that_cannot_be_traced_are():
    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks, self.head = nn.ModuleList([Calls(False), Calls(False)]), nn.Linear(2, 2)

        def forward(self, x):
            return self.head(self.blocks[0](x)["y"]) if x.sum() > 0 else x

    rows = {row.parameter: row for row in initialize(Outer())}
    assert rows["blocks.1.b.weight"].why == "SiLU follows"
    assert rows["blocks.0.c.weight"].left, "what follows lies behind the end of the part"
    assert rows["head.weight"].why == "no activation follows, by order of definition"


def test_blocks_with_weights_end_the_search():
    blocks = [nn.Identity(), Maxout(8, 8), SwiGLU(8), DropConnect(nn.Linear(8, 8))]
    encoder = nn.TransformerEncoderLayer(8, 2, 8, batch_first=True)
    for block in [*blocks, encoder, Product()]:
        model = nn.Sequential(nn.Linear(8, 8), block, nn.ReLU())
        why = initialize(model).rows[0].why
        assert (why == "ReLU follows") == isinstance(block, nn.Identity), type(block)
    model = nn.Sequential(DropConnect(nn.Linear(8, 8)), nn.ReLU())
    assert initialize(model).rows[0].why == "ReLU follows"


class Product(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.eye(8))

    def forward(self, x):
        return x @ self.w


def test_every_parameter_has_a_row():
    shared = nn.Linear(4, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's older form, with hooks
        hooked = nn.utils.weight_norm(nn.Linear(4, 4))
    model = nn.Sequential(shared, nn.ReLU(), shared, hooked)
    done = initialize(model)
    assert [row.parameter for row in done] == [
        name for name, _ in model.named_parameters(remove_duplicate=False)
    ]
    why = {row.parameter: row.why for row in done if row.left}
    assert why["2.weight"] == "the same parameter as 0.weight"
    assert {"3.weight_g", "3.weight_v"} <= set(why)


def test_frozen_layers_keep_computed_weights_and_statistics():
    layer, norm = weight_norm(nn.Linear(4, 4)), nn.BatchNorm1d(4)
    norm.running_mean.fill_(3.0)
    model = nn.Sequential(layer, norm, nn.ReLU()).requires_grad_(False)
    before = layer.weight.clone()
    assert all(row.why == "frozen" for row in initialize(model))
    assert torch.equal(layer.weight, before)
    assert bool((norm.running_mean == 3).all())
    assert "scales" in initialize(nn.Sequential(spectral_norm(nn.Linear(4, 4)))).rows[1].why
