"""The feature network stays as it was; only the image gets gradients."""

import pytest
import torch
from torch import nn

from brickyard.losses import PerceptualLoss


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(3, 2, 3)
    )


def images():
    return torch.rand(2, 1, 8, 8), torch.rand(2, 1, 8, 8)


def test_the_network_is_frozen_and_in_eval_mode():
    features = network()
    loss = PerceptualLoss(features, ["2", "4"])
    before = {k: v.clone() for k, v in loss.features.state_dict().items()}
    x, y = images()
    x.requires_grad_()
    first = loss.train()(x, y)
    first.backward()
    assert x.grad.abs().sum() > 0
    assert not any(m.training for m in loss.features.modules())
    assert all(p.grad is None and not p.requires_grad for p in loss.features.parameters())
    assert all(torch.equal(v, before[k]) for k, v in loss.features.state_dict().items())
    assert torch.equal(first, loss(x, y))  # no dropout, no batch statistics


def test_the_given_network_is_left_alone():
    features = network().train()
    loss = PerceptualLoss(features, ["2"])
    x, y = images()
    before = loss(x, y)
    assert features.training
    assert all(p.requires_grad for p in features.parameters())
    assert not features[2]._forward_hooks
    with torch.no_grad():
        for p in features.parameters():
            p.add_(1.0)
    assert torch.equal(loss(x, y), before)


def test_layers_are_weighed_and_summed():
    x, y = images()
    one, two = (PerceptualLoss(network(), [name])(x, y) for name in ("0", "4"))
    both = PerceptualLoss(network(), ["0", "4"], weights=[2.0, 0.5])(x, y)
    torch.testing.assert_close(both, 2 * one + 0.5 * two)


def test_distances_by_hand():
    x, y = images()
    conv = network()[0]
    a, b = conv(x), conv(y)
    wanted = {
        "mse": (a - b).square().mean(),
        "mae": (a - b).abs().mean(),
        "gram": (gram(a) - gram(b)).square().mean(),
    }
    for distance, right in wanted.items():
        torch.testing.assert_close(PerceptualLoss(network(), ["0"], distance=distance)(x, y), right)


def gram(f):
    return torch.stack([g.flatten(1) @ g.flatten(1).T for g in f]) / f[0].numel()


def test_gradients_reach_the_input_alone():
    loss = PerceptualLoss(network().double(), ["4"], distance="gram")
    x = torch.rand(1, 1, 5, 5, dtype=torch.float64, requires_grad=True)
    y = torch.rand(1, 1, 5, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: loss(x, y), x)
    assert torch.autograd.grad(loss(x, y), y, allow_unused=True)[0] is None


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.act, self.unused = nn.Tanh(), nn.Tanh()

    def forward(self, x):
        return self.act(self.act(x))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PerceptualLoss(network(), ["7"]), "no layer '7'"),
        (lambda: PerceptualLoss(network(), []), "list of different names"),
        (lambda: PerceptualLoss(network(), "2"), "list of different names"),
        (lambda: PerceptualLoss(network(), ["2", "2"]), "list of different names"),
        (lambda: PerceptualLoss(network(), ["2"], weights=[1.0, 2.0]), "each of the 1 layers"),
        (lambda: PerceptualLoss(network(), ["2"], distance="cosine"), "mse, mae, gram"),
        (lambda: PerceptualLoss(Twice(), ["act"])(*images()), "ran 2 times"),
        (lambda: PerceptualLoss(Twice(), ["unused"])(*images()), "ran 0 times"),
        (lambda: PerceptualLoss(network(), ["2"])(torch.zeros(1, 1, 8, 8), torch.zeros(1, 8, 8)),
         "same shape"),
    ],
)  # fmt: skip
def test_mistakes_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
