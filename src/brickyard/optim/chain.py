"""Chains: pieces in order, flattened and checked, and the one function that walks them."""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from brickyard.optim.rule import Names, Piece, Rule, Slot, Where

#: A chain's own inputs beside the pieces' hyperparameters.
RESERVED = frozenset({"lr", "t", "params", "param_names", "initial_lr", "step"})


@dataclass(frozen=True, eq=False)
class Chain:
    """Hold pieces in the order in which they act, under unique names.

    Args:
        pieces: what acts.
        lr: the learning rate that the chain brings, if any: a number or a schedule.
    """

    pieces: tuple[Piece, ...]
    lr: Any = None

    @property
    def structure(self) -> tuple[Any, ...]:
        """Return what decides about kernels: equal for chains that differ in numbers only."""
        return tuple(piece.structure for piece in self.pieces)

    def slots(self, active: Sequence[int]) -> dict[tuple[int, str], Slot]:
        """Return the state that the given pieces keep, by piece and the rule's own name for it.

        A slot has the rule's name for it; only where two pieces of the chain use one name it is
        qualified: ``piece.slot``.
        """
        every = Counter(slot.name for piece in self.pieces for slot in piece.slots)
        found = {}
        for i in active:
            for slot in self.pieces[i].slots:
                name = slot.name if every[slot.name] == 1 else f"{self.pieces[i].name}.{slot.name}"
                found[i, slot.name] = Slot(name, slot.init)
        return found

    def keys(self) -> dict[tuple[int, str], str]:
        """Return the name in the parameter group of each piece's hyperparameters."""
        every = Counter(name for piece in self.pieces for name in piece.hyper)
        return {
            (i, name): name if every[name] == 1 and name not in RESERVED else f"{piece.name}.{name}"
            for i, piece in enumerate(self.pieces)
            for name in piece.hyper
        }

    def __repr__(self) -> str:
        def show(piece: Piece) -> str:
            values = {**piece.hyper, **piece.options}
            inside = [f"{k}={getattr(v, '__name__', v)!r}" for k, v in values.items()]
            inside += [f"where={piece.where!r}"] if piece.where is not None else []
            return f"{piece.name}({', '.join(inside)})"

        return f"chain({', '.join(map(show, self.pieces))})"


def chain(*pieces: Any, lr: Any = None) -> Chain:
    """Put pieces together to one update, in the order in which they act.

    The chain starts with the gradient; each piece gets the update of the piece before; at the end
    the parameter moves by ``-lr * update``, unless a piece applies the rate itself.

    Math:
        u = g;  u = piece(u, p, state) for each piece;  p = p - lr*u

    Args:
        pieces: pieces, rules without values, chains, or None (left out).
        lr: learning rate, or a schedule ``step -> float``; ``Optimizer(lr=...)`` may give it too.

    Raises:
        TypeError: something that is no piece.
        ValueError: an order that does not do what it says, or two learning rates.

    Example:
        >>> from brickyard.optim import chain, clip_by_global_norm, decay, scale_by_adam
        >>> len(chain(clip_by_global_norm(1.0), scale_by_adam(), decay(0.1)).pieces)
        3
    """
    flat: list[Piece] = []
    for item in pieces:
        if isinstance(item, Chain):
            flat += item.pieces
            if item.lr is not None and lr is not None:
                raise ValueError(f"two learning rates in one chain: {item.lr!r} and {lr!r}")
            lr = item.lr if item.lr is not None else lr
        elif isinstance(item, Rule):
            flat.append(item())
        elif isinstance(item, Piece):
            flat.append(item)
        elif item is not None:
            raise TypeError(f"a chain is made of pieces such as scale_by_adam(); got {item!r}")
    named = _name(flat)
    _check_order(named)
    return Chain(tuple(named), lr)


def _name(pieces: list[Piece]) -> list[Piece]:
    """Number pieces of one name."""
    counts, seen = Counter(piece.name for piece in pieces), Counter[str]()
    found = []
    for piece in pieces:
        if counts[piece.name] > 1:
            seen[piece.name] += 1
            piece = piece.named(f"{piece.name}_{seen[piece.name]}")
        found.append(piece)
    return found


def _check_order(pieces: Sequence[Piece]) -> None:
    roles = [piece.rule.role for piece in pieces]
    for i, piece in enumerate(pieces):
        later = [pieces[j] for j in range(i + 1, len(pieces)) if roles[j] == "scale"]
        if piece.rule.name == "decay" and later:
            raise ValueError(
                f"decay stands before {later[0].name}, which would rescale it: put it behind, "
                f"or use l2() if you mean the penalty's gradient"
            )
        if piece.rule.name == "l2" and any(r == "scale" for r in roles[:i]):
            raise ValueError(
                f"l2 is a part of the gradient and must stand before "
                f"{pieces[roles.index('scale')].name}; use decay() for decoupled weight decay"
            )
        if roles[i] == "weights" and any(r != "weights" for r in roles[i + 1 :]):
            raise ValueError(f"{piece.name} works on the new weights: it must stand at the end")
        if roles[i] == "rate" and any(r != "weights" for r in roles[i + 1 :]):
            raise ValueError(f"{piece.name} applies the learning rate: only pieces that work on "
                             "the new weights may follow")  # fmt: skip


def walk(
    pieces: Sequence[tuple[int, Piece]], u: Any, p: Any,
    slots: Callable[[int], Mapping[str, Any]], hyper: Callable[[int], Mapping[str, Any]], lr: Any,
    begin: Callable[[int], None] = lambda i: None,
) -> tuple[Any, Any, dict[tuple[int, str], Any]]:  # fmt: skip
    """Run a chain on one tensor; return ``(new parameter, step taken, new slots)``.

    The only place that says how pieces follow each other: the reference backend runs it on
    tensors, the tracer on proxies.

    Args:
        pieces: the active pieces with their places in the chain.
        u: the gradient.
        p: the parameter.
        slots: gives a piece's old slots.
        hyper: gives a piece's hyperparameters, with ``t`` and ``lr``.
        lr: learning rate.
        begin: called before each piece.
    """
    new: dict[tuple[int, str], Any] = {}
    taken: Any = None
    for i, piece in pieces:
        begin(i)
        if piece.rule.role == "weights":
            if taken is None:
                taken = lr * u
                p = p - taken
            p, changed = piece.run(taken, p, slots(i), hyper(i))
        else:
            u, changed = piece.run(u, p, slots(i), hyper(i))
            if piece.rule.role == "rate":
                taken = u
                p = p - taken
        new.update({(i, name): value for name, value in changed.items()})
    if taken is None:
        taken = lr * u
        p = p - taken
    return p, taken, new


def matches(where: Where, name: str | None, parameter: torch.Tensor) -> bool:
    """Say whether a piece acts on a parameter.

    Raises:
        ValueError: a pattern where parameters have no names.
    """
    if where is None:
        return True
    if callable(where):
        return bool(where(name or "", parameter))
    if where == "matrices":
        return parameter.ndim >= 2
    if where == "vectors":
        return parameter.ndim < 2
    if name is None:
        raise ValueError(
            f"where={where!r} is a pattern of names, and these parameters have none: pass the "
            "model or model.named_parameters() instead of model.parameters()"
        )
    return fnmatch.fnmatchcase(name, where)


def options(values: Mapping[str, Any]) -> Names:
    """Return a group's options by attribute, for the ``pieces`` of a named optimizer."""
    return Names("the parameter group", values)
