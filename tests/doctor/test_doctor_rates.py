"""Checks 14, 15, 47, 49, 50, 51: epsilon, schedules, loss scaling, divergence, gradient norms."""

import math
import random

import pytest
import torch
from doctor_loops import data, epochs, fit, loader, mlp
from doctor_seen import HERE, judged, layer, line, optimizer, run, schedule, watched
from torch.nn import functional as F
from torch.optim import lr_scheduler

from brickyard.doctor.observe.record import Seen


# -- 14 adam-eps-dtype ---------------------------------------------------------------------------
def adam(eps, dtype="torch.float32", name="Adam"):
    seen = Seen()
    groups = [{"lr": 1e-3, "eps": eps, "dtypes": [dtype], "params": 2}]
    seen.optimizers = [optimizer(name, groups=groups)]
    return judged("adam-eps-dtype", seen)


def test_epsilon_that_float16_cannot_hold():
    (said,) = adam(1e-8, "torch.float16", "AdamW")
    assert said.severity == "warning"
    assert "eps=1e-08" in said.evidence
    assert "6e-8" in said.evidence
    assert (said.where, said.file, said.line) == ("AdamW", HERE.file, HERE.line)
    (said,) = adam(0.1)
    assert said.severity == "info"
    assert "0.1" in said.evidence


@pytest.mark.parametrize(
    ("eps", "dtype", "name"),
    [(1e-8, "torch.float32", "Adam"), (1e-8, "torch.bfloat16", "AdamW"), (1e-3, "torch.float32",
     "Adam"), (1e-4, "torch.float16", "Adam"), (1e-8, "torch.float16", "SGD")],
)  # fmt: skip
def test_epsilons_that_are_fine(eps, dtype, name):
    assert adam(eps, dtype, name) == []


def test_epsilon_is_read_from_the_optimizer():
    model = torch.nn.Linear(8, 4).to(torch.float16)
    made = torch.optim.Adam(model.parameters(), lr=1e-3, eps=1e-8)

    def loss(out, y):
        return F.cross_entropy(out.float(), y)

    x, y = data()
    (said,) = watched("adam-eps-dtype", fit, model, loss, xy=(x.half(), y), optimizer=made)
    assert said.where == "Adam"
    assert said.severity == "warning"


# -- 15 scheduler-horizon ------------------------------------------------------------------------
def test_a_plan_in_samples_is_named():
    # 20 epochs of 1024 samples are 32 batches each
    (said,) = judged("scheduler-horizon", schedule(20480, 640, 640, epoch=20, size=32))
    assert said.severity == "warning"
    assert "stepped 640 times" in said.evidence
    assert "3.1% of the way" in said.evidence
    assert "32 is the batch size" in said.evidence
    (said,) = judged("scheduler-horizon", schedule(400, 100, 100, backwards=400))
    assert "4 is the number of backward passes per step" in said.evidence
    assert said.severity == "warning"


def test_a_run_that_ends_early_is_information():
    (said,) = judged("scheduler-horizon", schedule(1000, 300, 300, epoch=6, size=32))
    assert said.severity == "info"
    assert "30.0% of the way" in said.evidence
    assert "rate of 0.1" in said.evidence
    per_epoch = schedule(100, 20, 800, name="CosineAnnealingLR", option="T_max", epoch=20, size=32)
    (said,) = judged("scheduler-horizon", per_epoch)
    assert said.severity == "info"
    assert "once per epoch" in said.evidence


@pytest.mark.parametrize(
    "seen",
    [
        schedule(1000, 600, 600),  # more than half
        schedule(1000, 300, 300, finished=False),  # failed, or watched for some steps
        schedule(None, 300, 300, name="ExponentialLR"),
        schedule(20, 20, 800, name="CosineAnnealingLR", option="T_max", epoch=20),
        schedule(5, 20, 800, name="LinearLR", option="total_iters", epoch=20),  # a warm-up
        schedule(60, 200, 8000, name="MultiStepLR", option="milestones", epoch=200),
    ],
)
def test_schedules_that_are_fine(seen):
    assert judged("scheduler-horizon", seen) == []


def test_restarts_are_no_horizon():
    seen = schedule(1000, 300, 300)
    seen.schedulers[0].restarts = True
    assert judged("scheduler-horizon", seen) == []


def test_a_cosine_that_rises_again_is_information():
    seen = schedule(10, 30, 900, name="CosineAnnealingLR", option="T_max", epoch=30)
    (said,) = judged("scheduler-horizon", seen)
    assert said.severity == "info"
    assert "after 10 epochs the rate rose again" in said.evidence


def planned(total):
    model = mlp()
    made = torch.optim.SGD(model.parameters(), 0.1)
    scheduler = lr_scheduler.OneCycleLR(made, 0.1, total_steps=total)
    epochs(model, loader(*data()), 4, optimizer=made, scheduler=scheduler, per_step=True)


def test_early_end_of_a_real_run():
    (said,) = watched("scheduler-horizon", planned, 4 * 256)  # samples; there are 32 batches
    assert said.severity == "warning"
    assert "total_steps=1024" in said.evidence
    assert line(said) == "scheduler.step()"
    assert watched("scheduler-horizon", planned, 32) == []


# -- 49 lr-trace: turns --------------------------------------------------------------------------
def turning(kind, **options):
    model = mlp()
    made = torch.optim.SGD(model.parameters(), 0.1)
    scheduler = kind(made, **options)
    epochs(model, loader(*data(rows=1024)), 2, optimizer=made, scheduler=scheduler, per_step=True)


def test_rates_that_turn_around_within_an_epoch():
    (said,) = watched("lr-trace", turning, lr_scheduler.CosineAnnealingLR, T_max=4)
    assert "In epoch 1 the rate turned around 7 times in 32 steps" in said.evidence
    cyclic = {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 3}
    assert watched("lr-trace", turning, lr_scheduler.CyclicLR, **cyclic) == []
    restarts = lr_scheduler.CosineAnnealingWarmRestarts
    assert watched("lr-trace", turning, restarts, T_0=4) == []


# -- 47 amp-health -------------------------------------------------------------------------------
def scaler(updates, skipped, scale=1024.0):
    seen = Seen(scaler={"updates": updates, "skipped_at": list(skipped), "scale": scale})
    return judged("amp-health", seen)


def test_loss_scaling_that_keeps_skipping():
    (said,) = scaler(400, range(210, 400, 10))
    assert said.evidence == "19 of the last 200 steps (9.5%) were skipped; the scale is 1024."
    assert said.where == "GradScaler"
    (said,) = scaler(100, range(40, 100, 10))
    assert said.evidence.startswith("6 of the last 70 steps")
    (said,) = scaler(100, [3, 9], scale=0.25)
    assert said.evidence == "The scale fell to 0.25 in 100 steps."


@pytest.mark.parametrize(
    ("updates", "skipped", "scale"),
    [
        (400, range(16), 1024.0),  # the scale finds its level
        (400, [250, 390], 65536.0),  # one in a hundred: it grows again
        (20, range(20), 0.5),  # too early to tell
    ],
)
def test_loss_scaling_that_is_fine(updates, skipped, scale):
    assert scaler(updates, skipped, scale) == []


def overflowing(often):
    model = mlp()
    made = torch.optim.SGD(model.parameters(), 0.01)
    scale = torch.amp.GradScaler("cpu", init_scale=64.0)
    x, y = data()
    for i in range(120):
        made.zero_grad()
        loss = F.cross_entropy(model(x[:32]), y[:32])
        scale.scale(loss).backward()
        if often and i % 4 == 0:
            model[0].weight.grad[0, 0] = math.inf
        scale.step(made)
        scale.update()


def test_skipped_steps_are_counted():
    (said,) = watched("amp-health", overflowing, True)
    assert "of the last 90 steps" in said.evidence
    assert watched("amp-health", overflowing, False) == []


# -- 50 divergence -------------------------------------------------------------------------------
def test_losses_that_rise():
    fell_and_rose = [2.0 * 0.97**i for i in range(150)] + [1.5] * 80
    (said,) = judged("divergence", run(fell_and_rose))
    assert "fell to" in said.evidence
    assert "rose above 1.5 over the last 50 steps" in said.evidence
    (said,) = judged("divergence", run([2.3] * 10 + [8.0] * 120))
    assert said.evidence == "The loss was 2.3 at first and above 8 over the last 100 steps."
    assert (said.file, said.line) == (HERE.file, HERE.line)


@pytest.mark.parametrize(
    "losses",
    [
        [2.3] * 10 + [2.9] * 120,  # a little above: noise, another task
        [2.3 * 0.97**i for i in range(300)],
        [0.01] * 100 + [0.09] * 80,  # nine times the minimum, far below the start
        [2.3 + 0.5 * math.sin(i) for i in range(300)],
        [2.3] * 60 + [30.0] * 20 + [2.2] * 60,  # a leap that it recovers from
        [-1.0 - 0.1 * i for i in range(100)] + [5.0] * 100,  # no supervised loss
    ],
)
def test_losses_that_are_fine(losses):
    losses[0] = max(losses[0], 2.3)
    assert judged("divergence", run(losses)) == []


def test_several_optimizers_have_no_one_loss():
    seen = run([2.3] * 10 + [8.0] * 120)
    seen.optimizers.append(optimizer("Adam"))
    assert judged("divergence", seen) == []


# -- 51 grad-norm-anomaly ------------------------------------------------------------------------
def norms(leaps, spread=0.2, count=400):
    chance = random.Random(0)
    found = [math.exp(chance.gauss(0.0, spread)) for _ in range(count)]
    for at in leaps:
        found[at] *= 100.0
    seen = Seen(step=count)
    seen.optimizers = [optimizer(steps=count, norms=found, gauged="model.0.weight")]
    return judged("grad-norm-anomaly", seen)


def test_gradients_that_leap():
    (said,) = norms([355, 371, 389])
    assert said.evidence.startswith("3 of 50 steps up to step 400")
    assert "model.0.weight" in said.evidence
    assert said.severity == "info"
    assert norms([355, 371]) == []  # twice may happen
    assert norms([210, 270, 330]) == []  # far apart
    assert norms([], spread=0.5) == []
    assert norms([3, 5, 8, 13]) == []  # the beginning, before there is anything to compare with
    assert norms([], spread=0.0) == []


def sudden(often):
    model, (x, y) = mlp(), data()
    made = torch.optim.SGD(model.parameters(), 1e-3)
    for i in range(250):
        at = torch.arange(32 * i, 32 * i + 32) % len(x)
        made.zero_grad()
        loss = F.cross_entropy(model(x[at]), y[at])
        (loss * 1000 if often and i in (210, 220, 230) else loss).backward()
        made.step()


def test_gradients_of_a_real_run():
    (said,) = watched("grad-norm-anomaly", sudden, True)
    assert said.evidence.startswith("3 of 50 steps up to step 250 had gradients of model.0.bias")
    assert line(said) == "made.step()"
    assert watched("grad-norm-anomaly", sudden, False) == []


def test_vanishing_gradients_by_record():
    seen = Seen()
    seen.optimizers = [optimizer()]
    seen.params = [layer("model.0.weight", 1, [1e-9] * 6), layer("model.9.weight", 8, [1e-2] * 6)]
    (said,) = judged("grad-norm-anomaly", seen)
    assert "1e-07 times that of the last one (model.9.weight, 0.01)" in said.evidence
    assert said.where == "model.0.weight"
    for sizes in ([1e-5] * 6, [0.0] * 6, [1e-9, 1e-9]):  # small; none (grad-zero-layer); too few
        seen.params[0] = layer("model.0.weight", 1, sizes)
        assert judged("grad-norm-anomaly", seen) == []
    seen.params[0] = layer("model.0.weight", 1, [1e-9] * 6, owner="Embedding")
    assert judged("grad-norm-anomaly", seen) == []


def test_vanishing_gradients_of_a_real_network():
    def deep(activation, norm=torch.nn.Identity):
        blocks = [(norm(), activation(), torch.nn.Linear(16, 16)) for _ in range(14)]
        fit(mlp(8, 16, 4, *(part for block in blocks for part in block)), F.cross_entropy)

    (said,) = watched("grad-norm-anomaly", deep, torch.nn.Sigmoid)
    assert said.where == "model.0.weight"
    assert watched("grad-norm-anomaly", deep, torch.nn.ReLU, lambda: torch.nn.LayerNorm(16)) == []
