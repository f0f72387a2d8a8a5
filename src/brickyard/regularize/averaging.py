"""Averages of weights over training: kept by name, put in place for evaluation, always put back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, Literal

import torch
from torch import Tensor, nn

from brickyard.catalog import brick
from brickyard.errors import near
from brickyard.regularize.statistics import recalibrate, statistics

__all__ = ["EMA", "SWA", "Average"]

Tensors = dict[str, Tensor]


class Average(ABC):
    """Keep an average of a model's weights; subclasses say which.

    Parameters that several modules share are kept once. Averages of half-precision weights are
    kept in fp32. Nothing here draws random numbers.

    Args:
        model: the model that is trained.
        buffers: ``"average"`` treats buffers of floating-point numbers as weights; ``"copy"``
            takes the model's present ones. Other buffers are copied in any case.

    Raises:
        ValueError: an unknown way for buffers.
    """

    #: Whether batch norm's statistics must be measured anew before the average is evaluated.
    recalibrates = False

    def __init__(self, model: nn.Module, buffers: str = "average"):
        if buffers not in ("average", "copy"):
            raise ValueError(f"buffers must be 'average' or 'copy'; got {buffers!r}")
        self.model = model
        self.buffers = buffers
        self.steps = 0
        self.updates = 0
        self.averaged: Tensors = {name: _wide(t) for name, t in self._moving()}
        self._inside = False

    @property
    def ready(self) -> bool:
        """Say whether there is an average to evaluate."""
        return self.updates > 0

    def _moving(self) -> Iterator[tuple[str, Tensor]]:
        """Yield everything that is averaged, by name."""
        yield from self.model.named_parameters()
        if self.buffers == "average":
            yield from ((n, b) for n, b in _kept(self.model) if b.is_floating_point())

    def _due(self) -> bool:
        """Say whether the step that was just taken is averaged."""
        return True

    @abstractmethod
    def _weight(self) -> float:
        """Return the share of the newest weights in the average."""

    @torch.no_grad()
    def update(self) -> bool:
        """Take the model's present weights; call it after each step. Return whether they count.

        Raises:
            RuntimeError: called while the average is in place.
        """
        if self._inside:
            raise RuntimeError(
                "update() inside applied() would average the average: leave it first"
            )
        self.steps += 1
        if not self._due():
            return False
        weight = self._weight()
        self.updates += 1
        # By kind: shards and whole tensors (buffers are whole) do not go into one call.
        pairs = dict[type, tuple[list[Any], list[Any]]]()
        for name, t in self._moving():
            old = self.averaged.get(name)
            if old is None or old.shape != t.shape:
                self._explain({n: _wide(t) for n, t in self._moving()})
            olds, news = pairs.setdefault(type(old), ([], []))
            olds.append(old)
            news.append(t if t.dtype == old.dtype else t.to(old.dtype))  # pyright: ignore
        for olds, news in pairs.values():
            torch._foreach_lerp_(olds, news, weight)  # pyright: ignore[reportPrivateImportUsage]
        return True

    @contextmanager
    def applied(self) -> Iterator[nn.Module]:
        """Put the averaged weights into the model; the trained ones come back, also on errors.

        Costs a second copy of the weights for the time being. What the block itself does to the
        weights is lost.
        """
        inside, self._inside = self._inside, True
        live = dict(self._live())
        with torch.no_grad():
            raw = {name: t.detach().clone() for name, t in live.items()}
        try:
            with torch.no_grad():
                for name, t in self.averaged.items():
                    live[name].copy_(t)
            yield self.model
        finally:
            with torch.no_grad():
                for name, t in raw.items():
                    live[name].copy_(t)
            self._inside = inside

    def _live(self) -> Iterator[tuple[str, Tensor]]:
        yield from self.model.named_parameters()
        yield from _kept(self.model)

    @torch.no_grad()
    def keep(self) -> None:
        """Put the averaged weights into the model for good."""
        live = dict(self._live())
        for name, t in self.averaged.items():
            live[name].copy_(t)

    def copy(self) -> nn.Module:
        """Return a copy of the model that has the averaged weights."""
        with self.applied():
            return deepcopy(self.model)

    def recalibrate(self, inputs: Iterable[Tensor]) -> bool:
        """Measure batch norm's statistics anew under the averaged weights, and keep them.

        Args:
            inputs: batches of training inputs.

        Returns:
            Whether the model has such statistics.
        """
        with self.applied():
            found = recalibrate(self.model, inputs)
            for name, buffer in statistics(self.model):
                if name in self.averaged:
                    self.averaged[name].copy_(buffer)
                else:
                    self.averaged[name] = _wide(buffer)
        return found

    def state_dict(self) -> dict[str, Any]:
        """Return the average by name, and how many steps and updates it has seen."""
        return {"steps": self.steps, "updates": self.updates,
                "averaged": {name: t.clone() for name, t in self.averaged.items()}}  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state; nothing is shared with it.

        Raises:
            ValueError: an average of another model; the message names the differences.
        """
        saved: Mapping[str, Tensor] = state["averaged"]
        measured = {name for name, _ in statistics(self.model)}
        self._explain({n: t for n, t in saved.items() if n in self.averaged or n not in measured})
        devices = {name: t.device for name, t in self._live()}
        self.averaged = {n: _wide(t).to(devices[n]) for n, t in saved.items()}
        self.steps, self.updates = int(state["steps"]), int(state["updates"])

    def _explain(self, other: Mapping[str, Tensor]) -> None:
        """Raise where names or shapes differ from those of the average."""
        missing, extra = (
            sorted(set(self.averaged) - set(other)),
            sorted(set(other) - set(self.averaged)),
        )
        shapes = [n for n, t in other.items()
                  if n in self.averaged and t.shape != self.averaged[n].shape]  # fmt: skip
        if extra:
            hint = near(extra[0], self.averaged)
            raise ValueError(f"the average has no weight called {extra[0]!r}{hint}; the model "
                             "must stay the one it was made from")  # fmt: skip
        if missing:
            raise ValueError(f"the average has {missing[0]!r}, which is missing: it belongs to "
                             "another model")  # fmt: skip
        if shapes:
            name = shapes[0]
            raise ValueError(f"{name!r} has the shape {tuple(other[name].shape)}, and in the "
                             f"average {tuple(self.averaged[name].shape)}")  # fmt: skip


def _wide(t: Tensor) -> Tensor:
    """Return a copy, in fp32 at least: small shares of new weights vanish in half precision."""
    if not t.is_floating_point():
        return t.detach().clone()
    return t.detach().to(torch.promote_types(t.dtype, torch.float32), copy=True)


def _kept(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the buffers that a checkpoint holds."""
    seen = set[int]()
    for prefix, module in model.named_modules():
        left_out = module._non_persistent_buffers_set
        for own, buffer in module._buffers.items():
            if buffer is not None and own not in left_out and id(buffer) not in seen:
                seen.add(id(buffer))
                yield f"{prefix}.{own}" if prefix else own, buffer


@brick(
    "regularizer", "ema", aliases=("weight_ema", "polyak", "model_ema"),
    public="brickyard.regularize",
    summary="Keeps a moving average of the weights, and evaluates and saves that.",
    use_when="The last epochs are noisy: constant or slowly falling rates, small batches, "
    "generative models.",
    avoid_when="The rate falls to zero anyway: then the last weights are nearly their own average. "
    "Runs of a few hundred steps, with a decay above 0.99.",
    best_for="Vision and diffusion models; anything trained at a constant rate.",
    paper="Polyak & Juditsky 1992, Acceleration of Stochastic Approximation by Averaging; "
    "Morales-Brotons et al. 2024 (arXiv:2411.18704) on what it does in deep nets.",
    tune_first="decay: 1/(1 - decay) steps are averaged; some epochs' worth.",
    cost="A copy of the weights; one pass over them each step; every evaluation runs twice "
    "(averaged and raw). As ema_weights in a chain, the pass is part of the optimizer's.",
    pairs_with=("sgd", "adamw", "early_stopping"),
)  # fmt: skip
class EMA(Average):
    """Average weights with an exponentially fading memory.

    Math:
        d_n = min(decay, (1 + n) / (warmup + n))        (n updates so far; decay where warmup is 0)
        average = d_n*average + (1 - d_n)*weights

    Args:
        model: the model that is trained; the average starts at its present weights.
        decay: share of the average that stays, per step: 0.999 remembers some 1000 steps.
        warmup: lets the first steps count more, so that the start is forgotten soon: the first
            update keeps 1/warmup of the start. 0 for none.
        buffers: ``"average"`` averages buffers such as batch norm's statistics as well, ``"copy"``
            takes the model's present ones.

    Raises:
        ValueError: a number out of range.

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.zeros_(model.weight)
        >>> ema = EMA(model, decay=0.9, warmup=0)
        >>> _ = nn.init.ones_(model.weight)
        >>> ema.update()
        True
        >>> with ema.applied():
        ...     print(round(model.weight.item(), 4))
        0.1
        >>> model.weight.item()
        1.0

    Reference:
        Polyak & Juditsky, 1992; the warm-up as in TensorFlow's ExponentialMovingAverage.
    """

    def __init__(
        self, model: nn.Module, decay: float = 0.999, warmup: float = 10.0,
        buffers: Literal["average", "copy"] = "average",
    ):  # fmt: skip
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be from 0 and below 1; got {decay!r}")
        if warmup != 0 and not warmup >= 1:
            raise ValueError(f"warmup must be 0 (none) or 1 and more; got {warmup!r}")
        super().__init__(model, buffers)
        self.decay, self.warmup = decay, warmup

    def _weight(self) -> float:
        decay = self.decay
        if self.warmup:
            decay = min(decay, (1 + self.updates) / (self.warmup + self.updates))
        return 1 - decay


@brick(
    "regularizer", "swa", aliases=("stochastic_weight_averaging",), public="brickyard.regularize",
    summary="Takes the plain mean of the weights over the last part of the run.",
    use_when="The last quarter can run at a constant or cyclic rate that is not small, so that the "
    "weights move around a flat region whose middle is wanted.",
    avoid_when="The rate has already fallen to nothing where it starts: all weights are the same.",
    best_for="Vision models trained with SGD, and models that have finished training once.",
    paper="Izmailov et al. 2018 (arXiv:1803.05407).",
    tune_first="start, and the rate from there on: half to a tenth of the peak.",
    cost="A copy of the weights; a pass over the training data for each evaluation of a model with "
    "batch norm; evaluations run twice (averaged and raw).",
    pairs_with=("sgd", "cyclic", "wsd"),
)  # fmt: skip
class SWA(Average):
    """Average weights evenly from a step on, and measure batch norm's statistics anew.

    Math:
        average = average + (weights - average) / (n + 1)      (n weights averaged so far)

    Args:
        model: the model that is trained.
        start: step after which counting begins, or "75%", "10ep" in a recipe.
        every: distance of the weights that count: steps, or "1ep" in a recipe.

    Raises:
        ValueError: numbers out of range; lengths that have not been resolved.

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> swa = SWA(model, start=1, every=1)
        >>> for value in (5.0, 1.0, 3.0):
        ...     _ = nn.init.constant_(model.weight, value)
        ...     _ = swa.update()
        >>> swa.copy().weight.item()
        2.0

    Reference:
        Izmailov et al., Averaging Weights Leads to Wider Optima and Better Generalization, 2018,
        algorithm 1.
    """

    recalibrates = True

    def __init__(self, model: nn.Module, start: int | str = "75%", every: int | str = "1ep"):
        for name, value, least in (("start", start, 0), ("every", every, 1)):
            if isinstance(value, int) and value < least:
                raise ValueError(f"{name} must be {least} or more steps; got {value}")
        super().__init__(model, "copy")
        self.start, self.every = start, every
        self.calibrated = 0

    def resolve(self, steps: Callable[[int | str], int]) -> None:
        """Turn lengths such as "75%" into steps.

        Args:
            steps: says how many steps a length has.
        """
        self.start = self.start if isinstance(self.start, int) else steps(self.start)
        self.every = self.every if isinstance(self.every, int) else steps(self.every)

    def _due(self) -> bool:
        if not (isinstance(self.start, int) and isinstance(self.every, int)):
            raise ValueError(
                f"start={self.start!r}, every={self.every!r}: in a loop of your own give steps, or "
                "call resolve()"
            )
        past = self.steps - self.start
        return past > 0 and past % self.every == 0

    def _weight(self) -> float:
        return 1 / (self.updates + 1)

    def recalibrate(self, inputs: Iterable[Tensor]) -> bool:
        """Measure batch norm's statistics anew, unless that was done for the present average.

        Args:
            inputs: batches of training inputs.
        """
        if self.calibrated == self.updates:
            return False
        self.calibrated = self.updates
        return super().recalibrate(inputs)

    def state_dict(self) -> dict[str, Any]:
        """Return the average by name, and how many steps and updates it has seen."""
        return {**super().state_dict(), "calibrated": self.calibrated}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state."""
        super().load_state_dict(state)
        self.calibrated = int(state["calibrated"])
