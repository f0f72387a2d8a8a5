"""Hold what was observed: plain facts and counts, without any judgement."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Place:
    """A line of the user's code."""

    file: str = ""
    line: int = 0
    text: str = ""


NOWHERE = Place()


@dataclass
class Note:
    """One kind of event at one place: how often, when first, when last, in a row."""

    kind: str
    where: str = ""
    place: Place = NOWHERE
    step: int = 0
    epoch: int = 0
    count: int = 0
    last_step: int = 0
    in_row: int = 0
    values: dict[str, Any] = field(default_factory=dict)


@dataclass
class ParamSeen:
    """A parameter of a model that was called, or of an optimizer alone."""

    name: str
    root: str = ""
    shape: tuple[int, ...] = ()
    owner: str = ""  # class of the module that holds it
    optimizers: list[int] = field(default_factory=list)
    trainable: bool = True
    ever_frozen: bool = False
    looked: int = 0  # close looks at its optimizer's steps
    none: int = 0
    zero: int = 0
    grad: int = 0  # looks with a gradient that is not zero
    stuck: int = 0  # of these: with a rate above 0, but unchanged by the step
    same_rows: int = 0  # looks with identical rows and identical rows of the gradient
    rows: int = 0
    sizes: list[float] = field(default_factory=list)  # of gradients of matrices, root mean square
    order: int = -1  # when its module first ran in the forward pass; -1: never
    registered_step: int = -1
    place: Place = NOWHERE  # where it was put into its module, when that was watched
    tracked: bool = True  # reachable from a model that was called


@dataclass
class OptimizerSeen:
    """An optimizer that stepped."""

    index: int
    name: str
    groups: list[dict[str, Any]] = field(default_factory=list)
    place: Place = NOWHERE  # where it was made
    step_place: Place = NOWHERE
    steps: int = 0
    looked: int = 0
    frozen_groups: list[int] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)  # largest group's, step by step
    update_ratios: dict[str, list[float]] = field(default_factory=dict)
    changed: int = 0  # close looks at which anything changed
    unchanged: int = 0  # ... at which nothing did, with a rate and a gradient
    eps: float | None = None
    norms: list[float] = field(default_factory=list)  # of one gradient, step by step
    gauge: int = 0  # the parameter whose gradient that is
    gauged: str = ""  # its name


@dataclass
class ModuleSeen:
    """A module of a model that was called."""

    name: str
    kind: str
    root: str
    facts: dict[str, Any] = field(default_factory=dict)
    alive: Any = None  # units that fired, by unit
    looks: int = 0
    samples: int = 0
    saturated: float = 0.0
    dead: float = 0.0


@dataclass
class LossSeen:
    """One call site of a loss function."""

    function: str
    place: Place
    calls: int = 0
    facts: dict[str, Any] = field(default_factory=dict)
    hits: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    first: dict[str, Any] = field(default_factory=dict)
    module: str = ""


@dataclass
class Series:
    """The values that were sent backwards from one line."""

    place: Place
    values: list[float] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)


@dataclass
class LoaderSeen:
    """A data loader that was iterated."""

    index: int
    place: Place
    facts: dict[str, Any] = field(default_factory=dict)
    iterations: int = 0
    batches: int = 0
    training: bool = False
    batch_entropy: list[float] = field(default_factory=list)
    labels: dict[int, int] = field(default_factory=dict)
    orders: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)


@dataclass
class Round:
    """One evaluation: sums over its batches."""

    step: int
    epoch: int
    full: bool = True  # answers are counted, too
    rows: int = 0
    total: Any = 0.0  # of the loss, times rows
    right: int = 0
    counts: Any = None  # classes answered, classes asked for
    sums: Any = None  # sums and sums of squares, of outputs and of targets, by column

    @property
    def loss(self) -> float:
        """Return the mean loss."""
        return float(self.total) / max(self.rows, 1)


@dataclass
class EvaluationSeen:
    """What a loss function was given while nothing was trained, from one line and one loader."""

    function: str
    place: Place
    loader: int  # -1: tensors at hand
    rounds: list[Round] = field(default_factory=list)


@dataclass
class SchedulerSeen:
    """A learning-rate scheduler that was stepped."""

    name: str
    optimizer: int
    place: Place
    horizon: int | None = None
    horizon_name: str = ""
    restarts: bool = False
    calls: int = 0
    early: bool = False  # called before its optimizer's first step
    first_epoch: int = 0
    over_step: int = 0


@dataclass
class Seen:
    """Everything that was observed in one process."""

    step: int = 0
    epoch: int = 0
    backwards: int = 0
    finished: bool = False
    failed: bool = False
    scaler: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, dict[Any, Note]] = field(default_factory=dict)
    params: list[ParamSeen] = field(default_factory=list)
    optimizers: list[OptimizerSeen] = field(default_factory=list)
    modules: dict[int, ModuleSeen] = field(default_factory=dict)
    losses: dict[Any, LossSeen] = field(default_factory=dict)
    series: dict[Any, Series] = field(default_factory=dict)
    loaders: list[LoaderSeen] = field(default_factory=list)
    evaluations: dict[Any, EvaluationSeen] = field(default_factory=dict)
    schedulers: list[SchedulerSeen] = field(default_factory=list)
    epoch_steps: list[int] = field(default_factory=list)  # step at which each epoch began
    forwards: dict[str, dict[str, Any]] = field(default_factory=dict)

    def note(
        self, kind: str, where: str = "", place: Place = NOWHERE, step: int | None = None,
        **values: Any,
    ) -> Note:  # fmt: skip
        """Count an event; the values of the first stay, those in ``latest`` are replaced.

        Args:
            kind: name of the event.
            where: what it is about.
            place: the user's line.
            step: when; now if None.
            values: numbers and words that belong to it.
        """
        now = self.step if step is None else step
        found = self.notes.setdefault(kind, {})
        key = (where, place.file, place.line)
        one = found.get(key)
        if one is None:
            one = found[key] = Note(kind, where, place, now, self.epoch, values=values)
        one.count += 1
        if one.in_row == 0 or now - one.last_step <= 1:
            one.in_row += now != one.last_step or one.in_row == 0
        else:
            one.in_row = 1
        one.last_step = now
        return one

    def epoch_of(self, step: int) -> int:
        """Return the pass over the training data that a step belonged to, from 1; 0 for none."""
        begun = sum(first < step for first in self.epoch_steps)
        return max(begun, min(1, len(self.epoch_steps)))

    def of(self, kind: str) -> list[Note]:
        """Return the notes of a kind, in the order of their first time."""
        return list(self.notes.get(kind, {}).values())
