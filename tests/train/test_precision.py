"""Precision: formats, the loss scale, its order, and what cannot stand beside it."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from brickyard.clip import clip_by_global_norm
from brickyard.errors import RecipeError
from brickyard.optim import SGD, AdamW
from brickyard.regularize import FGSM
from brickyard.runs import RunFolder
from brickyard.train import resolve, resume, train
from brickyard.train.data import Split, TensorBatches
from brickyard.train.loop import Loop, Parts
from brickyard.train.precision import BF16, FP16, FP32, BF16Weights, FP16Weights, Precision
from brickyard.train.scaling import LossScaler, ScaleLost, ScaleOptions
from brickyard.train.setup import build_setup

CPU = torch.device("cpu")
BASE = {"data": "digits", "model": {"name": "mlp", "hidden": 16}, "loss": "cross_entropy",
        "metrics": ["accuracy"], "budget": 30, "device": "cpu", "threads": 1,
        "log_every": 1, "eval_batch_size": 512}  # fmt: skip


def _net(seed=3):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 3))


def _parts(model, optimizer, **changes):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(64, 6, generator=g)
    train_batches = TensorBatches(Split(x, (x[:, 0] > 0).long()), 16, shuffle=True, seed=5)
    settings = {"model": model, "loss": F.cross_entropy, "train": train_batches, "total": 8,
                "optimizer": optimizer, "log_every": 1}  # fmt: skip
    return Parts(**{**settings, **changes})


class Ear:
    def __init__(self):
        self.rows = []

    def logged(self, loop, values):
        self.rows.append(values)

    def evaluated(self, loop, values, best):
        pass

    def boundary(self, loop):
        pass


def test_the_underflow_example_in_numbers():
    """1e-3 ... 9e-9: float16 loses the last one; a scale of 2^15 brings it back without overflow.

    4e-8 lies above half of the smallest subnormal number (5.96e-8) and is rounded up to it.
    """
    given = np.array([1e-3, 2e-5, 5e-7, 4e-8, 9e-9])
    plain = given.astype(np.float16)
    lost = (given != 0) & (plain == 0)
    assert lost.tolist() == [False, False, False, False, True]
    assert float(plain[3]) == pytest.approx(5.96e-8, rel=1e-3), "half as large again"

    scale = 2.0**15
    assert not (given * scale > 65504).any()
    back = (given * scale).astype(np.float16).astype(np.float32) / scale
    assert (back != 0).all()
    np.testing.assert_allclose(back, given, rtol=1e-3)
    assert torch.tensor(65504.0).half().isfinite()
    assert torch.tensor(65520.0).half().isinf()

    # The same through a backward pass in float16 and our scaler.
    def gradient(scaler):
        w = nn.Parameter(torch.ones(5, dtype=torch.float16))
        x = torch.from_numpy(given).float()
        loss = (w.float() * x).sum()
        (loss if scaler is None else scaler.scale(loss)).backward()
        return w.grad.float() / (1.0 if scaler is None else scaler.value)

    np.testing.assert_array_equal(gradient(None).numpy(), plain.astype(np.float32))
    scaled = gradient(LossScaler(ScaleOptions(init_scale=scale), CPU))
    np.testing.assert_allclose(scaled.numpy(), given, rtol=1e-3)


def test_a_scale_grows_falls_and_counts():
    w = nn.Parameter(torch.ones(2))
    optimizer = SGD([w], lr=0.1)
    scaler = LossScaler(ScaleOptions(16.0, 4.0, 0.25, 2, 1.0), CPU)

    def step(factor):
        optimizer.zero_grad()
        scaler.scale((w * factor).sum()).backward()
        return scaler.step(optimizer, [w], None)[0]

    assert [step(1.0), scaler.value, step(1.0), scaler.value] == [True, 16.0, True, 64.0]
    before = w.detach().clone()
    assert not step(math.inf)
    assert torch.equal(w.detach(), before)
    assert optimizer.state[w] == {} or "momentum_buffer" not in optimizer.state[w]
    assert scaler.measured() == {"loss_scale": 16.0, "scale_growths": 1, "scale_backoffs": 1}
    assert step(1.0)
    other = LossScaler(ScaleOptions(16.0, 4.0, 0.25, 2, 1.0), CPU)
    other.load_state_dict(copy.deepcopy(scaler.state_dict()))
    assert step(1.0)
    assert scaler.value == 64.0, "two good steps in a row"
    optimizer.zero_grad()
    other.scale((w * 1.0).sum()).backward()
    other.step(optimizer, [w], None)
    assert other.measured() == scaler.measured(), "the place between two growths is kept"
    assert [step(math.nan), step(math.nan), step(math.nan), scaler.value] == [False] * 3 + [1.0]
    with pytest.raises(ScaleLost, match=r"even with a loss scale of 1 \(min_scale is 1\)"):
        step(math.nan)


@pytest.mark.parametrize(
    ("options", "says"),
    [({"init_scale": 0.0}, "init_scale must be above 0; got 0.0"),
     ({"growth_factor": 1.0}, "growth_factor must be above 1; got 1.0"),
     ({"backoff_factor": 1.0}, "backoff_factor must lie between 0 and 1; got 1.0"),
     ({"growth_interval": 0}, "growth_interval must be 1 or more; got 0"),
     ({"min_scale": 1e9}, "min_scale must be above 0 and at most init_scale; got 1000000000.0")],
)  # fmt: skip
@pytest.mark.parametrize("kind", [FP16, FP16Weights])
def test_scale_options_are_checked(kind, options, says):
    with pytest.raises(ValueError, match=says):
        kind(**options)


@pytest.mark.parametrize("kind", [FP16, FP16Weights])
def test_every_scale_option_reaches_the_scaler(kind):
    made = kind(init_scale=8.0, growth_factor=3.0, backoff_factor=0.25, growth_interval=7,
                min_scale=0.5).scaler(CPU)  # fmt: skip
    state = made.inner.state_dict()
    assert (state["scale"], state["growth_factor"], state["backoff_factor"]) == (8.0, 3.0, 0.25)
    assert (state["growth_interval"], made.options.min_scale) == (7, 0.5)


@pytest.mark.parametrize("clip", [None, 0.05])
@pytest.mark.parametrize("make", [lambda p: AdamW(p, lr=1e-2, telemetry=True),
                                  lambda p: torch.optim.AdamW(p, lr=1e-2),
                                  lambda p: torch.optim.AdamW(p, lr=1e-2, fused=True)])  # fmt: skip
def test_20_a_scale_changes_nothing(make, clip):
    """Scaled by a power of two, unscaled in the optimizer's pass or before: the same bits."""
    rows, weights, told = [], [], []
    for scale in (None, 2.0**10):
        model, ear = _net(), Ear()
        scaler = None if scale is None else LossScaler(ScaleOptions(scale), CPU)
        clipping = None if clip is None else (lambda p: clip_by_global_norm(p, clip))
        parts = _parts(model, make(model.parameters()), scaler=scaler, clip=clipping)
        loop = Loop(parts, [ear])
        loop.run()
        rows.append([(row["loss"], row["grad_norm"]) for row in ear.rows])
        weights.append(list(model.state_dict().values()))
        if isinstance(parts.optimizer, AdamW):
            told.append(parts.optimizer.norms())
    for plain, scaled in zip(*weights, strict=True):
        torch.testing.assert_close(scaled, plain, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(rows[1], rows[0], rtol=1e-5)
    if told:
        for name, row in told[0].items():
            assert told[1][name] == pytest.approx(row, rel=1e-4), name


def test_18_gradients_are_unscaled_before_they_are_clipped():
    """Clipped while scaled, every gradient would be 65536 times too small."""
    seen = []
    model = _net()

    def clip(params):
        norm = clip_by_global_norm(params, 1e-3)
        seen.append(float(norm))
        return norm

    scaler = LossScaler(ScaleOptions(2.0**16), CPU)
    parts = _parts(model, torch.optim.SGD(model.parameters(), lr=1.0), scaler=scaler, clip=clip,
                   total=1)  # fmt: skip
    before = [p.detach().clone() for p in model.parameters()]
    ear = Ear()
    Loop(parts, [ear]).run()
    moved = math.sqrt(sum(float((p - b).detach().square().sum())
                          for p, b in zip(model.parameters(), before, strict=True)))  # fmt: skip
    assert moved == pytest.approx(1e-3, rel=1e-3)
    assert seen[0] < 10
    assert ear.rows[0]["grad_norm"] == pytest.approx(seen[0]), "of unscaled gradients"


@pytest.mark.parametrize("clip", [None, lambda p: clip_by_global_norm(p, 1.0, "error")])
def test_an_overflow_leaves_its_step_out_and_nothing_advances(clip):
    from brickyard.schedules import linear

    model = _net()
    optimizer = AdamW(model.parameters(), lr=1e-2)
    schedule = linear(8).resolve()
    scaler = LossScaler(ScaleOptions(2.0**40), CPU)
    parts = _parts(model, optimizer, scaler=scaler, clip=clip, scheduler=schedule.bind(optimizer),
                   autocast=FP16().autocast(CPU))  # fmt: skip
    ear = Ear()
    loop = Loop(parts, [ear])
    loop.run()
    assert scaler.backoffs > 0
    assert loop.state.skipped == scaler.backoffs
    assert loop.state.step == optimizer.steps == 8, "the budget counts steps that were taken"
    assert loop.state.epoch * 4 + loop.state.batch == 8 + scaler.backoffs
    rates = [row["lr"] for row in ear.rows]
    assert rates == pytest.approx([1e-2 * schedule(i) for i in range(1, 9)]), "no step is passed"
    assert ear.rows[-1]["scale_backoffs"] == ear.rows[-1]["skipped_steps"] == scaler.backoffs


def test_attacks_survive_float16():
    """The attack's gradient is scaled too: without, the sign of nothing moves nothing."""
    model = _net()
    seen = []

    class Watch(FGSM):
        def __call__(self, model, x, *given, **named):
            moved = super().__call__(model, x, *given, **named)
            seen.append(float((moved - x).abs().mean()))
            return moved

    def tiny(output, y):
        return F.cross_entropy(output, y) * 1e-8

    for scaler in (None, LossScaler(ScaleOptions(2.0**20), CPU)):
        parts = _parts(model, torch.optim.SGD(model.parameters(), lr=0.0), scaler=scaler, loss=tiny,
                       adversary=Watch(eps=0.1).batch_loss, total=1,
                       autocast=FP16().autocast(CPU))  # fmt: skip
        Loop(parts).run()
    assert seen[0] < 0.05
    assert seen[1] == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize(("kind", "dtype"), [(BF16, torch.bfloat16), (FP16, torch.float16)])
def test_autocast_computes_in_half_precision(kind, dtype):
    model, made = _net(), kind()
    made.store(model)
    with made.autocast(CPU):
        assert model(torch.zeros(2, 6)).dtype == dtype
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    with FP32().autocast(CPU):
        assert model(torch.zeros(2, 6)).dtype == torch.float32


@pytest.mark.parametrize("kind", [BF16Weights, FP16Weights])
def test_master_weights_take_steps_that_half_precision_loses(kind):
    made = kind()
    model = nn.Sequential(nn.Linear(2, 1, bias=False), nn.BatchNorm1d(1))
    with torch.no_grad():
        model[0].weight.fill_(1.0)
    made.store(model)
    assert model[0].weight.dtype == made.weights
    assert {t.dtype for t in model[1].state_dict().values()} == {torch.float32, torch.int64}
    optimizer = SGD(model.parameters(), lr=1e-4)
    made.settle(optimizer)
    for _ in range(100):
        optimizer.zero_grad()
        model[0].weight.grad = torch.ones_like(model[0].weight)
        optimizer.step()
    assert float(model[0].weight.detach()[0, 0]) == pytest.approx(0.99, abs=4e-3)
    assert float(optimizer.state[model[0].weight]["master"][0, 0]) == pytest.approx(0.99, abs=1e-5)
    with pytest.raises(ValueError, match="AdamW steps the weights themselves"):
        made.settle(torch.optim.AdamW(model.parameters()))


def test_without_masters_small_steps_are_lost():
    made = BF16Weights(master_weights=False)
    w = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        w.weight.fill_(1.0)
    made.store(w)
    optimizer = SGD(w.parameters(), lr=1e-4)
    made.settle(optimizer)
    for _ in range(100):
        w.weight.grad = torch.ones_like(w.weight)
        optimizer.step()
    assert float(w.weight.detach()) == 1.0


@pytest.mark.parametrize("precision", ["bf16", "fp16", "bf16_weights", "fp16_weights"])
def test_recipes_train_in_every_precision(tmp_path, precision):
    result = train({**BASE, "budget": "4ep", "precision": precision, "log_every": 20,
                    "model": {"name": "mlp", "hidden": 32, "normalization": "layer_norm"}},
                   out=tmp_path / "run")  # fmt: skip
    assert result.summary["best"]["val"]["accuracy"] > 0.8
    half = {"bf16_weights": torch.bfloat16, "fp16_weights": torch.float16}.get(precision)
    weight = next(m for m in result.model.modules() if isinstance(m, nn.Linear)).weight
    assert weight.dtype == (half or torch.float32)
    last = torch.load(tmp_path / "run/checkpoints/last.pt", weights_only=True)
    slots = next(iter(last["optimizer"]["state"].values()))
    assert ("master" in slots) == (half is not None)
    row = [r for r in result.run.metrics() if r["split"] == "train"][-2]
    assert ("loss_scale" in row) == precision.startswith("fp16")
    assert ("loss_scale" in result.summary) == precision.startswith("fp16")


def test_a_resumed_run_goes_on_with_its_scale(tmp_path, monkeypatch):
    recipe = {**BASE, "checkpoint_every": 7, "precision":
              {"name": "fp16", "init_scale": 2.0**40, "growth_interval": 3}}  # fmt: skip
    whole = train(recipe, out=tmp_path / "whole")
    assert whole.summary["loss_scale"]["scale_growths"] > 2
    assert whole.summary["skipped_steps"] > 2

    from brickyard.train.keeping import Keeper

    class Killed(BaseException):
        pass

    plain = Keeper.boundary

    def boundary(self):
        plain(self)
        if self.state.step == 17:
            raise Killed

    monkeypatch.setattr(Keeper, "boundary", boundary)
    with pytest.raises(Killed):
        train(recipe, out=tmp_path / "cut")
    monkeypatch.undo()
    again = resume(tmp_path / "cut")
    assert again.summary["loss_scale"] == whole.summary["loss_scale"]
    assert again.summary["skipped_steps"] == whole.summary["skipped_steps"]
    assert list(again.run.metrics()) == list(whole.run.metrics())
    for name, value in whole.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value), name


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"optimizer": "lbfgs"}, "precision: lbfgs needs fp32"),
     ({"optimizer": "nag"}, "nag asks for gradients several times within a step; take bf16"),
     ({"optimizer": "sophia_h"}, "sophia_h takes gradients of its own, without the scale"),
     ({"precision": "fp16_weights", "clipping": "clip_by_global_norm"},
      "clipping: not with fp16_weights: .* take precision: fp16"),
     ({"precision": "bf16_weights", "regularizers": ["max_norm"]},
      "a constraint changes the weights, which bf16_weights makes anew"),
     ({"precision": "bf16_weights", "optimizer": {"target": "torch.optim:AdamW"}},
      "precision: AdamW steps the weights themselves"),
     ({"precision": {"name": "fp16", "growth_interval": 0}}, "growth_interval must be 1 or more"),
     ({"precision": {"target": "fractions:Fraction"}}, "made a Fraction; derive yours")],
)  # fmt: skip
def test_what_cannot_stand_beside_a_precision_is_refused(changes, says):
    with pytest.raises(RecipeError, match=says):
        build_setup(resolve({**BASE, "precision": "fp16", **changes}))


class Odd(nn.Module):
    """Use an operation that CPUs have not in float16, and only in training."""

    def __init__(self, input_shape, outputs):
        super().__init__()
        self.linear = nn.Linear(math.prod(input_shape), outputs)

    def forward(self, x):
        return F.rrelu(self.linear(x.flatten(1)), training=self.training)


def test_an_operation_without_float16_is_named_at_the_door():
    recipe = {**BASE, "precision": "fp16", "model": {"target": f"{__name__}:Odd"}}
    says = (
        r"fp16 cannot train .*:Odd on this cpu: torch has no \w*rrelu\w* for Half there; take bf16"
    )
    with pytest.raises(RecipeError, match=says):
        build_setup(resolve(recipe))


class Mine(Precision):
    """Be a user's own precision."""

    compute = torch.bfloat16


def test_a_precision_of_your_own():
    setup = build_setup(resolve({**BASE, "precision": {"target": f"{__name__}:Mine"}}))
    with setup.parts.autocast:
        assert setup.parts.model(setup.data.train.x[:2]).dtype == torch.bfloat16


def test_runs_written_before_precision_was_a_brick_still_open(tmp_path):
    resolved = resolve({**BASE, "precision": "bf16"})
    assert resolved.recipe.to_dict()["precision"] == {"name": "bf16"}
    (tmp_path / "recipe.yaml").write_text("precision: bf16\n", encoding="utf-8")
    assert RunFolder.open(tmp_path).recipe()["precision"] == "bf16"
