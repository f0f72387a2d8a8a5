"""Lookahead around any optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from brickyard.catalog import brick
from brickyard.optim.ranges import fixed, whole
from brickyard.optim.state import StateError


@brick(
    "optimizer", "lookahead", public="brickyard.optim",
    summary="Every k steps of another optimizer, go back part of the way to a slow average.",
    use_when="The inner optimizer oscillates, or you want its settings to matter less.",
    avoid_when="You average weights anyway (ema, swa): both smooth the same noise.",
    best_for="SGD and Adam at high rates.",
    paper="Zhang et al. 2019 (arXiv:1907.08610), algorithm 1",
    tune_first="k (5 to 10), then alpha (0.5 to 0.8)",
    cost="4 bytes per parameter beside the inner state; one pass over weights every k steps.",
    known_issue="Evaluate right after an average: weights in mid-cycle are the fast ones. timm's "
    "version begins its slow weights at the first average instead of at the start.",
    pairs_with=("sgd", "adam"),
)  # fmt: skip
class Lookahead(torch.optim.Optimizer):
    """Wrap any ``torch.optim.Optimizer``; groups, state and schedulers are the inner one's.

    Slow weights begin as the weights before the first step; the first average is at step ``k``.
    The inner state is kept over an average, as in the paper's main experiments. Steps that a
    gradient scaler skips do not count. In a chain of rules, the piece ``lookahead(every=k)`` does
    the same within the pass.

    Math:
        p = inner step;  every k steps: slow = slow + alpha*(p - slow);  p = slow

    Args:
        inner: the optimizer that takes the steps.
        k: steps between two averages.
        alpha: how far the slow weights move towards the fast ones, in [0, 1].

    Raises:
        TypeError: ``inner`` is no optimizer.
        ValueError: ``k`` or ``alpha`` out of range.

    Example:
        >>> import torch
        >>> w = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = Lookahead(torch.optim.SGD([w], lr=0.1), k=2)
        >>> for _ in range(2):
        ...     w.grad = torch.tensor([1.0])
        ...     optimizer.step()
        >>> round(w.item(), 4)
        0.9

    Reference:
        Zhang, Lucas, Hinton & Ba, Lookahead Optimizer: k steps forward, 1 step back, NeurIPS 2019,
        algorithm 1.
    """

    def __init__(self, inner: torch.optim.Optimizer, k: int = 5, alpha: float = 0.5) -> None:
        if not isinstance(inner, torch.optim.Optimizer):
            raise TypeError(f"Lookahead wraps an optimizer, as in Lookahead(SGD(params, lr=0.1)); "
                            f"got {type(inner).__name__}")  # fmt: skip
        whole("k", k)
        self._linked = False
        self.inner, self.k, self.alpha = inner, k, fixed("alpha", alpha)
        self.steps = 0
        self.slow: dict[torch.Tensor, torch.Tensor] = {}
        super().__init__(inner.param_groups, inner.defaults)
        self._linked = True

    # torch's constructor assigns these and adds groups one by one; here they are the inner one's.
    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Return the inner optimizer's groups."""
        return self.inner.param_groups

    @param_groups.setter
    def param_groups(self, value: list[dict[str, Any]]) -> None:  # pyright: ignore
        if self._linked:
            self.inner.param_groups = value

    @property
    def state(self) -> Any:
        """Return the inner optimizer's state."""
        return self.inner.state

    @state.setter
    def state(self, value: Any) -> None:  # pyright: ignore
        if self._linked:
            self.inner.state = value

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group to the inner optimizer."""
        if self._linked:
            self.inner.add_param_group(param_group)

    @property
    def _step_supports_amp_scaling(self) -> bool:
        return bool(getattr(self.inner, "_step_supports_amp_scaling", False))

    def _params(self) -> Iterator[torch.Tensor]:
        for group in self.param_groups:
            yield from group["params"]

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one inner step, and every k-th time the slow one.

        Args:
            closure: passed on.
        """
        wide = getattr(self.inner, "master_weights", False)
        for p in self._params():
            if p not in self.slow:
                half = p.dtype in (torch.bfloat16, torch.float16)
                kind = torch.float32 if wide and half else p.dtype
                self.slow[p] = p.detach().to(kind, copy=True)
        scaled = [name for name in ("grad_scale", "found_inf") if hasattr(self, name)]
        for name in scaled:
            setattr(self.inner, name, getattr(self, name))
        try:
            loss = self.inner.step() if closure is None else self.inner.step(closure)
        finally:
            for name in scaled:
                delattr(self.inner, name)
        found_inf = getattr(self, "found_inf", None)
        if getattr(self.inner, "last_skipped", False) or (found_inf is not None and
                                                          float(found_inf) != 0):  # fmt: skip
            return loss
        self.steps += 1
        if self.steps % self.k == 0:
            self._average()
        return loss

    @torch.no_grad()
    def _average(self) -> None:
        for p in self._params():
            fast, slow = self.inner.state.get(p, {}).get("master", p), self.slow[p]
            fast.copy_(slow.lerp_(fast.detach(), self.alpha))
            if fast is not p:
                p.copy_(slow)

    def state_dict(self) -> dict[str, Any]:
        """Return the inner state with the slow weights and the place in the cycle beside it."""
        keys = zip(self._keys(), self._params(), strict=True)
        slow = {key: self.slow[p] for key, p in keys if p in self.slow}
        found = dict(self.inner.state_dict())
        found["lookahead"] = {"slow": slow, "steps": self.steps}
        return found

    def _keys(self) -> list[Any]:
        """Return parameters' names, or their places where they have none."""
        names = [name for group in self.param_groups
                 for name in group.get("param_names", [None] * len(group["params"]))]  # fmt: skip
        return [i if name is None else name for i, name in enumerate(names)]

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load what ``state_dict`` returned; nothing is shared with it after.

        Raises:
            StateError: no slow weights in it, or those of other parameters.
        """
        saved = dict(state_dict)
        own = saved.pop("lookahead", None)
        if own is None:
            raise StateError("the checkpoint holds no slow weights, so it is not Lookahead's: load "
                             "it into optimizer.inner to start a new cycle")  # fmt: skip
        pairs = list(zip(self._keys(), self._params(), strict=True))
        for key, p in pairs:
            if own["slow"] and (key not in own["slow"] or own["slow"][key].shape != p.shape):
                raise StateError(
                    f"the checkpoint's slow weights do not fit parameter {key!r} of shape "
                    f"{tuple(p.shape)}; it has {list(own['slow'])[:8]}"
                )
        self.inner.load_state_dict(saved)
        self.slow = {p: own["slow"][key].to(p.device, copy=True) for key, p in pairs
                     if own["slow"]}  # fmt: skip
        self.steps = own["steps"]

    def __getstate__(self) -> dict[str, Any]:
        return {"inner": self.inner, "k": self.k, "alpha": self.alpha, "steps": self.steps,
                "slow": self.slow, "_linked": True, "defaults": self.defaults}  # fmt: skip

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        super().__setstate__({})
