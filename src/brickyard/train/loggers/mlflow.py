"""Log rows into an MLflow store, by default a SQLite file beside the runs."""

from __future__ import annotations

import json
import logging
import os
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from brickyard.catalog import brick
from brickyard.runs import atomic_write, to_json
from brickyard.train.loggers.base import Logger, RunFacts

__all__ = ["MLflow"]

#: Which run of which store a run folder belongs to, so that a resume finds it again.
NOTE = "mlflow.json"
_MOST_METRICS, _MOST_PARAMS, _LONGEST = 1000, 100, 500
_STATUS = {"budget": "FINISHED", "early_stop": "FINISHED", "interrupted": "KILLED"}


@brick(
    "logger", "mlflow", needs=("mlflow", "sqlalchemy", "alembic"), extra="track",
    summary="Rows, options and outcome of runs in an MLflow store: a local SQLite file, or a "
    "server.",
    use_when="There are many runs to sort, filter and compare by their options, or a team has an "
    "MLflow server.",
    avoid_when="Single runs: its import and the new database take longer than training digits.",
    best_for="Sweeps, and keeping the history of a project in one place.",
    paper="Zaharia et al. 2018, Accelerating the Machine Learning Lifecycle with MLflow, IEEE "
    "Data Engineering Bulletin 41(4).",
    tune_first="uri, when there is a server; experiment, to keep projects apart.",
    cost="Some seconds to import, some more for a new database; then a transaction per flush.",
    pairs_with=("tensorboard",),
)  # fmt: skip
class MLflow(Logger):
    """Write rows, the recipe's values and the outcome into an MLflow store.

    Look at it with ``mlflow ui --backend-store-uri sqlite:///mlflow.db`` (of the full package). A
    resumed run goes on in the same MLflow run, and rows that are there already are not written
    again. MLflow's own reporting of its use is switched off unless the environment says otherwise.

    Args:
        experiment: what the run is filed under; the recipe's name when left out.
        uri: the store; ``$MLFLOW_TRACKING_URI`` or ``sqlite:///mlflow.db`` (in the working
            directory) when left out.

    Example:
        >>> MLflow(uri="sqlite:///runs/all.db").uri
        'sqlite:///runs/all.db'

    Reference:
        Zaharia et al., Accelerating the Machine Learning Lifecycle with MLflow, 2018.
    """

    def __init__(self, experiment: str = "", uri: str = ""):
        self.experiment, self.uri = experiment, uri
        self._client: Any = None
        self._run = ""
        self._waiting: list[Any] = []
        self._there: set[tuple[str, int]] = set()

    def start(self, run: RunFacts) -> None:
        """Open the store, and the run in it: a new one, or that of the run folder."""
        note = run.folder / NOTE
        known = json.loads(note.read_text(encoding="utf-8")) if note.exists() else {}
        self.uri = known.get("uri") or _absolute(
            self.uri or os.environ.get("MLFLOW_TRACKING_URI", "") or "sqlite:///mlflow.db"
        )
        with _quiet():
            from mlflow.tracking import MlflowClient

            self._client = MlflowClient(tracking_uri=self.uri)
            self._run = known.get("run") or self._create(run)
            if known:
                self._go_on(run.step)
        if not known:
            with atomic_write(note) as file:
                json.dump({"uri": self.uri, "run": self._run}, file)

    def _create(self, run: RunFacts) -> str:
        from mlflow.entities import Param

        name = self.experiment or run.name
        found = self._client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self._client.create_experiment(name)
        tags = {"run_folder": str(run.folder.resolve()), "mlflow.source.name": "brickyard"}
        made = self._client.create_run(experiment, run_name=run.name, tags=tags).info.run_id
        params = [Param(key, str(value)[:_LONGEST]) for key, value in _flat(run.recipe)]
        for i in range(0, len(params), _MOST_PARAMS):
            self._client.log_batch(made, params=params[i : i + _MOST_PARAMS])
        return made

    def _go_on(self, step: int) -> None:
        """Note which rows past ``step`` the store has."""
        self._client.update_run(self._run, status="RUNNING")
        for name in self._client.get_run(self._run).data.metrics:
            history = self._client.get_metric_history(self._run, name)
            self._there |= {(name, m.step) for m in history if m.step > step}

    def row(self, step: int, epoch: float, split: str, values: Mapping[str, float]) -> None:
        """Keep a row for the next flush."""
        from mlflow.entities import Metric

        stamp = int(time.time() * 1000)
        for name, value in values.items():
            if (f"{name}/{split}", step) not in self._there:
                self._waiting.append(Metric(f"{name}/{split}", float(value), stamp, step))
        if len(self._waiting) > _MOST_METRICS // 2:
            self.flush()

    def flush(self) -> None:
        """Write the rows that wait, in one transaction."""
        while self._waiting:
            with _quiet():
                self._client.log_batch(self._run, metrics=self._waiting[:_MOST_METRICS])
            del self._waiting[:_MOST_METRICS]

    def close(self, summary: Mapping[str, Any]) -> None:
        """Write what is left, how the run ended, and its best figures."""
        from mlflow.entities import RunTag

        self.flush()
        reason = str(summary.get("exit_reason", ""))
        best = to_json(summary.get("best") or {})
        tags = {"exit_reason": reason, "best_step": best.get("step", "")}
        tags |= {f"best_{name}": value for name, value in (best.get("val") or {}).items()}
        with _quiet():
            self._client.log_batch(self._run, tags=[RunTag(k, str(v)) for k, v in tags.items()])
            self._client.set_terminated(self._run, status=_STATUS.get(reason, "FAILED"))


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of a recipe with their paths: ``optimizer.lr``, ``schedule.0.name``."""
    if isinstance(value, Mapping) and value:
        for key, one in value.items():
            yield from _flat(one, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and value:
        for i, one in enumerate(value):
            yield from _flat(one, f"{path}.{i}")
    else:
        yield path, value


def _absolute(uri: str) -> str:
    """Return a SQLite store's address with its whole path, for a resume from elsewhere."""
    head, found, path = uri.partition("sqlite:///")
    if not found or head or path.startswith("/") or path == ":memory:":
        return uri
    place = Path(path).resolve()
    place.parent.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{place}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep MLflow's news about its database and its libraries out of the run's output."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    names = ("mlflow", "alembic")
    before = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
