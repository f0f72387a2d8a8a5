"""Bind a chain's hyperparameters to the keys of a parameter group, and read them once per step."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from brickyard.optim.chain import Chain
from brickyard.optim.ranges import number

__all__ = ["Binding", "number", "shown"]


class Binding:
    """Say under which key of a group each hyperparameter of a chain is found.

    A group's own key of the same name comes first; then, for ``beta1``, ``beta2`` ..., an entry of
    the group's ``betas``; else the piece's own value (``added``).

    Args:
        chain: the chain.
        own: keys that the group has anyway.
    """

    def __init__(self, chain: Chain, own: Collection[str]) -> None:
        self.keys: dict[tuple[int, str], str] = {}
        self.added: dict[str, Any] = {}
        for (i, name), key in chain.keys().items():
            beta = re.fullmatch(r"beta(\d)", name)
            if key in own:
                self.keys[i, name] = key
            elif name in own and name not in chain.pieces[i].given:
                self.keys[i, name] = name
            elif beta and "betas" in own and name not in chain.pieces[i].given:
                self.keys[i, name] = f"betas.{int(beta[1]) - 1}"
            else:
                self.keys[i, name] = key
                self.added[key] = chain.pieces[i].hyper[name]
        keys = ["lr", *dict.fromkeys(self.keys.values())]
        self.read: Callable[[Mapping[str, Any], int], dict[str, Any]] = _reader(keys, self.added)


def shown(key: str) -> str:
    """Return what a key is called in texts."""
    return f"beta{int(key[6:]) + 1}" if key.startswith("betas.") else key


def _reader(
    keys: list[str], own: Mapping[str, Any]
) -> Callable[[Mapping[str, Any], int], dict[str, Any]]:
    """Return a function that reads all keys of a group: one dictionary display, no loop."""
    lines, parts = [], []
    for i, key in enumerate(keys):
        # A piece's own name may hold a dot too ("clip.max_norm"): only betas are looked into.
        name, _, place = key.partition(".") if key.startswith("betas.") else (key, "", "")
        item = f"{'C' if key in own else 'G'}[{name!r}]" + (f"[{place}]" if place else "")
        lines.append(f"x{i} = {item}")
        value = f"x{i} if x{i}.__class__ is float else number(x{i}, step, {shown(key)!r})"
        parts.append(f"{key!r}: {value}")
    body = "\n    ".join([*lines, "return {" + ", ".join(parts) + "}"])
    space: dict[str, Any] = {"number": number, "C": own}
    exec(f"def read(G, step):\n    {body}", space)
    return space["read"]
