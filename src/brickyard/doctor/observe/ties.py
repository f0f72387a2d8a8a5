"""Watch weights that modules share, or say that they share, for a copy of one's own."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from brickyard.doctor.observe.record import Place

if TYPE_CHECKING:
    from brickyard.doctor.observe.forward import Root
    from brickyard.doctor.observe.watcher import Watcher

Holder = tuple["weakref.ref[nn.Module]", str]


@dataclass
class Tie:
    """Modules that hold one tensor, under which attribute, and how that is known."""

    holders: list[Holder]
    how: str
    root: Root | None = None
    place: Place | None = None
    step: int | None = None


class Ties:
    """Remember ties, and look for broken ones when steps are looked at."""

    def __init__(self, watcher: Watcher) -> None:
        self.w = watcher
        self.known: list[Tie] = []
        self._noted: set[frozenset[tuple[int, str]]] = set()

    def meet(self, root: Root) -> None:
        """Record which parameters of a model share their memory when it is first called.

        Args:
            root: the model.
        """
        model = root.ref()
        if model is None:
            return
        shared: dict[tuple[int, int], list[Holder]] = {}
        for module in model.modules():
            for name, p in module._parameters.items():
                if p is None or nn.parameter.is_lazy(p) or p.is_meta or not p.numel():
                    continue
                if p.layout != torch.strided:
                    continue
                key = p.data_ptr(), p.numel()
                shared.setdefault(key, []).append((weakref.ref(module), name))
        self.known += [Tie(h, "initially", root) for h in shared.values() if len(h) > 1]
        declared = _declared(model)
        if declared is not None:
            self.known.append(Tie(declared, "declared", root))

    def replaced(self, one: Holder, other: Holder, place: Place) -> None:
        """Hear that a parameter of two modules was set anew in one of them.

        Args:
            one: where it was set.
            other: where the old one still is.
            place: the user's line.
        """
        self.known.insert(0, Tie([one, other], "initially", None, place, self.w.seen.step))

    def look(self) -> None:
        """Note ties that no longer hold; those that were tied again do."""
        kept = []
        for tie in self.known:
            found = [(m, n, m._parameters.get(n)) for r, n in tie.holders if (m := r()) is not None]
            found = [f for f in found if f[2] is not None]
            root = tie.root or self._root(found)
            if root is None and tie.root is None and len(found) > 1:
                kept.append(tie)  # of a model that was not called yet
                continue
            inside = _modules(root)
            found = [f for f in found if id(f[0]) in inside]
            if len(found) < 2 or len({f[2].shape for f in found}) > 1:
                continue  # replaced as a whole, or resized
            first = found[0]
            off = next((f for f in found[1:] if not _same(f[2], first[2])), None)
            if off is None:
                if tie.root is not None:
                    kept.append(tie)
                continue
            self._note(tie, root, off if tie.root is not None else first,
                       first if tie.root is not None else off)  # fmt: skip
        self.known = kept

    def _note(self, tie: Tie, root: Root | None, one: Any, other: Any) -> None:
        pair = frozenset((id(module), name) for module, name, _ in (one, other))
        if pair in self._noted:
            return
        self._noted.add(pair)
        name_of = self.w.forwards.name_of
        place = tie.place or (root.place if root is not None else Place())
        note = self.w.seen.note(
            "tie-broken", f"{name_of(one[0])}.{one[1]}", place, step=tie.step,
            other=f"{name_of(other[0])}.{other[1]}", shape=tuple(one[2].shape), how=tie.how,
            values=one[2].numel(),
        )  # fmt: skip
        # a copy that still equals the other one has only lost the tie; then they drift apart
        note.values["equal"] = bool(torch.equal(one[2].detach(), other[2].detach()))

    def _root(self, found: list[Any]) -> Root | None:
        for root in self.w.forwards.roots.values():
            inside = _modules(root)
            if found and all(id(f[0]) in inside for f in found):
                return root
        return None


def _modules(root: Root | None) -> set[int]:
    model = root.ref() if root is not None else None
    return {id(m) for m in model.modules()} if model is not None else set()


def _same(one: Any, two: Any) -> bool:
    return one is two or one.data_ptr() == two.data_ptr()


def _declared(model: nn.Module) -> list[Holder] | None:
    """Return what a model says it ties: the convention of models with a ``config``.

    ``config.tie_word_embeddings`` promises that ``get_output_embeddings()`` shares the weight of
    ``get_input_embeddings()``.
    """
    config = getattr(model, "config", None)
    if config is None or getattr(config, "tie_word_embeddings", False) is not True:
        return None
    pair = []
    for name in ("get_input_embeddings", "get_output_embeddings"):
        getter = getattr(model, name, None)
        module = getter() if callable(getter) else None
        if not isinstance(module, nn.Module) or module._parameters.get("weight") is None:
            return None
        pair.append((weakref.ref(module), "weight"))
    return pair
