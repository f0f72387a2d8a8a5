"""Ensembles: several models that answer together, also those of one run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brickyard.catalog import brick
from brickyard.runs import CHECKPOINTS

__all__ = ["Ensemble", "SnapshotEnsemble"]

Of = Literal["auto", "softmax", "sigmoid", "values"]
_OF = ("auto", "softmax", "sigmoid", "values")


def _check_of(of: str) -> None:
    if of not in _OF:
        raise ValueError(f"of must be one of {', '.join(_OF)}; got {of!r}")


@brick(
    "regularizer", "ensemble", aliases=("deep_ensemble", "bagging"),
    public="brickyard.regularize",
    summary="Lets several trained models answer together, by the mean of their probabilities.",
    use_when="Quality or honest probabilities count more than the time of an answer.",
    avoid_when="One model must be deployed: distil the ensemble into one. Members that make the "
    "same mistakes (same seed, same data order) add little. Members that were trained on samples "
    "which this run validates on: the measure would lie.",
    best_for="Competitions, uncertainty, small data.",
    paper="Hansen & Salamon 1990; Lakshminarayanan et al. 2017 (arXiv:1612.01474).",
    tune_first="The number of members: most of the gain comes with 3 to 5.",
    cost="Members times the training, the memory and the answer's time.",
    pairs_with=("snapshot_ensemble",),
)  # fmt: skip
class Ensemble(nn.Module):
    """Answer by the mean of several models' probabilities; logits in, logits out.

    The outputs are log-probabilities of the mean, which are logits too: every loss, metric and
    softmax takes them as it would take one model's.

    Math:
        softmax: log((1/M) * sum_m softmax(z_m))
        sigmoid: logit((1/M) * sum_m sigmoid(z_m))
        values:  (1/M) * sum_m z_m

    Args:
        models: the members: modules, used as they are, not copied; or checkpoints and run folders
            as in :meth:`from_checkpoints`. In a recipe these, whose models the run's own joins at
            its end.
        of: what outputs are: logits of classes on dimension 1 (``"softmax"``), independent logits
            (``"sigmoid"``), or plain ``"values"``; "auto" lets the recipe's task say, and means
            ``"softmax"`` elsewhere.
        model: gives members from files their architecture; it is not changed.

    Raises:
        ValueError: no members, an unknown kind of output, or a file that is no checkpoint of such
            a model.

    Example:
        >>> sure, unsure = nn.Linear(1, 2), nn.Linear(1, 2)
        >>> both = Ensemble([sure, unsure]).eval()
        >>> x = torch.ones(3, 1)
        >>> mean = (sure(x).softmax(1) + unsure(x).softmax(1)) / 2
        >>> torch.allclose(both(x).softmax(1), mean)
        True

    Reference:
        Lakshminarayanan et al., Simple and Scalable Predictive Uncertainty Estimation using Deep
        Ensembles, 2017, section 2.4.
    """

    def __init__(
        self, models: Iterable[nn.Module | str | Path], of: Of = "auto",
        model: nn.Module | None = None,
    ):  # fmt: skip
        super().__init__()
        _check_of(of)
        if isinstance(models, str | Path):
            raise ValueError(f"models must be a list; got {str(models)!r} alone")
        self.members = nn.ModuleList()
        self.sources: list[str] = []
        for one in models:
            self.sources += [] if isinstance(one, nn.Module) else [str(one)]
            self.members.extend([one] if isinstance(one, nn.Module) else _read(one, model))
        if not len(self.members):
            raise ValueError("an ensemble needs members; got none")
        self.of: Of = of

    def joined(self, model: nn.Module) -> Ensemble:
        """Return the ensemble of these members and a copy of one more model, in eval mode.

        Args:
            model: the one that joins them, as the first.
        """
        return Ensemble([deepcopy(model), *self.members], self.of).eval()

    @classmethod
    def from_states(
        cls, model: nn.Module, states: Iterable[Mapping[str, Any]], of: Of = "auto"
    ) -> Ensemble:
        """Return an ensemble of copies of a model, one for each state.

        Args:
            model: gives the architecture; it is not changed.
            states: what ``model.state_dict()`` returned, or checkpoints that hold it as "model".
            of: what outputs are.
        """
        members = []
        for state in states:
            member = deepcopy(model)
            inner = state.get("model")
            member.load_state_dict(inner if isinstance(inner, Mapping) else state)
            members.append(member)
        return cls(members, of)

    @classmethod
    def from_checkpoints(
        cls, model: nn.Module, paths: Iterable[str | Path], of: Of = "auto"
    ) -> Ensemble:
        """Return an ensemble of the models in checkpoint files.

        Args:
            model: gives the architecture; it is not changed.
            paths: files that hold a state dict, a checkpoint of the trainer or the members of a
                snapshot ensemble; or run folders, whose best weights are taken.
            of: what outputs are.

        Raises:
            FileNotFoundError: no such file.
        """
        return cls.from_states(model, [state for path in paths for state in _states(path)], of)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the members' joint answer, shaped as one member's."""
        return combine([member(*args, **kwargs) for member in self.members], self.of)


def _states(path: str | Path) -> list[Mapping[str, Any]]:
    """Return the state dicts that a checkpoint file or a run folder holds."""
    file = Path(path) / CHECKPOINTS / "best.pt" if Path(path).is_dir() else Path(path)
    state = torch.load(file, weights_only=True, map_location="cpu")
    members = state.get("members")
    return members if isinstance(members, list) else [state]


def _read(path: str | Path, model: nn.Module | None) -> nn.ModuleList:
    """Return the models in a file.

    Raises:
        ValueError: there is no such file, or it does not fit; the message says which.
    """
    if model is None:
        raise ValueError(f"{str(path)!r} holds weights alone; give model= for the architecture")
    try:
        return Ensemble.from_states(model, _states(path)).members
    except OSError as error:
        raise ValueError(f"no run folder or checkpoint {str(path)!r}: {error.strerror}") from error
    except (RuntimeError, AttributeError, UnpicklingError) as error:
        reason = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ValueError(
            f"{str(path)!r} holds no weights of such a model: {' '.join(reason[:2])[:200]}"
        ) from error


def combine(outputs: Sequence[Tensor], of: str) -> Tensor:
    """Return the joint answer of several outputs of one shape.

    Args:
        outputs: logits or values of each member.
        of: ``"softmax"`` (also "auto"), ``"sigmoid"`` or ``"values"``.
    """
    z = torch.stack(list(outputs))
    if of == "values":
        return z.mean(0)
    if of in ("auto", "softmax"):
        return F.log_softmax(z, 2 if z.ndim > 2 else -1).logsumexp(0) - math.log(len(z))
    return F.logsigmoid(z).logsumexp(0) - F.logsigmoid(-z).logsumexp(0)


@brick(
    "regularizer", "snapshot_ensemble", aliases=("snapshot", "checkpoint_ensemble"),
    public="brickyard.regularize",
    summary="Keeps the weights at the end of each cycle of the rate; together they answer.",
    use_when="An ensemble is wanted for the price of one run, and the schedule has restarts.",
    avoid_when="Several runs can be paid for: members from other seeds differ more, and win.",
    best_for="Image classification with a cosine that restarts, 3 to 6 cycles.",
    paper="Huang et al. 2017 (arXiv:1704.00109).",
    tune_first="The schedule's cycles: long enough to converge in each; then keep.",
    cost="A copy of the weights per member in memory and checkpoint; answers take members times as "
    "long. Training costs nothing more.",
    pairs_with=("cosine_restarts", "cyclic", "sgd"),
)  # fmt: skip
class SnapshotEnsemble:
    """Collect weights along one run, at the ends of cycles or at even distances.

    Math:
        member m = weights after the last step of cycle m
        answer = mean of the last `keep` members' probabilities

    Args:
        model: the model that is trained.
        at: "restarts": where the schedule's cycles end (a recipe knows them); in a loop of your
            own the list ``schedule.restarts(total)``. Or a distance: steps, or "2ep".
        keep: how many of the last snapshots are members.
        of: what outputs are: ``"softmax"``, ``"sigmoid"`` or ``"values"``; "auto" lets the recipe's
            task say, and means ``"softmax"`` elsewhere.

    Raises:
        ValueError: a number out of range, an unknown kind of output; "restarts" that nobody has
            resolved.

    Example:
        >>> model = nn.Linear(2, 3)
        >>> snapshots = SnapshotEnsemble(model, at=[2, 4])
        >>> for step in range(4):
        ...     _ = nn.init.normal_(model.weight)
        ...     _ = snapshots.update()
        >>> len(snapshots.members), tuple(snapshots.ensemble()(torch.ones(5, 2)).shape)
        (2, (5, 3))

    Reference:
        Huang et al., Snapshot Ensembles: Train 1, Get M for Free, 2017, section 3.
    """

    def __init__(
        self, model: nn.Module, at: int | str | list[int] = "restarts", keep: int = 5,
        of: Of = "auto",
    ):  # fmt: skip
        if not (isinstance(keep, int) and keep >= 1):
            raise ValueError(f"keep must be a whole number from 1; got {keep!r}")
        _check_of(of)
        if (isinstance(at, int) and at < 1) or at == []:
            raise ValueError(f"at must be a distance from 1 or a list of steps; got {at!r}")
        self.model, self.at, self.keep = model, at, keep
        self.of: Of = of
        self.steps = 0
        self.members: list[dict[str, Any]] = []
        self.taken: list[int] = []

    def resolve(self, steps: Callable[[int | str], int], restarts: Sequence[int]) -> None:
        """Turn "restarts" and lengths such as "2ep" into steps.

        Args:
            steps: says how many steps a length has.
            restarts: steps after which the schedule's cycles end.
        """
        if self.at == "restarts":
            if not restarts:
                raise ValueError(
                    "snapshots are taken where a cycle of the schedule ends, and this one has no "
                    "cycle that ends within the run: take cosine_restarts or cyclic with shorter "
                    "cycles, or give a distance such as at: 2ep"
                )
            self.at = list(restarts)
        elif isinstance(self.at, str):
            self.at = steps(self.at)

    def update(self) -> bool:
        """Count a step; keep the weights if a cycle has ended. Return whether they were kept."""
        if isinstance(self.at, str):
            raise ValueError(
                f"at={self.at!r}: in a loop of your own give schedule.restarts(total), or steps"
            )
        self.steps += 1
        due = self.steps % self.at == 0 if isinstance(self.at, int) else self.steps in self.at
        if due:
            self.members.append({n: t.clone() for n, t in self.model.state_dict().items()})
            self.taken.append(self.steps)
            del self.members[: -self.keep], self.taken[: -self.keep]
        return due

    def ensemble(self) -> Ensemble:
        """Return the members so far as one model in eval mode.

        Raises:
            ValueError: there is no member yet.
        """
        if not self.members:
            raise ValueError("no cycle has ended yet: there is no snapshot")
        return Ensemble.from_states(self.model, self.members, self.of).eval()

    def state_dict(self) -> dict[str, Any]:
        """Return the members' weights and the steps they were taken at."""
        members = [{n: t.clone() for n, t in m.items()} for m in self.members]
        return {"steps": self.steps, "taken": list(self.taken), "members": members}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state.

        Raises:
            ValueError: the members are of another model.
        """
        known = set(self.model.state_dict())
        for member in state["members"]:
            if set(member) != known:
                other = sorted(set(member) ^ known)
                raise ValueError(f"the snapshots are of another model: they differ in {other[0]!r}")
        self.members = [{n: t.clone() for n, t in m.items()} for m in state["members"]]
        self.steps, self.taken = int(state["steps"]), list(state["taken"])
