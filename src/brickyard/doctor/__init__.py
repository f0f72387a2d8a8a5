"""The doctor: find what goes wrong in anybody's PyTorch training script.

``brickyard doctor run [--json FILE] [--html FILE] [--steps N] [--strict] train.py ARGS...`` watches
a script as it is; ``with watch() as doctor:`` watches a block, and ``doctor.report()`` says what
was seen. Nothing is changed: losses and weights are bit-identical with and without it.

``preflight(model, loss, batch)``, or ``brickyard doctor preflight RECIPE``, asks before training,
on copies, whether it can work: the rungs of a ladder, the cheapest first.

What is watched: modules, optimizers, backward passes, losses, data loaders, schedulers, loss
scaling, clipping, evaluations, and processes that a script starts (by ``multiprocessing``,
``subprocess`` or a launcher) when they import torch. Every step is counted; the first
four are looked at closely, two at 8, 24, 72 ..., and those after the first evaluations. The first
batches are also put to a copy of the model: does one sample change another's output, do later
tokens change earlier scores, does dropout act in evaluation mode? Sixty checks judge what was
recorded (:mod:`brickyard.doctor.checks`), with the thresholds of
:mod:`brickyard.doctor.thresholds`. Steps are those of the optimizer, or backward passes where
weights are updated by hand; an epoch is a pass over the data loader that trains.

The report as JSON::

    {"script": str, "exit_code": int, "steps": int, "overhead": float,
     "findings": [{"check": str, "severity": "error" | "warning" | "info", "step": int,
                   "epoch": int, "where": str, "file": str, "line": int,
                   "evidence": str, "why": str, "try": str}]}

Findings come in the order of how likely each is the cause. ``overhead`` is the doctor's own time
over the run's; ``step`` is the step at which the evidence sufficed. A check that failed itself is a
finding of severity info that says so. ``--steps N`` ends the watching after N optimizer steps and
reports then; the script runs on to its end. ``--ignore CHECK`` leaves out what a check finds.
``--strict`` gives exit code 3 when there is a finding of severity error, otherwise the exit code is
the script's own.

Not seen: what runs inside ``torch.compile`` (steps, gradients and data are) or in TorchScript,
functions that a notebook imported by name from torch before the block began (clipping is found
nevertheless), threads beside the one that trains first, functions of torch (losses among them) in a
thread other than that which imported torch or opened the block, and processes that outlive the
script, or that another python without brickyard runs. Function and dispatch modes of the script's
own see the doctor's calls in the steps that are looked at closely.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from brickyard.doctor.finding import Finding, Report

if TYPE_CHECKING:
    from brickyard.doctor.ladder import Ladder, preflight
    from brickyard.doctor.watching import watch

__all__ = ["Finding", "Ladder", "Report", "preflight", "watch"]


def __getattr__(name: str) -> Any:
    """Import what needs torch when it is first used."""
    if name == "watch":
        from brickyard.doctor.watching import watch

        return watch
    if name in ("Ladder", "preflight"):
        from brickyard.doctor import ladder

        return getattr(ladder, name)
    raise AttributeError(f"module 'brickyard.doctor' has no attribute {name!r}; it has {__all__}")
