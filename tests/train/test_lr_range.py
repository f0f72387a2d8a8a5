"""The learning rate range test: what it suggests, and that nothing remembers it."""

import json
import math
import os
import random
import signal

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from brickyard import optim
from brickyard.cli import main
from brickyard.plots import plot_schedule
from brickyard.schedules import cosine, warmup
from brickyard.train import RangeTest, lr_range_test, resolve
from brickyard.train.data import TensorBatches
from brickyard.train.data.base import Split
from brickyard.train.lr_range import lr_range_of, suggest


class Odd(nn.Module):
    """Hold state of every kind: buffers, counters, tensors beside them, a generator."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.2))
        self.head = nn.Linear(8, 3)
        self.register_buffer("seen", torch.zeros(()), persistent=False)
        self.calls, self.log, self.beside = 0, [1.0], torch.zeros(3)
        self.noise = np.random.default_rng(3)
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)

    def forward(self, x):
        self.calls += 1
        self.log.append(float(x.sum()))
        self.seen = self.seen + 1
        self.beside += float(self.noise.random()) + random.random()
        return self.head(self.body(x)) + self.beside * 1e-3


class Numbered(torch.utils.data.Dataset):
    def __init__(self):
        self.rng, self.x = np.random.default_rng(0), torch.randn(40, 4)

    def __len__(self):
        return 40

    def __getitem__(self, i):
        return self.x[i] + 0.01 * float(self.rng.random()), i % 3


def plain(value):
    """Return everything inside as comparable plain data, tensors and generators as bytes."""
    if isinstance(value, torch.Tensor):
        return ("tensor", value.dtype, tuple(value.shape), value.detach().numpy().tobytes())
    if isinstance(value, dict):
        return {str(plain(k))[:40]: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.random.Generator):
        return str(value.bit_generator.state)
    if isinstance(value, np.ndarray):
        return value.tobytes()
    return value if isinstance(value, int | float | str | bool | type(None)) else repr(type(value))


def picture(model, optimizer, loader):
    modules = [(m.training, dict(m._buffers), {k: v for k, v in vars(m).items()
                if k in ("calls", "log", "beside", "noise")}) for m in model.modules()]  # fmt: skip
    params = [(p, p.grad, p.requires_grad) for p in model.parameters()]
    generator = getattr(loader, "generator", None)
    dataset = getattr(loader, "dataset", None)
    return plain([
        modules, params, optimizer.state_dict(), getattr(optimizer, "steps", 0),
        torch.get_rng_state(), np.random.get_state(), random.getstate(),
        None if generator is None else generator.get_state(), getattr(dataset, "rng", None),
    ])  # fmt: skip


OPTIMIZERS = {
    "torch sgd": lambda m: torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9),
    "torch adam": lambda m: torch.optim.Adam(m.parameters(), lr=torch.tensor(0.01)),
    "ours": lambda m: optim.AdamW(m.parameters(), lr=0.01),
    "groups": lambda m: optim.SGD([{"params": m.body.parameters(), "lr": 0.1},
                                   {"params": m.head.parameters(), "lr": 0.4}], momentum=0.9),
    "lookahead": lambda m: optim.Lookahead(optim.Adam(m.parameters(), lr=0.01), k=3),
    "closure": lambda m: torch.optim.LBFGS(m.head.parameters(), lr=0.1, max_iter=2),
}  # fmt: skip


def setting(name, trained):
    torch.manual_seed(0)
    random.seed(0)
    model = Odd()
    optimizer = OPTIMIZERS[name](model)
    if name == "groups":
        torch.optim.lr_scheduler.StepLR(optimizer, 5)
    loader = DataLoader(Numbered(), batch_size=8, shuffle=True,
                        generator=torch.Generator().manual_seed(7))  # fmt: skip
    if trained:
        train(model, optimizer, loader)
    model.body[1].eval()
    return model, optimizer, loader


def train(model, optimizer, loader, epochs=1):
    found = []
    for _ in range(epochs):
        for x, y in loader:

            def closure(x=x, y=y):
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(x), y)
                loss.backward()
                return loss

            found.append(optimizer.step(closure).item())
    return found


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_26_the_lr_finder_leaves_everything_as_it_was(name, trained):
    model, optimizer, loader = setting(name, trained)
    before = picture(model, optimizer, loader)
    held = [p.data_ptr() for p in model.parameters()], optimizer.param_groups[0]
    found = lr_range_test(model, nn.CrossEntropyLoss(), optimizer, loader, steps=30)
    assert len(found.losses) > 5
    assert picture(model, optimizer, loader) == before
    assert held[0] == [p.data_ptr() for p in model.parameters()], "the very same tensors"
    assert held[1] is optimizer.param_groups[0]
    twin = setting(name, trained)
    twin_losses = train(*twin, epochs=2)  # random numbers start where `setting` left them
    again = setting(name, trained)
    lr_range_test(again[0], nn.CrossEntropyLoss(), again[1], again[2], steps=30)
    assert train(*again, epochs=2) == twin_losses, "training goes on as if nothing had been"


@pytest.mark.parametrize("name", ["ours", "torch sgd"])
@pytest.mark.parametrize("how", ["error", "interrupt", "signal"])
def test_26_also_after_an_error_or_an_interrupt(name, how):
    model, optimizer, loader = setting(name, True)
    before, calls = picture(model, optimizer, loader), []
    # Started in the background, a process ignores Ctrl-C; here it must hear it.
    old = signal.signal(signal.SIGINT, signal.default_int_handler)

    def loss(output, target):
        calls.append(1)
        if len(calls) == 7:
            if how == "signal":
                os.kill(os.getpid(), signal.SIGINT)
            raise {"error": RuntimeError, "interrupt": KeyboardInterrupt}.get(how, OSError)("stop")
        return nn.functional.cross_entropy(output, target)

    try:
        with pytest.raises((RuntimeError, KeyboardInterrupt)):
            lr_range_test(model, loss, optimizer, loader)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, old)
    assert len(calls) == 7
    assert picture(model, optimizer, loader) == before


def test_the_same_test_twice_gives_the_same_numbers():
    model, optimizer, loader = setting("ours", True)
    a, b = (lr_range_test(model, nn.CrossEntropyLoss(), optimizer, loader) for _ in range(2))
    assert a == b


def quadratic(curvature=2.0):
    """Return a net whose loss is known: w falls by the factor 1 - rate * curvature a step."""
    net = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        net.weight.fill_(1.0)
    data = [(torch.ones(1, 1), torch.zeros(1, 1))]
    return net, lambda out, y: (curvature / 2 * (out - y) ** 2).mean(), data


@pytest.mark.parametrize("kind", ["exponential", "linear"])
def test_losses_rates_and_smoothing_are_their_formulas(kind):
    net, loss, data = quadratic()
    sgd = torch.optim.SGD(net.parameters(), lr=0.3)
    found = lr_range_test(net, loss, sgd, data, 1e-3, 30.0, 50, kind, smooth=0.8, stop=2.0)
    grow = np.geomspace if kind == "exponential" else np.linspace
    rates, w, mean = grow(1e-3, 30.0, 50), 1.0, 0.0
    np.testing.assert_allclose(found.rates, rates[: len(found.rates)])
    for i, rate in enumerate(found.rates):
        assert found.losses[i] == pytest.approx(w**2, rel=1e-4)
        mean = 0.8 * mean + 0.2 * w**2
        assert found.smoothed[i] == pytest.approx(mean / (1 - 0.8 ** (i + 1)), rel=1e-4)
        w *= 1 - 2 * rate
    assert found.stopped == "diverged"
    assert found.smoothed[-1] > 2 * min(found.smoothed) >= found.smoothed[-2]
    assert sgd.param_groups[0]["lr"] == 0.3
    rough = lr_range_test(net, loss, sgd, data, 1e-3, 3.0, 50, kind, smooth=0.0, stop=None)
    assert rough.smoothed == rough.losses
    assert len(rough.rates) == 50
    assert rough.stopped == "all of them"


def test_groups_keep_their_proportions():
    model, optimizer, loader = setting("groups", False)
    seen = []
    step = optimizer.step
    optimizer.step = lambda *a: (seen.append([g["lr"] for g in optimizer.param_groups]), step(*a))[
        1
    ]
    lr_range_test(model, nn.CrossEntropyLoss(), optimizer, loader, 1e-4, 1e-1, steps=4, stop=None)
    np.testing.assert_allclose([b for _, b in seen], [1e-4, 1e-3, 1e-2, 1e-1])
    np.testing.assert_allclose([a / b for a, b in seen], 0.25)


def test_suggestions_of_a_known_curve():
    rates = np.geomspace(1e-6, 1, 61)
    logs = np.log10(rates)
    falls = 2 - 1 / (1 + np.exp(-4 * (logs + 3)))  # steepest and half way at 1e-3
    curve = np.where(logs > -1, falls[50] + (logs + 1) ** 2, falls)
    found = suggest(rates, curve)
    assert found["steepest"] == pytest.approx(1e-3, rel=0.01)
    assert found["valley"] == pytest.approx(1e-3, rel=0.3)
    assert found["minimum/10"] == pytest.approx(1e-2, rel=0.01)
    noisy = curve + 1e-3 * np.random.default_rng(0).standard_normal(61)
    assert suggest(rates, noisy)["valley"] == pytest.approx(1e-3, rel=0.5)
    rising = suggest(rates, np.linspace(1, 2, 61))
    assert set(rising.values()) == {None}
    table = RangeTest((1.0, 2.0), (1.0, 2.0), (1.0, 2.0), suggestions=rising).table()
    assert "the loss never fell" in table


def test_the_picture_has_every_suggestion(tmp_path):
    model, optimizer, loader = setting("torch sgd", False)
    found = lr_range_test(model, nn.CrossEntropyLoss(), optimizer, loader)
    figure = found.plot()
    shown = [label for label in figure.labels if "," in label]
    assert len(shown) == sum(r is not None for r in found.suggestions.values())
    panel = figure.panels[0]
    for curve in panel.curves[2:]:
        places = [x for x, y in zip(panel.at, curve.y, strict=True) if y is not None]
        assert len(places) == 2
        assert places[0] == places[1] in [r for r in found.suggestions.values() if r]
    text = found.plot(tmp_path / "range.svg").read_text()
    assert "Learning rate range test" in text
    assert json.loads(json.dumps(found.to_dict()))["rates"] == list(found.rates)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"low": 0.0}, "0 < low < high; got low=0.0"), ({"low": 2.0, "high": 1.0}, "low < high"),
        ({"high": math.inf}, "low < high"), ({"low": -1.0, "kind": "linear"}, "0 <= low < high"),
        ({"steps": 1}, "whole number from 2; got 1"), ({"kind": "log"}, "or 'linear'"),
        ({"smooth": 1.0}, r"smooth must lie in \[0, 1\)"), ({"stop": 1.0}, "more than 1; got 1.0"),
        ({"batches": []}, "no batches"), ({"loss": lambda o, y: o.sum() * math.nan},
                                          "not finite at the first step"),
    ],
)  # fmt: skip
def test_refuses(change, message):
    net, loss, data = quadratic()
    given = {"loss": loss, "batches": data, **change}
    sgd = torch.optim.SGD(net.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=message):
        lr_range_test(net, optimizer=sgd, **given)
    with pytest.raises(TypeError, match="would be left exhausted"):
        lr_range_test(net, loss, sgd, iter(data))


def test_our_batches_and_pairs_of_tensors_serve():
    x, y = torch.randn(40, 4), torch.arange(40) % 3
    for batches in (
        TensorBatches(Split(x, y), 8, shuffle=True, seed=0),
        DataLoader(TensorDataset(x, y), 8, num_workers=1, persistent_workers=True),
    ):
        model, optimizer, _ = setting("ours", False)
        found = lr_range_test(model, nn.CrossEntropyLoss(), optimizer, batches, steps=12)
        assert len(found.losses) == 12


def test_recipes_of_every_part(tmp_path, capsys):
    recipe = {
        "data": "digits", "model": {"name": "mlp", "hidden": [16]}, "loss": "cross_entropy",
        "schedule": [{"name": "warmup", "steps": "10%"}, "cosine"], "accumulate": 2,
        "clipping": "clip_by_global_norm", "augmentation": ["manifold_mixup"],
        "metrics": ["accuracy"], "budget": "2ep",
    }  # fmt: skip
    found = lr_range_of(resolve(recipe), high=100.0, steps=40)
    assert found.suggestions["steepest"] is not None, "a warmup from 0 must not hold the rate at 0"
    file = tmp_path / "try.yaml"
    file.write_text(json.dumps(recipe))
    before = sorted(p.name for p in tmp_path.iterdir())
    assert main(["lr-range", str(file), "accumulate=1", "--json", "--steps", "20"]) == 0
    out = json.loads(capsys.readouterr().out)
    assert 10 < len(out["rates"]) <= 20
    assert before == sorted(p.name for p in tmp_path.iterdir()), "no run folder"
    picture = tmp_path / "range.svg"
    linear = ["--linear", "--low", "0.001", "--high", "0.1", "--steps", "12"]
    assert main(["lr-range", str(file), *linear, "--plot", str(picture)]) == 0
    out = capsys.readouterr().out
    assert "steepest slope" in out
    assert str(picture) in out
    assert picture.exists()
    assert main(["lr-range", str(file), "--steps", "15", "--plot"]) == 0
    assert "Loss by learning rate" in capsys.readouterr().out
    for bad, message in ((["--plot", "x.gif"], "file .svg or .png"), (["--steps", "1"], "from 2"),
                         (["--json", "--plot"], "give --plot a file")):  # fmt: skip
        assert main(["lr-range", str(file), *bad]) == 2
        assert message in capsys.readouterr().err


def test_a_schedule_of_ones_own_is_drawn(tmp_path):
    whole = warmup("10%") >> cosine()
    panel = plot_schedule(whole, 100).panels[0]
    assert list(panel.curves[0].y) == pytest.approx(whole.resolve(100).values(100), abs=1e-3)
    assert len(plot_schedule(whole, 50_000).panels[0].at) <= 1001
    assert plot_schedule(warmup("1ep") >> cosine(), 40, 10, tmp_path / "s.svg").exists()
    with pytest.raises(ValueError, match="number of steps from 2; got 1"):
        plot_schedule(whole, 1)
