"""Choose the parameters that penalties and constraints act on, by name and by kind of module."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from brickyard.errors import near

__all__ = ["Named", "Where", "choose", "named", "vector_norm"]

#: A module, or parameters with their names as ``model.named_parameters()`` gives them.
Named = nn.Module | Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]
#: ``"weights"``, ``"all"``, or patterns of names.
Where = str | Sequence[str]

_NORMS = (
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    nn.LocalResponseNorm,
)


def named(model: Named) -> Iterator[tuple[str, Tensor, nn.Module | None]]:
    """Yield name, parameter and owner of all that is trained; one that is shared comes once."""
    if isinstance(model, nn.Module):
        seen = set[int]()
        for prefix, module in model.named_modules():
            for own, p in module.named_parameters(prefix, recurse=False):
                if p.requires_grad and id(p) not in seen:
                    seen.add(id(p))
                    yield own, p, module
        return
    for pair in model.items() if isinstance(model, Mapping) else model:
        if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[1], Tensor)):
            raise TypeError(
                "give a module, or parameters with their names (model.named_parameters()); "
                f"got an entry of type {type(pair).__name__}"
            )
        name, p = pair
        if p.requires_grad:
            yield str(name), p, None


def choose(model: Named, where: Where, who: str) -> list[Tensor]:
    """Return the parameters that ``where`` means; see :func:`brickyard.regularize.l1_penalty`.

    Args:
        model: what they belong to.
        where: ``"weights"``, ``"all"``, or patterns of names.
        who: asks, for messages.

    Raises:
        ValueError: nothing is left, or a pattern matches nothing.
    """
    return [p for _, p, _ in chosen(model, where, who)]


def chosen(model: Named, where: Where, who: str) -> list[tuple[str, Tensor, nn.Module | None]]:
    """Return name, parameter and owner of what ``where`` means."""
    known = list(named(model))
    if where == "all":
        found = known
    elif where == "weights":
        found = [entry for entry in known if _is_weight(entry[1], entry[2])]
    else:
        patterns = [where] if isinstance(where, str) else list(where)
        names = [name for name, _, _ in known]
        for pattern in patterns:
            if not fnmatch.filter(names, pattern):
                raise ValueError(
                    f"{who}: the pattern {pattern!r} matches no trained parameter"
                    f"{near(pattern, names)}"
                )
        found = [e for e in known if any(fnmatch.fnmatchcase(e[0], p) for p in patterns)]
    if not found:
        what = "no matrix or filter that is trained" if where == "weights" else "nothing trained"
        raise ValueError(f"{who}: the model has {what}; give where='all' or patterns of names")
    return found


def _is_weight(p: Tensor, module: nn.Module | None) -> bool:
    """Say whether a parameter is a matrix or filter, no norm's and not marked ``no_decay``."""
    marked = getattr(module, "no_decay", False)
    if getattr(p, "no_decay", False) or marked is True or isinstance(module, _NORMS):
        return False
    if isinstance(marked, tuple | list | set | frozenset):
        own = module._parameters if module is not None else {}
        if any(own.get(name) is p for name in marked):
            return False
    return p.ndim >= 2 and sum(size > 1 for size in p.shape) > 0


def vector_norm(params: Sequence[Tensor], order: float) -> Tensor:
    """Return the norm of every tensor, shape (n,), in fp32 at least; differentiable.

    Args:
        params: of any shapes, types and devices.
        order: of the norm.
    """
    wide = [torch.promote_types(p.dtype, torch.float32) for p in params]
    if len(set(wide)) == 1:
        dtype = None if wide[0] == params[0].dtype else wide[0]
        norms = torch._foreach_norm(list(params), order, dtype)  # pyright: ignore
    else:
        norms = [torch.linalg.vector_norm(p, order, dtype=w)
                 for p, w in zip(params, wide, strict=True)]  # fmt: skip
    first = norms[0]
    return torch.stack([n.to(first.device, first.dtype) for n in norms])
