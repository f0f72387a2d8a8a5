"""The ladder: healthy models stand on every rung, each fault breaks its own, nothing is changed."""

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from brickyard.cli import main
from brickyard.doctor import preflight

CLASSES = 5


def images(count=16):
    g = torch.Generator().manual_seed(1)
    return torch.randn(count, 1, 8, 8, generator=g), torch.arange(count) % CLASSES


def mlp(*last):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 48), nn.ReLU(), nn.Dropout(0.3), nn.Linear(48, 48), nn.ReLU(),
        nn.Linear(48, CLASSES), *last,
    )  # fmt: skip


def cnn():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8),
        nn.ReLU(), nn.Flatten(), nn.Linear(128, CLASSES),
    )  # fmt: skip


class Tokens(nn.Module):
    """A small decoder; ``causal`` is the mask, ``axis`` what the softmax runs over."""

    def __init__(self, causal=True):
        super().__init__()
        torch.manual_seed(0)
        self.causal = causal
        self.embed = nn.Embedding(11, 24)
        self.place = nn.Embedding(12, 24)
        self.layer = nn.TransformerEncoderLayer(24, 2, 48, 0.0, batch_first=True)
        self.head = nn.Linear(24, 11)

    def forward(self, x):
        n = x.shape[1]
        mask = torch.full((n, n), float("-inf")).triu(1) if self.causal else None
        h = self.embed(x) + self.place(torch.arange(n))
        return self.head(self.layer(h, src_mask=mask))


def text():
    g = torch.Generator().manual_seed(2)
    ids = torch.randint(0, 11, (8, 13), generator=g)
    return ids[:, :-1], ids[:, 1:]


def token_loss(output, y):
    return F.cross_entropy(output.flatten(0, 1), y.flatten())


def broken(model, loss, batch, **options):
    ladder = preflight(model, loss, batch, **options)
    return [rung.name for rung in ladder.rungs if rung.passed is False], ladder


@pytest.mark.parametrize(
    ("model", "loss", "batch"),
    [
        (mlp, F.cross_entropy, images),
        (cnn, nn.CrossEntropyLoss(label_smoothing=0.02), images),
        (Tokens, token_loss, text),
        (lambda: nn.Sequential(nn.Linear(3, 32), nn.Tanh(), nn.Linear(32, 1)), nn.MSELoss(),
         lambda: (torch.linspace(-2, 2, 48).view(16, 3), torch.linspace(-1, 1, 16).view(16, 1))),
    ],
    ids=["mlp", "cnn with batch norm", "decoder", "regression"],
)  # fmt: skip
def test_healthy_models_stand(model, loss, batch):
    names, ladder = broken(model(), loss, batch())
    assert not names
    assert ladder.holds
    assert "Every rung holds." in str(ladder)


class Detached(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = mlp()[:4], nn.Linear(48, CLASSES)

    def forward(self, x):
        return self.last(self.first(x).detach())


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.spare = mlp(), nn.Linear(3, 3)

    def forward(self, x):
        return self.body(x)


class Blind(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = mlp()
        self.bias = nn.Parameter(torch.zeros(16, CLASSES))

    def forward(self, x):
        return self.body(x * 0) + self.bias


def uphill(output, y):
    """Cross-entropy whose gradient points the other way."""
    loss = F.cross_entropy(output, y)
    return 2 * loss.detach() - loss


def deep(scale):
    torch.manual_seed(0)
    layers = [nn.Linear(64, 64) for _ in range(8)]
    for layer in layers:
        nn.init.normal_(layer.weight, std=scale)
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(64, CLASSES))


@pytest.mark.parametrize(
    ("model", "loss", "batch", "rung"),
    [
        (mlp, F.cross_entropy, lambda: (images()[0] * 200, images()[1]), "knowing nothing"),
        (Detached, F.cross_entropy, images, "reaches every parameter"),
        (Unused, F.cross_entropy, images, "reaches every parameter"),
        (mlp, lambda o, y: F.cross_entropy(o.detach(), y), images, "reaches every parameter"),
        (lambda: mlp(nn.Softmax(0)), lambda o, y: F.nll_loss(o.log(), y), images,
         "do not see each other"),
        (lambda: Tokens(causal=False), token_loss, text, "later tokens are hidden"),
        (mlp, lambda o, y: F.cross_entropy(o, torch.zeros_like(y)), images, "other targets"),
        (lambda: mlp(nn.Softmax(1)), F.cross_entropy, images, "learned by heart"),
        (Blind, F.cross_entropy, images, "without its inputs"),
        (lambda: deep(0.005), F.cross_entropy, images, "fade nor explode"),
        (lambda: deep(2.0), F.cross_entropy, images, "fade nor explode"),
        (mlp, uphill, images, "a learning rate"),
        (mlp, F.cross_entropy, lambda: (images()[0] / 0, images()[1]), "knowing nothing"),
        (mlp, F.mse_loss, images, "knowing nothing"),
    ],
    ids=["inputs not scaled", "detached", "unused layer", "detached loss", "softmax over batch",
         "no causal mask", "loss ignores targets", "softmax twice", "blind", "fades", "explodes",
         "no way down", "inputs not finite", "shapes do not fit"],
)  # fmt: skip
def test_each_fault_breaks_its_rung(model, loss, batch, rung):
    names, ladder = broken(model(), loss, batch(), steps=120)
    assert any(rung in name for name in names), ladder
    assert names[0] in str(ladder)


def test_nothing_is_changed():
    model, (x, y) = cnn().train(), images()
    model[0].eval()
    loss = nn.CrossEntropyLoss()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    modes = [m.training for m in model.modules()]
    given = x.clone(), y.clone()
    drawn = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    preflight(model, loss, (x, y), steps=5)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert [m.training for m in model.modules()] == modes
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks for m in model.modules())
    assert torch.equal(x, given[0])
    assert torch.equal(y, given[1])
    assert torch.equal(torch.get_rng_state(), drawn[0])
    assert (np.random.get_state()[1] == drawn[1]).all()
    assert random.getstate() == drawn[2]


def test_fewer_steps_are_taken():
    ladder = preflight(mlp(), F.cross_entropy, images(), steps=3)
    found = next(rung for rung in ladder.rungs if "learned by heart" in rung.name)
    assert "in 3 steps" in found.seen
    short = preflight(mlp(), F.cross_entropy, images(), seconds=1e-9)
    found = next(rung for rung in short.rungs if "learned by heart" in rung.name)
    assert "in 1 steps" in found.seen


@pytest.mark.parametrize(
    ("batch", "options"), [(None, {}), ((1, 2, 3), {}), ((1, 2), {"steps": 0})]
)
def test_bad_calls_are_told(batch, options):
    with pytest.raises(ValueError, match="got"):
        preflight(mlp(), F.cross_entropy, batch, **options)


def test_recipes_are_asked_by_the_command(tmp_path, capsys):
    path = tmp_path / "recipe.yaml"
    path.write_text("{data: digits, model: {name: mlp, hidden: 32}, loss: cross_entropy}")
    assert main(["doctor", "preflight", str(path)]) == 0
    assert "Every rung holds." in capsys.readouterr().out
    assert main(["doctor", "preflight", str(path), "--samples", "1"]) == 2
    assert not list(tmp_path.glob("runs*"))
