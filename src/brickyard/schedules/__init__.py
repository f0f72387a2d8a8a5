"""Schedules: pure functions of the step that give a factor of a hyperparameter's base value.

A schedule holds no position. ``schedule(step)`` is the factor at that step, so a run resumed at
step k has the rate of step k by construction. ``a >> b`` runs ``b`` after ``a``; each piece counts
from its own start. Lengths are steps (``500``), epochs (``"3ep"``), a share of the run (``"10%"``)
or ``"rest"``.
"""

from brickyard.schedules.core import Length, Schedule
from brickyard.schedules.decays import constant, cosine, linear, warmup

__all__ = ["Length", "Schedule", "constant", "cosine", "linear", "warmup"]
