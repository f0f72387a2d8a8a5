"""Clip gradients: bounds that never poison what they bound."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any, Literal

import torch
from torch import Tensor, nn

from brickyard.catalog import brick
from brickyard.clip.norms import (
    is_sharded,
    joint_norm,
    local,
    multiply,
    tensor_norms,
    unit_norms,
)
from brickyard.errors import near

__all__ = ["adaptive_clip", "clip_by_global_norm", "clip_by_layer_norm", "clip_by_value"]

#: What may be clipped: a model, parameters, or names with parameters.
Params = nn.Module | Tensor | Iterable[Tensor] | Iterable[tuple[str, Tensor]]
OnNonFinite = Literal["skip", "error"]
Skip = str | Sequence[str]


@brick(
    "clipping", "clip_by_global_norm", aliases=("clip_grad_norm", "global_norm"),
    public="brickyard.clip",
    summary="Scales all gradients together so that their joint norm stays below a bound.",
    use_when="Gradients explode or the loss spikes, diverges or goes to NaN; as insurance in "
    "recurrent nets, transformers, at high rates. 1.0 is the usual bound.",
    avoid_when="A single layer is the offender: then adaptive or per-layer clipping keeps the "
    "others at full size. With a bound that is active at every step it is a second learning rate.",
    best_for="Recurrent networks and transformers.",
    paper="Pascanu, Mikolov & Bengio 2013 (arXiv:1211.5063), algorithm 1.",
    tune_first="max_norm: log the norm for a while and put the bound above its usual value.",
    cost="One pass over the gradients for the norm; a second only when the bound is exceeded.",
)  # fmt: skip
def clip_by_global_norm(
    params: Params, max_norm: float = 1.0, on_nonfinite: OnNonFinite = "skip", skip: Skip = "none"
) -> Tensor:
    """Scale gradients in place so that their joint 2-norm is at most ``max_norm``.

    A non-finite norm leaves every gradient as it is (torch's ``clip_grad_norm_`` turns [1, inf, 2]
    into [0, nan, 0]); look at the returned norm and skip the step. Of DTensors, the norm is that
    of all shards. With a ``GradScaler``, call ``scaler.unscale_(optimizer)`` first.

    Math:
        n = sqrt(sum_i ||g_i||^2)
        g_i <- g_i * min(1, max_norm / n)

    Args:
        params: parameters whose ``.grad`` is clipped (those without one are passed over), pairs of
            name and parameter, or a model.
        max_norm: the bound, more than 0.
        on_nonfinite: ``"skip"`` leaves the gradients alone, ``"error"`` raises.
        skip: parameters that are neither counted nor clipped: ``"none"``, ``"head"`` (the last
            parameter of two dimensions or more and what follows it), or name patterns.

    Returns:
        The norm before clipping, a tensor without dimensions.

    Raises:
        ValueError: ``max_norm`` is not a positive number, ``on_nonfinite`` is unknown, or ``skip``
            matches nothing or leaves nothing.
        FloatingPointError: the norm is not finite and ``on_nonfinite="error"``.

    Example:
        >>> w = torch.zeros(5)
        >>> w.grad = torch.tensor([6.0, -8.0, 3.0, -4.0, 2.0])
        >>> round(float(clip_by_global_norm([w], 5.0)), 4)
        11.3578
        >>> [round(g, 4) for g in w.grad.tolist()]
        [2.6414, -3.5218, 1.3207, -1.7609, 0.8805]

    Reference:
        Pascanu, Mikolov & Bengio, On the difficulty of training recurrent neural networks, 2013.
    """
    _check("max_norm", max_norm, on_nonfinite)
    grads = _grads(_kept(params, skip))
    norm = joint_norm(grads)
    if norm.device.type != "cpu" and on_nonfinite == "skip":  # without waiting for the device
        factor = torch.where(norm.isfinite(), (max_norm / norm).clamp(max=1.0), 1.0)
        multiply(grads, factor)
        return norm
    norm, value = _finite(norm, grads, on_nonfinite)
    if max_norm < value < math.inf:
        multiply(grads, max_norm / value)
    return norm


@brick(
    "clipping", "clip_by_layer_norm", aliases=("per_layer", "clip_per_layer"),
    public="brickyard.clip",
    summary="Scales each tensor's gradient so that its own norm stays below a bound.",
    use_when="One layer spikes and the others are calm: they keep their full gradients.",
    avoid_when="The proportions between layers matter: those that are clipped fall behind, and the "
    "step's direction changes. Layers of very different sizes need different bounds.",
    best_for="Embeddings of rare words, new heads on old bodies.",
    paper="Same rule as Pascanu, Mikolov & Bengio 2013 (arXiv:1211.5063), algorithm 1, by tensor; "
    "evidence is thin.",
    tune_first="max_norm: the median norm of a calm layer.",
    cost="One pass for the norms; a second over the tensors that exceed the bound.",
    pairs_with=("clip_by_global_norm",),
)  # fmt: skip
def clip_by_layer_norm(
    params: Params, max_norm: float = 1.0, on_nonfinite: OnNonFinite = "skip", skip: Skip = "none"
) -> Tensor:
    """Scale each gradient in place so that its own 2-norm is at most ``max_norm``.

    If any norm is not finite, all gradients stay as they are.

    Math:
        g_i <- g_i * min(1, max_norm / ||g_i||)

    Args:
        params: parameters, pairs of name and parameter, or a model.
        max_norm: the bound for every tensor, more than 0.
        on_nonfinite: ``"skip"`` leaves the gradients alone, ``"error"`` raises.
        skip: parameters that are neither counted nor clipped: ``"none"``, ``"head"`` (the last
            parameter of two dimensions or more and what follows it), or name patterns.

    Returns:
        The joint norm of all before clipping, a tensor without dimensions.

    Raises:
        ValueError: ``max_norm`` is not a positive number, ``on_nonfinite`` is unknown, or ``skip``
            matches nothing or leaves nothing.
        FloatingPointError: a norm is not finite and ``on_nonfinite="error"``.

    Example:
        >>> a, b = torch.zeros(2), torch.zeros(2)
        >>> a.grad, b.grad = torch.tensor([3.0, 4.0]), torch.tensor([0.3, 0.4])
        >>> float(clip_by_layer_norm([a, b], 1.0)) > 5
        True
        >>> [round(g, 4) for g in [*a.grad.tolist(), *b.grad.tolist()]]
        [0.6, 0.8, 0.3, 0.4]

    Reference:
        Pascanu, Mikolov & Bengio 2013, algorithm 1, applied to each tensor by itself.
    """
    _check("max_norm", max_norm, on_nonfinite)
    grads = _grads(_kept(params, skip))
    norms = tensor_norms(grads)
    norm, value = _finite(torch.linalg.vector_norm(norms), grads, on_nonfinite)
    if math.isfinite(value):
        if not bool(norms.isfinite().all()):  # finite gradients whose squares are not
            norms = torch.stack([joint_norm([local(g).double()]) for g in grads])
        over = [(g, max_norm / n) for g, n in zip(grads, norms.tolist(), strict=True)
                if n > max_norm]  # fmt: skip
        if over:
            multiply([g for g, _ in over], [factor for _, factor in over])
    return norm


@brick(
    "clipping", "clip_by_value", aliases=("clip_grad_value", "value_clipping"),
    public="brickyard.clip",
    summary="Bounds every single entry of the gradients.",
    use_when="A few entries explode and the direction of the step may change.",
    avoid_when="Nearly always: scaling by the norm keeps the direction.",
    best_for="Old recipes of recurrent nets and of reinforcement learning that name it.",
    paper="Mikolov 2012, Statistical Language Models Based on Neural Networks, PhD thesis, "
    "section 3.2.2",
    tune_first="limit: above nearly all entries of calm steps.",
    cost="A pass for the norm that is returned, and one for the bounds.",
    pairs_with=("clip_by_global_norm",),
)  # fmt: skip
def clip_by_value(
    params: Params, limit: float = 1.0, on_nonfinite: OnNonFinite = "skip", skip: Skip = "none"
) -> Tensor:
    """Bound every entry of the gradients in place to [-limit, limit].

    If any entry is not finite, all gradients stay as they are: a bound in place of an infinity
    would be an invented number.

    Math:
        g <- max(-limit, min(limit, g))

    Args:
        params: parameters, pairs of name and parameter, or a model.
        limit: the bound, more than 0.
        on_nonfinite: ``"skip"`` leaves the gradients alone, ``"error"`` raises.
        skip: parameters that are neither counted nor clipped: ``"none"``, ``"head"`` (the last
            parameter of two dimensions or more and what follows it), or name patterns.

    Returns:
        The joint norm before clipping, a tensor without dimensions.

    Raises:
        ValueError: ``limit`` is not a positive number, ``on_nonfinite`` is unknown, ``skip``
            matches nothing or leaves nothing, or a DTensor's sums are still due.
        FloatingPointError: an entry is not finite and ``on_nonfinite="error"``.

    Example:
        >>> w = torch.zeros(3)
        >>> w.grad = torch.tensor([0.5, -3.0, 4.0])
        >>> round(float(clip_by_value(w, 1.0)), 4), w.grad.tolist()
        (5.0249, [0.5, -1.0, 1.0])

    Reference:
        Mikolov 2012, PhD thesis, section 3.2.2.
    """
    _check("limit", limit, on_nonfinite)
    grads = _grads(_kept(params, skip))
    for g in grads:
        if is_sharded(g) and any(p.is_partial() for p in g.placements):  # pyright: ignore
            raise ValueError(
                "clip_by_value needs gradients that are summed over the processes, and one has "
                f"placements {g.placements}; redistribute it first"  # pyright: ignore
            )
    norm, value = _finite(joint_norm(grads), grads, on_nonfinite)
    if math.isfinite(value) and grads:
        own: Any = [local(g) for g in grads]
        if all(g.device.type == "cpu" for g in own):  # there both bounds take one pass
            for g in own:
                g.clamp_(-limit, limit)
        else:
            torch._foreach_clamp_max_(own, limit)  # pyright: ignore[reportPrivateImportUsage]
            torch._foreach_clamp_min_(own, -limit)  # pyright: ignore[reportPrivateImportUsage]
    return norm


@brick(
    "clipping", "adaptive_clip", aliases=("agc", "adaptive_gradient_clipping"),
    public="brickyard.clip",
    summary="Bounds each unit's gradient by a share of the norm of the unit's own weights.",
    use_when="Networks without normalization layers, large batches, high rates.",
    avoid_when="Batch norm is there already (little or no gain), or weights start at zero and must "
    "leave it: eps bounds their steps.",
    best_for="Normalizer-free residual networks.",
    paper="Brock, De, Smith & Simonyan 2021, High-Performance Large-Scale Image Recognition "
    "Without Normalization, arXiv:2102.06171, section 4",
    tune_first="factor: 0.01 for large batches, up to 0.08 for small ones.",
    cost="A pass over gradients and weights for the norms, and one for the factors.",
    pairs_with=("clip_by_global_norm",),
)  # fmt: skip
def adaptive_clip(
    params: Params, factor: float = 0.01, eps: float = 1e-3, unitwise: bool = True,
    on_nonfinite: OnNonFinite = "skip", skip: Skip = "head",
) -> Tensor:  # fmt: skip
    """Scale each unit's gradient in place to at most a share of the norm of the unit's weights.

    A unit is what leads to one output: a slice along the first dimension of a weight; a vector is
    one unit. If any norm is not finite, all gradients stay as they are.

    Math:
        limit_i = factor * max(||w_i||, eps)
        g_i <- g_i * min(1, limit_i / ||g_i||)

    Args:
        params: parameters, pairs of name and parameter, or a model.
        factor: largest norm of a gradient as a share of the weights' norm.
        eps: smallest norm of weights that counts, so that weights of zero can move.
        unitwise: by units; False takes each tensor as a whole.
        on_nonfinite: ``"skip"`` leaves the gradients alone, ``"error"`` raises.
        skip: parameters that are not clipped: ``"head"``, as in the paper, is the last parameter
            of two dimensions or more and what follows it; ``"none"``; or name patterns.

    Returns:
        The joint norm of what is not skipped before clipping, a tensor without dimensions.

    Raises:
        ValueError: ``factor`` or ``eps`` is not a positive number, ``on_nonfinite`` is unknown, or
            ``skip`` matches nothing or leaves nothing.
        FloatingPointError: a norm is not finite and ``on_nonfinite="error"``.

    Example:
        >>> w = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
        >>> w.grad = torch.tensor([[3.0, 4.0], [0.0, 1e-6]])
        >>> round(float(adaptive_clip([w], factor=0.1, skip="none")), 4)
        5.0
        >>> [round(g, 4) for g in w.grad[0].tolist()], w.grad[1].tolist()[0]
        ([0.3, 0.4], 0.0)

    Reference:
        Brock et al. 2021, arXiv:2102.06171, equation 3, and section 4.1 on the last layer.
    """
    _check("factor", factor, on_nonfinite)
    _check("eps", eps, on_nonfinite)
    kept = [p for p in _kept(params, skip) if p.grad is not None]
    grads = _grads(kept)
    norm, value = _finite(joint_norm(grads), grads, on_nonfinite)
    if not math.isfinite(value):
        return norm
    with torch.no_grad():
        for p, g in zip(kept, grads, strict=True):
            size = unit_norms(g, unitwise)
            limit = factor * unit_norms(p.detach(), unitwise, like=g).clamp(min=eps)
            own = local(g)
            own.mul_(torch.where(size > limit, limit / size, 1.0).to(own.dtype))
    return norm


def _check(name: str, value: float, on_nonfinite: str) -> None:
    if not (isinstance(value, int | float) and value > 0):
        raise ValueError(f"{name} must be a number above 0; got {value!r}")
    if on_nonfinite not in ("skip", "error"):
        raise ValueError(f"on_nonfinite must be 'skip' or 'error'; got {on_nonfinite!r}")


def _grads(params: Iterable[Tensor]) -> list[Tensor]:
    return [p.grad for p in params if p.grad is not None]


def _kept(params: Params, skip: Skip) -> list[Tensor]:
    """Return the parameters that are clipped."""
    if isinstance(params, Tensor):
        many: list[Any] = [params]
    else:
        many = list(params.named_parameters() if isinstance(params, nn.Module) else params)
    named = bool(many) and isinstance(many[0], tuple)
    plain: list[Tensor] = [pair[1] for pair in many] if named else many
    if isinstance(skip, str) and skip == "none":
        return plain
    if isinstance(skip, str) and skip == "head":
        wide = [i for i, p in enumerate(plain) if p.ndim > 1]
        kept = plain[: wide[-1]] if wide else plain
    else:
        kept = _unmatched(many if named else [], skip)
    if plain and not kept:
        raise ValueError(
            f"skip={skip!r} leaves nothing to clip of {len(plain)} parameters; give skip='none'"
        )
    return kept


def _unmatched(named: Sequence[tuple[str, Tensor]], skip: Skip) -> list[Tensor]:
    patterns = [skip] if isinstance(skip, str) else list(skip)
    if not named:
        raise ValueError(
            f"skip={skip!r} goes by names; give a model or model.named_parameters(), or take "
            "'head' or 'none'"
        )
    names = [name for name, _ in named]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(f"skip: {pattern!r} matches no parameter{near(pattern, names)}")
    return [p for name, p in named if not any(fnmatchcase(name, one) for one in patterns)]


def _finite(norm: Tensor, grads: Sequence[Tensor], on_nonfinite: str) -> tuple[Tensor, float]:
    """Return the norm and its value; one that only overflowed is taken again in float64.

    Raises:
        FloatingPointError: it is not finite, and that is an error.
    """
    value = float(norm)
    if math.isfinite(value):
        return norm, value
    if not any(map(is_sharded, grads)) and all(bool(g.isfinite().all()) for g in grads):
        norm = joint_norm([g.double() for g in grads])
        value = float(norm)
    if not math.isfinite(value) and on_nonfinite == "error":
        raise FloatingPointError(
            f"the gradients' joint norm is {value}; find the first non-finite loss or layer, "
            "lower the rate, or use on_nonfinite='skip' and leave the step out"
        )
    return norm, value
