"""LeCun, priors and LSUV: the numbers they promise, and what they refuse."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from brickyard.catalog import get
from brickyard.nn import Residual, spectral_norm, weight_norm
from brickyard.nn.init import kaiming_normal_, lecun_normal_, lecun_uniform_, lsuv_, prior_bias_


@pytest.mark.parametrize("fill", [lecun_normal_, lecun_uniform_])
@pytest.mark.parametrize("shape", [(300, 200), (100, 20, 3, 3)])
def test_lecun_has_variance_one_over_fan_in(fill, shape):
    w = fill(torch.empty(shape))
    fan_in = math.prod(shape[1:])
    assert w.var().item() == pytest.approx(1 / fan_in, rel=0.03)
    assert abs(w.mean().item()) < 4 / math.sqrt(fan_in * w.numel())
    if fill is lecun_uniform_:
        assert w.abs().max().item() <= math.sqrt(3 / fan_in)
        assert w.abs().max().item() > 0.99 * math.sqrt(3 / fan_in)
    else:
        same = kaiming_normal_(torch.empty(shape), nonlinearity="linear").std().item()
        assert w.std().item() == pytest.approx(same, rel=0.03)


def test_lecun_refuses_biases():
    with pytest.raises(ValueError, match=r"at least 2 axes.*got \(3,\); biases start at zero"):
        lecun_normal_(torch.empty(3))


def test_prior_makes_the_first_prediction_the_frequencies():
    counts = [700, 250, 50]
    head = nn.Linear(4, 3)
    nn.init.zeros_(head.weight)
    assert prior_bias_(head, counts).shape == (3,)
    share = torch.tensor(counts) / 1000
    torch.testing.assert_close(F.softmax(head(torch.randn(2, 4)), 1), share.expand(2, 3))
    y = torch.arange(3).repeat_interleave(torch.tensor(counts))
    entropy = -(share * share.log()).sum()
    loss = F.cross_entropy(head(torch.randn(1000, 4)), y)
    torch.testing.assert_close(loss, entropy)


@pytest.mark.parametrize("given", [0.01, [0.01], [99, 1], torch.tensor([0.99, 0.01])])
def test_prior_of_one_output(given):
    head = nn.Conv2d(2, 1, 1)
    prior_bias_(head, given)
    assert torch.sigmoid(head.bias).item() == pytest.approx(0.01, rel=1e-4)


def test_prior_of_many_answers():
    head = nn.Linear(2, 3)
    prior_bias_(head, [0.5, 0.1, 0.9], multilabel=True)
    assert torch.sigmoid(head.bias).tolist() == pytest.approx([0.5, 0.1, 0.9])
    prior_bias_(head, 0.01, multilabel=True)  # RetinaNet
    assert torch.sigmoid(head.bias).tolist() == pytest.approx([0.01] * 3)
    assert head.bias[0].item() == pytest.approx(-math.log(99))
    assert {o.name for o in get("prior_bias_").options} == {"class_frequencies", "multilabel"}


@pytest.mark.parametrize(("layer", "given", "message"), [
    (nn.Linear(2, 3, bias=False), [1, 1, 1], "needs a layer with a bias"),
    (nn.Linear(2, 3, device="meta"), [1, 1, 1], "bias that has values"),
    (nn.Linear(2, 3), [1, 1], "one frequency for each of 3 outputs, got 2"),
    (nn.Linear(2, 2), [1, 0], "must be positive.*never occurs"),
    (nn.Linear(2, 1), 1.0, r"within \(0, 1\)"),
    (nn.Linear(2, 2), [-1, -1], "must be positive"),
])  # fmt: skip
def test_prior_refuses(layer, given, message):
    with pytest.raises(ValueError, match=message):
        prior_bias_(layer, given)


def deep(activation, layers=30, width=64):
    rows = [m for _ in range(layers) for m in (nn.Linear(width, width), activation())]
    return nn.Sequential(*rows)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.SELU, nn.Softplus])
@pytest.mark.parametrize("seed", range(5))
def test_lsuv_gives_every_layer_variance_one(activation, seed):
    g = torch.Generator().manual_seed(seed)
    model = deep(activation, width=256)
    x = torch.randn(256, 256, generator=g)
    before = {}
    with torch.no_grad():
        h = x
        for i, layer in enumerate(model):
            h = layer(h)
            if i % 2 == 0:
                before[str(i)] = h.var(correction=0).item()
    done = lsuv_(model, x, generator=g)
    assert list(done) == [str(i) for i in range(0, 60, 2)]
    with torch.no_grad():
        for i, layer in enumerate(model):
            x = layer(x)
            if i % 2 == 0:
                assert x.var(correction=0).item() == pytest.approx(1, abs=0.05)
                assert done[str(i)].after == pytest.approx(x.var(correction=0).item(), rel=1e-4)
                assert done[str(i)].before == pytest.approx(before[str(i)], rel=1e-4)


def network():
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.5),
        Residual(nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.GELU())), nn.Flatten(),
        weight_norm(nn.Linear(6 * 16, 5)),
    )  # fmt: skip


def test_lsuv_leaves_modes_and_running_statistics_as_they_were():
    model = network().train()
    model[3].eval()
    kept = {n: b.clone() for n, b in model.named_buffers()}
    batch = torch.randn(32, 3, 4, 4)
    done = lsuv_(model, batch, generator=torch.Generator().manual_seed(0))
    assert list(done) == ["0", "4.branch.0", "6"]
    assert all(abs(v.after - 1) <= 0.05 for v in done.values())
    assert all(torch.equal(b, kept[n]) for n, b in model.named_buffers())
    assert [m.training for m in (model, model[1], model[3])] == [True, True, False]
    assert "4.branch.0" in str(done)
    assert not bool(model[0].bias.any())
    again = network()
    lsuv_(again, {"input": batch}, generator=torch.Generator().manual_seed(0))
    for a, b in zip(again.parameters(), model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_lsuv_scales_layers_that_are_called_by_keyword():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(8, 8)

        def forward(self, x):
            return self.layer(input=x)

    x = 3 * torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    assert abs(lsuv_(Named(), x)["layer"].after - 1) < 0.05


def test_lsuv_tol_and_max_iters():
    model, x = deep(nn.Tanh, 2), torch.randn(512, 64)
    loose = lsuv_(model, x, tol=0.9)
    assert all(v.scalings == 0 for v in loose.values()), "orthonormal is near enough"
    assert all(v.scalings == 1 for v in lsuv_(model, x, tol=1e-5).values())
    with pytest.raises(ValueError, match=r"after 3 scalings.*spectral_norm"):
        lsuv_(nn.Sequential(spectral_norm(nn.Linear(64, 64))), 9 * x, max_iters=3)
    assert {o.name for o in get("lsuv_").options} == {"tol", "max_iters"}


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.shared, self.unused = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x, y):
        return self.shared(torch.relu(self.shared(x))) + y


def test_lsuv_scales_shared_layers_at_their_first_call_and_names_the_unreached():
    model, x = Twice(), torch.randn(64, 4)
    kept = model.unused.weight.clone()
    done = lsuv_(model, (x, x))
    assert done.unreached == ["unused"]
    assert "not reached by the batch, left alone: unused" in str(done)
    assert torch.equal(model.unused.weight, kept)
    assert model.shared(x).var(correction=0).item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(("model", "batch", "options", "message"), [
    (nn.Linear(2, 2), torch.zeros(3, 2), {}, "does not vary on this batch"),
    (nn.Linear(2, 2), torch.full((3, 2), math.nan), {}, "is not finite"),
    (nn.Linear(2, 2, device="meta"), torch.zeros(3, 2), {}, r"weight is on the meta.*to_empty"),
    (nn.LazyLinear(2), torch.zeros(3, 2), {}, "lazy layer"),
    (nn.Linear(2, 2), torch.zeros(3, 2), {"tol": 0}, "tol must be positive"),
    (nn.Linear(2, 2), torch.zeros(3, 2), {"max_iters": 0}, "max_iters at least 1"),
])  # fmt: skip
def test_lsuv_refuses(model, batch, options, message):
    if isinstance(model, nn.Linear) and not isinstance(model, nn.LazyLinear) and not options:
        nn.init.zeros_(model.bias)
    with pytest.raises(ValueError, match=message):
        lsuv_(model, batch, **options)
