"""CMA-ES over the ``cma`` package: no gradients, for parameter vectors of up to some hundreds."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from brickyard.catalog import brick
from brickyard.optim.ranges import POSITIVE, fixed, whole
from brickyard.optim.state import StateError


@brick(
    "optimizer", "cma_es", public="brickyard.optim", needs=("cma",), extra="sweep",
    summary="Samples candidates from a Gaussian that learns the shape of the loss; no gradients.",
    use_when="There is no gradient: simulators, thresholds, discrete metrics, hyperparameters.",
    avoid_when="There is a gradient, or more than some hundreds of parameters.",
    best_for="Rugged or ill-conditioned functions of 3 to 100 numbers.",
    paper="Hansen 2016, The CMA Evolution Strategy: A Tutorial (arXiv:1604.00772), figure 6",
    tune_first="sigma (a third of the range where the optimum may lie), then popsize",
    cost="8 * n^2 bytes for n parameters; popsize losses per generation.",
    known_issue="Parameters should be scaled so that one sigma fits them all. With noise in the "
    "loss, popsize must grow; the last candidate is not the best: take best or the mean.",
    pairs_with=("lbfgs",),
)  # fmt: skip
class CMAES:
    """Ask for candidates, tell their losses; or ``fit`` a function of the parameters.

    The arithmetic is the ``cma`` package's. Draws come from a generator of its own, so neither
    does it depend on NumPy's global state nor change it.

    Math:
        x_i = m + sigma*N(0, C) for i = 1..popsize;  m = sum of w_i * x_i over the better half
        C and sigma follow the paths that m takes

    Args:
        params: module, tensor or tensors; together they are the vector that is searched.
        sigma: first standard deviation, in units of the parameters.
        popsize: candidates per generation; None for 4 + 3*ln(n).
        box: lowest and highest value, numbers or one per parameter; None for no bounds.
        seed: of the draws; None for other ones every time.
        options: of ``cma.CMAOptions``, for example ``{"tolfun": 1e-9}``.

    Raises:
        ValueError: no parameters, a sigma, popsize or box out of range.
        TypeError: an option of the wrong kind.
        ImportError: the package ``cma`` is not installed.

    Example:
        >>> import torch
        >>> x = torch.nn.Parameter(torch.tensor([3.0, -2.0]))
        >>> search = CMAES([x], sigma=1.0, seed=0)
        >>> loss = search.fit(lambda: float(((x - 1) ** 2).sum()), evaluations=600)
        >>> [round(v, 3) for v in x.tolist()]
        [1.0, 1.0]

    Reference:
        Hansen, The CMA Evolution Strategy: A Tutorial, 2016.
    """

    def __init__(
        self, params: Any, sigma: float, popsize: int | None = None,
        box: tuple[Any, Any] | None = None, *, seed: int | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self.params = _tensors(params)
        start = self.vector()
        if not start.numel():
            raise ValueError("CMAES needs at least one parameter; got none")
        self.sigma = float(fixed("sigma", sigma, POSITIVE))
        if popsize is not None:
            whole("popsize", popsize, 2)
        if seed is not None:
            whole("seed", seed, 0)
        if not isinstance(options, Mapping | None):
            raise TypeError(f"options must be a dictionary of cma.CMAOptions; got {options!r}")
        self.settings: dict[str, Any] = {"popsize": popsize} if popsize is not None else {}
        if box is not None:
            self.settings["bounds"] = _box(box, start)
        self.settings |= options or {}
        self._begin(start, _Normal(seed))

    def _begin(self, start: torch.Tensor, normal: _Normal) -> None:
        """Make the strategy and an empty log of what happens to it."""
        try:
            import cma
        except ImportError:
            raise ImportError(
                "CMAES needs the package cma; run: pip install 'brickyard[sweep]'"
            ) from None
        self._start, self._source = start, normal.state
        self._log: list[dict[str, Any]] = []
        self._asked: torch.Tensor | None = None
        self._waiting = 0
        settings = {"verbose": -9, "verb_log": 0, "seed": np.nan, "randn": normal}
        self.strategy: Any = cma.CMAEvolutionStrategy(
            start.tolist(), self.sigma, {**settings, **self.settings}
        )

    def vector(self) -> torch.Tensor:
        """Return the parameters' present values as one vector of float64."""
        parts = [p.detach().reshape(-1).to("cpu", torch.float64) for p in self.params]
        return torch.cat(parts) if parts else torch.empty(0, dtype=torch.float64)

    @torch.no_grad()
    def assign(self, candidate: torch.Tensor) -> None:
        """Write a vector into the parameters.

        Args:
            candidate: one row of ``ask()``, or ``best`` or ``mean``.

        Raises:
            ValueError: another number of values.
        """
        sizes = [p.numel() for p in self.params]
        if candidate.shape != (sum(sizes),):
            raise ValueError(f"a candidate has shape ({sum(sizes)},); "
                             f"got {tuple(candidate.shape)}")  # fmt: skip
        for p, part in zip(self.params, candidate.split(sizes), strict=True):
            p.copy_(part.reshape(p.shape))

    def ask(self) -> torch.Tensor:
        """Return new candidates ``(popsize, n)``, float64."""
        self._asked = torch.from_numpy(np.stack(self.strategy.ask()))
        self._waiting += 1
        return self._asked.clone()

    def tell(self, candidates: torch.Tensor, losses: Sequence[float] | torch.Tensor) -> None:
        """Learn from the losses of candidates.

        Args:
            candidates: what ``ask`` returned.
            losses: one number each; a NaN counts as the worst.

        Raises:
            ValueError: another number of losses than candidates.
        """
        values = [float(v) for v in losses]
        if len(values) != len(candidates):
            raise ValueError(f"one loss per candidate: got {len(values)} losses for "
                             f"{len(candidates)} candidates")  # fmt: skip
        worst = [math.inf if math.isnan(v) else v for v in values]
        self.strategy.tell(list(candidates.numpy()), worst)
        self.strategy.stop()  # it keeps notes of its own, once per generation
        asked, self._asked = self._asked, None
        known = asked is not None and torch.equal(candidates, asked)
        self._log.append({
            "asked": self._waiting, "candidates": None if known else candidates.clone(),
            "losses": torch.tensor(values, dtype=torch.float64),
        })  # fmt: skip
        self._waiting = 0

    def state_dict(self) -> dict[str, Any]:
        """Return what the search needs to go on: its settings, its source of draws, all losses.

        It holds tensors, numbers and text only, and grows by ``popsize`` numbers per generation.
        The parameters' values are the model's to save.
        """
        return {
            "start": self._start.clone(), "sigma": self.sigma, "settings": self._shown(),
            "source": self._source, "log": [dict(entry) for entry in self._log],
            "waiting": self._waiting, "mean": self.mean,
        }  # fmt: skip

    def _shown(self) -> dict[str, str]:
        return {name: repr(value) for name, value in sorted(self.settings.items())}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on exactly where ``state_dict`` was taken: ``ask`` returns what it would have there.

        The search is run again from its losses, which takes the time of the package's arithmetic
        but no evaluation. Parameters are left as they are. Nothing is changed unless it succeeds.

        Raises:
            StateError: another number of parameters, other settings, or a version of ``cma`` that
                computes something else.
        """
        own = {"parameters": self._start.numel(), "sigma": self.sigma, **self._shown()}
        try:
            theirs = {"parameters": state_dict["start"].numel(), "sigma": state_dict["sigma"],
                      **state_dict["settings"]}  # fmt: skip
            source, log, waiting = (state_dict[key] for key in ("source", "log", "waiting"))
            mean = state_dict["mean"]
        except (KeyError, TypeError, AttributeError) as error:
            raise StateError(f"this is no state_dict of CMAES: it has no {error}") from None
        wrong = [f"{name}: {theirs.get(name, 'default')} in the checkpoint, "
                 f"{own.get(name, 'default')} here"
                 for name in {**own, **theirs} if own.get(name) != theirs.get(name)]  # fmt: skip
        if wrong:
            shown = "\n  ".join(wrong)
            raise StateError(f"the checkpoint does not fit this search:\n  {shown}")
        kept = dict(self.__dict__)
        normal = _Normal(0)
        normal.state = source
        self._begin(state_dict["start"].clone(), normal)
        for entry in log:
            for _ in range(entry["asked"]):
                self.ask()
            told: Any = self._asked if entry["candidates"] is None else entry["candidates"]
            self.tell(told, entry["losses"])
        for _ in range(waiting):
            self.ask()
        if not torch.equal(self.mean, mean):
            self.__dict__.clear()
            self.__dict__.update(kept)
            raise StateError("the search does not repeat itself: the checkpoint was written with "
                             "another version of cma or NumPy; install that one")  # fmt: skip

    @property
    def best(self) -> tuple[torch.Tensor, float]:
        """Return the best candidate so far and its loss.

        Raises:
            ValueError: nothing was told yet.
        """
        found = self.strategy.result
        if found.xbest is None:
            raise ValueError("no candidate was evaluated yet: call fit, or ask and tell")
        return torch.from_numpy(np.array(found.xbest)), float(found.fbest)

    @property
    def mean(self) -> torch.Tensor:
        """Return the centre of the search, often better than ``best`` when the loss is noisy."""
        return torch.from_numpy(np.array(self.strategy.result.xfavorite))

    @property
    def stopped(self) -> dict[str, Any]:
        """Return the conditions under which the package would end the search; empty: go on."""
        return dict(self.strategy.stop())

    def step(self, closure: Callable[[], Any]) -> float:
        """Evaluate one generation; leave its best candidate in the parameters.

        Args:
            closure: returns the loss for the parameters' present values; it runs without gradients.
        """
        candidates = self.ask()
        losses = []
        with torch.no_grad():
            for candidate in candidates:
                self.assign(candidate)
                losses.append(float(closure()))
        self.tell(candidates, losses)
        place = int(np.argmin(np.nan_to_num(losses, nan=np.inf)))
        self.assign(candidates[place])
        return losses[place]

    def fit(self, closure: Callable[[], Any], evaluations: int = 10_000) -> float:
        """Search until nothing improves or the budget is used; leave the best in the parameters.

        Args:
            closure: returns the loss for the parameters' present values.
            evaluations: how many losses may be computed, up to a generation more.

        Raises:
            ValueError: no evaluation allowed.
        """
        whole("evaluations", evaluations)
        used = 0
        while used < evaluations and not self.stopped:
            self.step(closure)
            used += int(self.strategy.popsize)
        found, loss = self.best
        self.assign(found)
        return loss


class _Normal:
    """Draw standard normal arrays from a generator of its own."""

    def __init__(self, seed: int | None) -> None:
        self.source = np.random.default_rng(seed)

    @property
    def state(self) -> str:
        """Return where the generator stands, as text."""
        return json.dumps(self.source.bit_generator.state)

    @state.setter
    def state(self, text: str) -> None:
        self.source.bit_generator.state = json.loads(text)

    def __call__(self, *shape: int) -> Any:
        return self.source.standard_normal(shape)


def _tensors(params: Any) -> list[torch.Tensor]:
    if isinstance(params, torch.nn.Module):
        return list(params.parameters())
    if isinstance(params, torch.Tensor):
        return [params]
    found: list[Any] = [p[1] if isinstance(p, tuple) else p for p in _iterable(params)]
    for p in found:
        if not isinstance(p, torch.Tensor) or not p.is_floating_point():
            raise TypeError(f"CMAES searches real tensors; got {type(p).__name__}")
    return found


def _iterable(params: Any) -> Iterable[Any]:
    if not isinstance(params, Iterable):
        raise TypeError(f"params must be a module, a tensor or tensors; got {params!r}")
    return params


def _box(box: tuple[Any, Any], start: torch.Tensor) -> list[list[float]]:
    """Return lower and upper bounds, one per parameter.

    Raises:
        ValueError: bounds of another length or in the wrong order, a start outside.
    """
    if not isinstance(box, tuple | list) or len(box) != 2:
        raise TypeError(f"box must be (lowest, highest), each a number or one per parameter; "
                        f"got {box!r}")  # fmt: skip
    low, high = (torch.as_tensor(b, dtype=torch.float64).expand(start.shape) for b in box)
    if not bool((low < high).all()):
        raise ValueError(f"box is (lowest, highest) with lowest below highest; got {box!r}")
    if not bool(((low <= start) & (start <= high)).all()):
        raise ValueError(f"the parameters start outside of the box {box!r}: {start.tolist()}")
    return [low.tolist(), high.tolist()]
