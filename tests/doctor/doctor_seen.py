"""Ask single checks: over a watched block, or over observations written down by hand."""

import linecache
import os

import torch

from brickyard.doctor import watch
from brickyard.doctor.checks import CHECKS
from brickyard.doctor.observe.record import (
    EvaluationSeen,
    LossSeen,
    OptimizerSeen,
    ParamSeen,
    Place,
    Round,
    SchedulerSeen,
    Seen,
    Series,
)

HERE = Place("mine.py", 7, "")


def watched(check, block, *args, **options):
    """Return what a check says of a block that is watched."""
    torch.manual_seed(0)
    with watch() as doctor:
        block(*args, **options)
    report = doctor.report()
    assert not report.problems
    return [f for f in report.findings if f.check == check]


def judged(check, seen):
    """Return what a check says of observations."""
    return CHECKS[check].findings(seen)


def line(finding):
    """Return the text of the user's line that a finding names."""
    assert os.path.basename(finding.file).startswith(("test_", "doctor_loops"))
    return linecache.getline(os.path.abspath(finding.file), finding.line).strip()


def optimizer(name="SGD", steps=100, **facts):
    one = OptimizerSeen(0, name, [{"lr": 0.1, "params": 2, "dtypes": ["torch.float32"]}])
    one.place = one.step_place = HERE
    one.steps = steps
    for key, value in facts.items():
        setattr(one, key, value)
    return one


def run(losses, *, every=10, evaluations=(), epoch=0, function="cross_entropy", **facts):
    """Return the observations of a supervised run with one loss and an evaluation now and then."""
    seen = Seen(step=len(losses), epoch=epoch, finished=True)
    seen.optimizers = [optimizer(steps=len(losses))]
    seen.series = {0: Series(HERE, list(losses), list(range(len(losses))))}
    site = LossSeen(function, HERE, calls=9)
    site.facts = {"reduction": "mean", "plain": 9, "options": [], **facts}
    seen.losses = {0: site}
    if evaluations:
        rounds = [
            one if isinstance(one, Round) else Round(every * (i + 1), 0, rows=400, total=400 * one)
            for i, one in enumerate(evaluations)
        ]
        seen.evaluations = {0: EvaluationSeen(function, HERE, 1, rounds)}
    return seen


def schedule(horizon, calls, steps, *, name="OneCycleLR", option="total_steps", epoch=0, size=None,
             backwards=None, finished=True):  # fmt: skip
    """Return the observations of a run with a scheduler."""
    seen = Seen(step=steps, epoch=epoch, finished=finished, backwards=backwards or steps)
    seen.optimizers = [optimizer(steps=steps, rates=[0.1] * steps)]
    seen.schedulers = [SchedulerSeen(name, 0, HERE, horizon, option, calls=calls)]
    if size:
        from brickyard.doctor.observe.record import LoaderSeen

        seen.loaders = [LoaderSeen(0, HERE, {"batch_size": size}, training=True)]
    return seen


def layer(name, order, sizes, **facts):
    one = ParamSeen(name, "model", (4, 4), "Linear", [0], order=order, sizes=sizes, looked=6)
    for key, value in facts.items():
        setattr(one, key, value)
    return one
