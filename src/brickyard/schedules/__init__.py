"""Schedules: pure functions of the step that give a factor of a hyperparameter's base value.

A schedule holds no position. ``schedule(step)`` is the factor at that step, so a run resumed at
step k has the rate of step k by construction. ``a >> b`` runs ``b`` after ``a``; each piece counts
from its own start. ``a * b`` multiplies, ``scaled`` and ``clamped`` change the factors. Lengths
are steps (``500``), epochs (``"3ep"``), a share of the run (``"10%"``) or ``"rest"``.
"""

from brickyard.schedules.core import Length, Schedule
from brickyard.schedules.cycles import cosine_restarts, cyclic, one_cycle, polynomial, wsd
from brickyard.schedules.decays import constant, cosine, linear, warmup
from brickyard.schedules.plateau import reduce_on_plateau
from brickyard.schedules.rates import (
    exponential,
    inverse_sqrt,
    inverse_time,
    multistep,
    natural_exponential,
    step,
)

__all__ = [
    "Length", "Schedule", "constant", "cosine", "cosine_restarts", "cyclic", "exponential",
    "inverse_sqrt", "inverse_time", "linear", "multistep", "natural_exponential", "one_cycle",
    "polynomial", "reduce_on_plateau", "step", "warmup", "wsd",
]  # fmt: skip
