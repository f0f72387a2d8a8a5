"""Hand the rows of a run to loggers, none of which may cost the run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brickyard.runs import MetricsWriter

_METHODS = ("start", "row", "flush", "close")
#: The split of rows on parameters, and which of their norms loggers get.
LAYERS, TOLD = "layers", ("grad_norm", "update_ratio")


@dataclass(frozen=True)
class RunFacts:
    """Hold what loggers are told of a run.

    Args:
        folder: the run folder.
        name: the recipe's name.
        recipe: the resolved recipe as plain data.
        step: where it goes on from; 0 at the start. Rows past it that an earlier process logged
            will come again, with the same values.
    """

    folder: Path
    name: str
    recipe: Mapping[str, Any]
    step: int = 0


class Logger(ABC):
    """Take the rows of a run: derive from this one and name it in a recipe by ``target:``.

    The options of a recipe are the arguments of the constructor, which must not open anything yet.
    What a method raises is told as a warning, and the run goes on without the logger.

    Example:
        >>> class Shout(Logger):
        ...     def row(self, step, epoch, split, values):
        ...         print(step, split.upper(), values["loss"])
        >>> Shout().row(10, 0.5, "train", {"loss": 2.0})
        10 TRAIN 2.0
    """

    def start(self, run: RunFacts) -> None:  # noqa: B027  most need nothing here
        """Open what rows go to; on a resume, go on with what is there."""

    @abstractmethod
    def row(self, step: int, epoch: float, split: str, values: Mapping[str, float]) -> None:
        """Take one row.

        Args:
            step: steps taken.
            epoch: epochs trained, with the fraction.
            split: ``"train"``, ``"val"`` or another part of the data; ``"layers"`` for telemetry.
            values: figures by name; ``"grad_norm/head.weight"`` and the like for telemetry.
        """

    def flush(self) -> None:  # noqa: B027
        """Bring all rows where a kill cannot reach them; called before every checkpoint."""

    def close(self, summary: Mapping[str, Any]) -> None:  # noqa: B027
        """Take the end of the run.

        Args:
            summary: what ``summary.json`` says: ``exit_reason``, ``best``, ``final`` ...
        """


def check_logger(logger: Any) -> Logger:
    """Return ``logger`` if it has what a logger needs.

    Raises:
        TypeError: it lacks a method.
    """
    lacking = [name for name in _METHODS if not callable(getattr(logger, name, None))]
    if lacking or isinstance(logger, type):
        raise TypeError(
            f"a logger is an object with {', '.join(_METHODS)}; {logger!r} lacks "
            f"{', '.join(lacking) or 'being one: it is a class'}: derive it from "
            "brickyard.train.loggers.Logger"
        )
    return logger


class Rows:
    """Write rows to ``metrics.jsonl`` and hand them to loggers.

    Args:
        writer: of the run folder; what it raises is passed on.
        norms: the writer of ``telemetry.jsonl``; none without telemetry.
        loggers: by the name that warnings use.
        run: what they are told.
        warn: called with a sentence when one fails; it gets no more rows.
    """

    def __init__(
        self, writer: MetricsWriter, loggers: Iterable[tuple[str, Logger]], run: RunFacts,
        warn: Callable[[str], None], norms: MetricsWriter | None = None,
    ):  # fmt: skip
        self.writer, self.norms, self._warn = writer, norms, warn
        self._loggers = dict(enumerate(loggers))
        self._tell("start", run)

    def row(self, step: int, epoch: float, split: str, values: Mapping[str, float]) -> None:
        """Append one row."""
        self.writer.row(step, epoch, split, values)
        self._tell("row", step, epoch, split, values)

    def layers(self, step: int, epoch: float, found: Mapping[str, Mapping[str, float]]) -> None:
        """Append a row on every parameter; loggers get it flat, as ``grad_norm/head.weight``.

        Args:
            step: the step that was looked at.
            epoch: the same in epochs.
            found: norms by parameter.
        """
        if self.norms is not None:
            self.norms.row(step, epoch, LAYERS, found)
        flat = {f"{what}/{name}": value for name, one in found.items()
                for what, value in one.items() if what in TOLD}  # fmt: skip
        self._tell("row", step, epoch, LAYERS, flat)

    def flush(self, sync: bool = False) -> None:
        """Bring all rows where a kill cannot reach them.

        Args:
            sync: wait until those of the run folder are on the disk.

        Raises:
            OSError: ``metrics.jsonl`` cannot be written; its rows wait for the next flush.
        """
        self._tell("flush")
        for writer in filter(None, (self.norms, self.writer)):
            writer.flush(sync)

    def close(self, summary: Mapping[str, Any] | None = None) -> None:
        """Tell the end of the run and close everything.

        Args:
            summary: what ``summary.json`` says.
        """
        self._tell("close", summary or {})
        self._loggers.clear()
        for writer in filter(None, (self.norms, self.writer)):
            writer.close()

    def _tell(self, method: str, *arguments: Any) -> None:
        for place, (name, logger) in list(self._loggers.items()):
            try:
                getattr(logger, method)(*arguments)
            except Exception as error:  # whatever it is, it must not cost a run
                del self._loggers[place]
                reason = next(iter(str(error).splitlines()), "")[:200]
                self._warn(
                    f"the logger {name} failed in {method}() and gets no more rows "
                    f"({type(error).__name__}: {reason}); metrics.jsonl has all of them"
                )
