"""Layers inside torch's machinery: compiled, transformed, in half precision, without memory."""

import copy
import inspect
import warnings

import pytest
import torch
from layer_cases import LAST, NEEDED, SIDE, SIZES, C, cards, data, make
from torch import nn
from torch.func import functional_call, grad, vmap

LAYERS = cards("activation", "normalization", "dropout")
OURS = [card for card in LAYERS if card.values[0].origin == "own"]
#: Layers whose training pass changes buffers in place, which vmap cannot (torch's included).
STATEFUL = {"batch_norm", "ghost_batch_norm", "spectral_norm"}


def slopes(layer, x):
    layer.zero_grad()
    x = x.clone().requires_grad_()
    torch.manual_seed(1)
    y = layer(x)
    (y * torch.linspace(0, 1, y.numel(), dtype=y.dtype).view_as(y)).sum().backward()
    return [y.detach(), x.grad, *(p.grad for p in layer.parameters())]


@pytest.mark.parametrize("card", LAYERS)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_compiled_is_the_same(card, training):
    torch._dynamo.reset()
    layer = make(card).train(training)
    plain = copy.deepcopy(layer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the compiler, about itself
        compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
        got = slopes(compiled, data())
    for a, b in zip(got, slopes(plain, data()), strict=True):
        torch.testing.assert_close(a, b)
    if training and card.key in STATEFUL:
        for a, b in zip(layer.buffers(), plain.buffers(), strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("card", LAYERS)
def test_functional_call_takes_other_parameters(card):
    layer = make(card)
    with torch.no_grad():
        others = {n: p + 0.1 for n, p in layer.named_parameters()}
    other = copy.deepcopy(layer)
    other.load_state_dict({**layer.state_dict(), **others})
    x = data()
    torch.manual_seed(2)
    got = functional_call(layer, others, (x,))
    torch.manual_seed(2)
    assert torch.equal(got, other(x))


@pytest.mark.parametrize("card", LAYERS)
def test_vmap_is_a_loop(card):
    if card.key in STATEFUL:
        layer = make(card).eval()
    else:
        layer = make(card)
        if card.kind == "dropout":
            layer.eval()
    x = torch.stack([data(seed=s) for s in range(3)])
    torch.testing.assert_close(vmap(layer)(x), torch.stack([layer(one) for one in x]))


@pytest.mark.parametrize("card", LAYERS)
def test_gradients_of_each_sample_by_vmap(card):
    layer = make(card).eval()
    layer(data())
    parameters = {n: p.detach() for n, p in layer.named_parameters()}

    def loss(parameters, x):
        return functional_call(layer, parameters, (x.unsqueeze(0),)).square().sum()

    x = data()
    each = vmap(grad(loss), in_dims=(None, 0))(parameters, x)
    for name, got in each.items():
        for one, sample in zip(got, x, strict=True):
            torch.testing.assert_close(one, grad(loss)(parameters, sample)[name])


@pytest.mark.parametrize("card", cards("dropout"))
def test_vmap_draws_for_each_sample_when_told_to(card):
    x = data()[0].expand(4, 1, C, SIDE, SIDE)
    y = vmap(make(card, p=0.5).train(), randomness="different")(x)
    assert not torch.equal(y[0], y[1]) or not torch.equal(y[1], y[2]) or card.key == "drop_path"
    same = vmap(make(card, p=0.5).train(), randomness="same")(x)
    assert torch.equal(same[0], same[1])


@pytest.mark.parametrize("card", OURS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_half_precision_is_near_double(card, dtype):
    layer = make(card).eval()
    x = data().to(dtype)
    exact = slopes(layer, x.double())
    for a, b in zip(slopes(layer.to(dtype), x), exact, strict=True):
        assert a.dtype == dtype
        error = (a.double() - b).norm() / b.norm().clamp_min(1e-3)
        assert error < 0.05, "more than rounding"


@pytest.mark.parametrize("card", OURS)
def test_under_autocast(card):
    layer = make(card).float()
    with torch.autocast("cpu", torch.bfloat16):
        for x in (data().float(), data().bfloat16()):
            y = layer(x.requires_grad_())
            assert y.dtype in (torch.float32, torch.bfloat16)
            y.float().square().sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in layer.parameters())


@pytest.mark.parametrize("card", LAYERS)
def test_channels_last_gives_the_same_and_stays(card):
    training = card.kind != "dropout"  # draws fall in the order of memory
    want = slopes(make(card).train(training), data())
    again = make(card).train(training)
    x = data().to(memory_format=torch.channels_last)
    got = slopes(again, x)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b)
    # torch's own group_norm, layer_norm and softmax decide for themselves
    if card.origin == "own" and card.key not in {*LAST, "drop_connect"}:
        assert got[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("card", LAYERS)
def test_layers_can_be_made_without_memory(card):
    with torch.device("meta"):
        layer = make(card).float()
    assert all(t.is_meta for t in layer.state_dict().values())
    y = layer.train()(torch.empty(5, C, SIDE, SIDE, device="meta"))
    assert y.shape == (5, C, SIDE, SIDE)
    real = layer.to_empty(device="cpu")
    real.load_state_dict(make(card).float().state_dict())
    assert torch.equal(real.eval()(data().float()), make(card).float().eval()(data().float()))


@pytest.mark.parametrize(
    "card",
    [card for card in OURS if "device" in inspect.signature(card.values[0].load()).parameters],
)
def test_our_layers_with_parameters_take_device_and_dtype(card):
    names = inspect.signature(card.load()).parameters
    needed = {n: v for n, v in SIZES.items() if n in names}
    layer = card.load()(**needed, **NEEDED.get(card.key, {}), device="meta", dtype=torch.bfloat16)
    assert isinstance(layer, nn.Module)
    assert all(p.is_meta and p.dtype == torch.bfloat16 for p in layer.parameters())


@pytest.mark.parametrize("card", OURS)
def test_second_derivatives(card):
    layer = make(card).eval()
    layer(data())
    x = data()[:2, :2, :2].clone() if card.key in {*LAST, "drop_connect"} else data()[:2]
    x = (
        x[..., :SIDE]
        if card.key in {*LAST, "drop_connect", "layer_norm", "rms_norm"}
        else x[..., :2]
    )
    x = x.clone().requires_grad_()

    def function(x, *_):
        return layer(x)

    assert torch.autograd.gradgradcheck(
        function, (x, *layer.parameters()), atol=1e-4, fast_mode=True
    )
