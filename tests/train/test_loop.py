"""The loop: the same numbers as by hand, and every option does something."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from brickyard.clip import clip_by_global_norm
from brickyard.regularize import EarlyStopping
from brickyard.schedules import cosine, warmup
from brickyard.train.data import Split, TensorBatches
from brickyard.train.evaluate import Evaluator
from brickyard.train.loop import Diverged, Loop, Parts
from brickyard.train.tasks import Classification


def _data(n=90, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 6, generator=g)
    return Split(x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long())


def _net():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2),
                         nn.Linear(16, 3))  # fmt: skip


def _parts(model=None, **changes):
    model = model or _net()
    train = TensorBatches(_data(), 16, shuffle=True, seed=5)
    val = TensorBatches(_data(40, 1), 32, shuffle=False, seed=0)
    settings = {
        "model": model, "loss": F.cross_entropy, "train": train, "total": 18,
        "optimizer": torch.optim.AdamW(model.parameters(), lr=1e-2),
        "evaluator": Evaluator(val, F.cross_entropy, Classification(3)), "evaluate_every": 6,
        "log_every": 4,
    }  # fmt: skip
    return Parts(**{**settings, **changes})


class Ear:
    def __init__(self):
        self.rows, self.evaluations, self.steps = [], [], []

    def logged(self, loop, values):
        self.rows.append((loop.state.step, values))

    def evaluated(self, loop, values, best):
        self.evaluations.append((loop.state.step, values, best))

    def boundary(self, loop):
        self.steps.append(loop.state.step)


def test_equals_the_loop_by_hand_bit_by_bit():
    schedule = (warmup(4) >> cosine(14)).resolve()
    parts = _parts(clip=lambda params: clip_by_global_norm(params, 0.5))
    parts.scheduler = schedule.bind(parts.optimizer)
    hand = copy.deepcopy(parts.model)
    ear = Ear()
    torch.manual_seed(9)
    assert Loop(parts, [ear]).run() == "budget"

    optimizer = torch.optim.AdamW(hand.parameters(), lr=1e-2)
    torch.manual_seed(9)
    losses, norms = [], []
    for epoch in range(3):
        for x, y in parts.train.epoch(epoch):
            optimizer.param_groups[0]["lr"] = 1e-2 * schedule(len(losses))
            optimizer.zero_grad()
            loss = F.cross_entropy(hand(x), y)
            loss.backward()
            norms.append(float(clip_by_global_norm(hand.parameters(), 0.5)))
            optimizer.step()
            losses.append(float(loss.detach()))
    for name, value in hand.state_dict().items():
        assert torch.equal(value, parts.model.state_dict()[name]), name
    assert [step for step, _ in ear.rows] == [4, 8, 12, 16, 18]
    assert ear.rows[1][1]["loss"] == pytest.approx(math.fsum(losses[4:8]) / 4)
    assert ear.rows[-1][1]["loss"] == pytest.approx(math.fsum(losses[16:]) / 2)
    assert ear.rows[2][1]["grad_norm"] == pytest.approx(norms[11])
    assert ear.rows[2][1]["lr"] == pytest.approx(1e-2 * schedule(12))


def test_evaluation_leaves_no_trace():
    """In eval mode, without gradients; statistics, modes and random numbers as they were."""
    parts = _parts()
    frozen = parts.model[1]
    parts.model.train()
    frozen.eval()
    before = copy.deepcopy(parts.model.state_dict())
    rng = torch.get_rng_state()
    first = parts.evaluator.run(parts.model)
    assert first == parts.evaluator.run(parts.model), "dropout is off"
    assert parts.model.training
    assert not frozen.training, "a part that the user froze stays frozen"
    assert torch.equal(rng, torch.get_rng_state())
    for name, value in parts.model.state_dict().items():
        assert torch.equal(value, before[name]), name
    x, y = _data(40, 1).x, _data(40, 1).y
    parts.model.eval()
    with torch.no_grad():
        want = float(F.cross_entropy(parts.model(x), y))
    assert first["loss"] == pytest.approx(want), "a mean over samples, not over batches"


def test_evaluates_when_due_and_at_the_end():
    ear = Ear()
    Loop(_parts(total=14), [ear]).run()
    assert [step for step, _, _ in ear.evaluations] == [6, 12, 14]
    best = [step for step, values, is_best in ear.evaluations if is_best]
    losses = [values["loss"] for _, values, _ in ear.evaluations]
    assert best[-1] == ear.evaluations[losses.index(min(losses))][0]


def test_a_nonfinite_gradient_skips_its_step_and_nothing_else():
    calls = []

    def loss(output, y):
        calls.append(1)
        value = F.cross_entropy(output, y)
        return value * (math.inf if len(calls) == 3 else 1.0) if len(calls) <= 4 else value

    parts = _parts(loss=loss, clip=lambda p: clip_by_global_norm(p, 1.0), evaluator=None,
                   evaluate_every=0, total=3, log_every=100, allowed_skips=1)  # fmt: skip
    loop = Loop(parts)
    loop.run()
    assert (loop.state.skipped, loop.state.step, loop.state.batch) == (1, 3, 4)
    for value in parts.model.state_dict().values():
        assert torch.isfinite(value).all()
    steps = {int(s["step"]) for s in parts.optimizer.state.values()}
    assert steps == {3}


def test_divergence_stops_with_figures():
    parts = _parts(optimizer=None)
    parts.optimizer = torch.optim.SGD(parts.model.parameters(), lr=1e30)
    with pytest.raises(Diverged, match=r"the loss is (nan|inf) at step 2 .*lower the rate"):
        Loop(parts).run()


def test_early_stopping():
    stop = EarlyStopping(monitor="loss", patience=2, mode="min", min_delta=100.0)
    loop = Loop(_parts(stopping=stop, total=1000))
    assert loop.run() == "early_stop"
    assert loop.state.step == 18, "the first evaluation is the best, two more bring nothing"


def test_penalties_and_constraints_act():
    plain = _parts()
    Loop(plain).run()

    def l2(model):
        return 0.1 * sum(p.square().sum() for p in model.parameters())

    punished = _parts(penalties=[l2])
    Loop(punished).run()
    assert l2(punished.model) < 0.9 * l2(plain.model)

    def clamp(model):
        with torch.no_grad():
            for p in model.parameters():
                p.clamp_(-0.1, 0.1)

    bounded = _parts(constraints=[clamp])
    Loop(bounded).run()
    assert max(p.abs().max() for p in bounded.model.parameters()) <= 0.1


def test_autocast_reaches_the_forward_pass():
    seen = []

    class Spy(nn.Linear):
        def forward(self, x):
            out = super().forward(x)
            seen.append(out.dtype)
            return out

    model = nn.Sequential(Spy(6, 3))
    parts = _parts(model, autocast=torch.autocast("cpu", torch.bfloat16), evaluator=None)
    Loop(parts).run()
    assert set(seen) == {torch.bfloat16}


def test_a_request_stops_after_the_step():
    parts = _parts(total=1000)
    loop = Loop(parts)

    def ask(model):
        loop.stop_requested = loop.state.step == 7

    parts.constraints = [ask]
    assert loop.run() == "interrupted"
    assert loop.state.step == 8
    assert (loop.state.epoch, loop.state.batch) == (1, 2)


def test_time_is_accounted_for():
    loop = Loop(_parts())
    loop.run()
    assert all(loop.state.seconds[phase] > 0 for phase in ("data", "forward", "backward", "step"))
    assert loop.state.seconds["evaluate"] > 0
