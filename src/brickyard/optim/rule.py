"""Rules: one equation on one tensor, with its slots and hyperparameters; pieces: rules with values.

A rule is written once, in plain torch, as the paper has it::

    @rule(slots={"exp_avg": "zeros"}, hyper={"beta1": 0.9})
    def trace(u, p, s, h):
        m = torch.lerp(s.exp_avg, u, 1 - h.beta1)
        return m, {"exp_avg": m}

``u`` is the update so far (the gradient at the start of the chain), ``p`` the parameter, ``s.NAME``
a slot's old value, ``h.NAME`` a hyperparameter: a number on the host. ``h.t`` is the number of this
step, from 1. It returns the new update and the new values of its slots, and changes nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from brickyard.errors import near
from brickyard.optim.ranges import number, whole

#: In which order the parts of a chain make sense.
ROLES = ("gradient", "scale", "update", "rate", "weights")
Where = str | Callable[[str, Any], bool] | None
SlotSpec = str | float


@dataclass(frozen=True)
class Slot:
    """Describe what is kept per parameter.

    Args:
        name: its key in ``state_dict``.
        init: ``"zeros"``, ``"ones"``, ``"param"`` (a copy), ``"rows"`` or ``"cols"`` (zeros, one
            per row or column of the trailing matrix), ``"host"`` (one number per group, from 1).
    """

    name: str
    init: str = "zeros"


INITS = ("zeros", "ones", "param", "rows", "cols", "host")


class Names:
    """Give values by attribute, and an error that lists the names where one is wrong."""

    def __init__(self, what: str, values: Mapping[str, Any]) -> None:
        self.__dict__["_what"], self.__dict__["_values"] = what, values

    def __getattr__(self, name: str) -> Any:
        try:
            return self._values[name]
        except KeyError:
            hint = near(name, self._values)
            raise AttributeError(f"{self._what} has no {name!r}{hint}") from None


@dataclass(frozen=True, eq=False)
class Rule:
    """Hold one update rule; call it with values to get a piece for ``chain``.

    Args:
        name: the function's.
        function: ``(u, p, s, h) -> u`` or ``(u, p, s, h) -> (u, {slot: new value})``.
        slots: slot name to its init, or a function of the options that returns that.
        hyper: hyperparameters and their defaults: numbers, or schedules ``step -> float``.
        options: what the rule's structure depends on (flags, names) and its default.
        role: the place in a chain: one of ``ROLES``.
        check: called with all values as keywords; raises ``ValueError``.
    """

    name: str
    function: Callable[..., Any]
    slots: Mapping[str, str] | Callable[[Names], Mapping[str, str]]
    hyper: Mapping[str, Any]
    options: Mapping[str, Any]
    role: str
    check: Callable[..., None] | None = None

    @property
    def __doc__(self) -> str | None:  # type: ignore[override]
        return self.function.__doc__

    @property
    def __signature__(self) -> inspect.Signature:
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        last = inspect.Parameter.KEYWORD_ONLY
        places = [inspect.Parameter(k, kind, default=v) for k, v in self.hyper.items()]
        places += [inspect.Parameter(k, last, default=v) for k, v in self.options.items()]
        places += [inspect.Parameter(k, last, default=None) for k in ("name", "where", "every")]
        return inspect.Signature(places)

    def __call__(self, *values: Any, name: str | None = None, where: Where = None,
                 every: int | None = None, **options: Any) -> Piece:  # fmt: skip
        """Return this rule with values, as one piece of a chain.

        Args:
            values: hyperparameters in order; all may be given by name.
            name: what this piece is called, if the chain has two of its kind.
            where: which parameters it acts on: ``"matrices"``, ``"vectors"``, a name pattern such
                as ``"*.weight"``, or a function ``(name, parameter) -> bool``.
            every: act only on every n-th step.
            options: the rule's hyperparameters and options by name.

        Raises:
            TypeError: a name that the rule does not have.
            ValueError: a value out of range.
        """
        known = {*self.hyper, *self.options}
        if len(values) > len(self.hyper):
            raise TypeError(f"{self.name} takes {len(self.hyper)} hyperparameters, "
                            f"got {len(values)}: {values}")  # fmt: skip
        given = dict(zip(self.hyper, values, strict=False))
        for key, value in options.items():
            if key not in known:
                raise TypeError(f"{self.name} has no option {key!r}{near(key, known)}")
            if key in given:
                raise TypeError(f"{self.name} got {key!r} twice")
            given[key] = value
        if every is not None:
            whole("every", every)
        hyper = {k: given.get(k, v) for k, v in self.hyper.items()}
        static = {k: given.get(k, v) for k, v in self.options.items()}
        for key, value in hyper.items():
            if not callable(value):
                number(value, 0, f"{key} of {self.name}")
        if self.check is not None:
            plain = {k: number(v, 0) for k, v in hyper.items() if not callable(v)}
            self.check(**{**self.hyper, **plain, **static})
        return Piece(self, name or self.name, hyper, static, where, every,
                     frozenset(k for k in given if k in hyper))  # fmt: skip


@dataclass(frozen=True, eq=False)
class Piece:
    """Hold a rule, its values, and where and when it acts.

    Args:
        rule: the equation.
        name: unique within a chain.
        hyper: values of the rule's hyperparameters.
        options: values of the rule's options.
        where: which parameters.
        every: on which steps.
        given: names of hyperparameters that were given, not left at their defaults.
    """

    rule: Rule
    name: str
    hyper: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    where: Where = None
    every: int | None = None
    given: frozenset[str] = frozenset()

    @property
    def slots(self) -> tuple[Slot, ...]:
        """Return what this piece keeps per parameter."""
        slots = self.rule.slots
        found = slots(Names(self.name, self.options)) if callable(slots) else slots
        return tuple(Slot(name, init) for name, init in found.items())

    @property
    def structure(self) -> tuple[Any, ...]:
        """Return what decides about the kernel: the rule and its options, no hyperparameter."""
        return (self.rule, self.name, tuple(sorted(self.options.items(), key=lambda i: i[0])))

    def named(self, name: str) -> Piece:
        """Return this piece under another name."""
        return replace(self, name=name)

    def run(self, u: Any, p: Any, slots: Mapping[str, Any], hyper: Mapping[str, Any]) -> Any:
        """Apply the equation; return ``(update, {slot: new value})``.

        Raises:
            TypeError: the rule returned something else.
        """
        values = Names(f"the hyperparameters of {self.name}", {**self.options, **hyper})
        found = self.rule.function(u, p, Names(f"the state of {self.name}", slots), values)
        update, new = found if isinstance(found, tuple) else (found, {})
        if not isinstance(new, Mapping):
            raise TypeError(f"{self.name} must return update or (update, {{slot: value}}); "
                            f"got {type(new).__name__} for the slots")  # fmt: skip
        wrong = set(new) - {slot.name for slot in self.slots}
        if wrong:
            raise TypeError(f"{self.name} returned unknown slots {sorted(wrong)}; declared: "
                            f"{[slot.name for slot in self.slots]}")  # fmt: skip
        return update, new


def rule(
    *, slots: Mapping[str, str] | Callable[[Names], Mapping[str, str]] | None = None,
    hyper: Mapping[str, Any] | None = None, options: Mapping[str, Any] | None = None,
    role: str = "scale", check: Callable[..., None] | None = None,
) -> Callable[[Callable[..., Any]], Rule]:  # fmt: skip
    """Turn an equation on one tensor into a rule.

    Args:
        slots: what is kept per parameter, by torch's name where torch has it, and how it starts;
            or a function of the options that returns that.
        hyper: hyperparameters and their defaults.
        options: flags and names that decide which equation is meant; read in the rule by ``if``.
        role: ``"gradient"`` (acts on the gradient: clipping, coupled decay), ``"scale"`` (makes an
            update of it), ``"update"`` (acts on the update: decoupled decay, trust ratio),
            ``"rate"`` (applies the learning rate itself) or ``"weights"`` (runs after the step:
            its ``p`` and its result are the new weights).
        check: raises ``ValueError`` for values out of range.

    Raises:
        ValueError: an unknown role or way to start a slot.

    Example:
        >>> @rule(hyper={"factor": 2.0})
        ... def stretch(u, p, s, h):
        ...     return u * h.factor
        >>> stretch(3.0).hyper
        {'factor': 3.0}
    """
    if role not in ROLES:
        raise ValueError(f"role must be one of {ROLES}; got {role!r}")
    if slots is not None and not callable(slots):
        for name, init in slots.items():
            if init not in INITS:
                raise ValueError(f"slot {name!r} starts as one of {INITS}; got {init!r}")

    def make(function: Callable[..., Any]) -> Rule:
        return Rule(function.__name__, function, slots or {}, hyper or {}, options or {}, role,
                    check)  # fmt: skip

    return make
