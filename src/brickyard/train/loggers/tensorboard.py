"""Log rows as TensorBoard's event files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from brickyard import yamls
from brickyard.catalog import brick
from brickyard.train.loggers.base import Logger, RunFacts

__all__ = ["TensorBoard"]


@brick(
    "logger", "tensorboard", aliases=("tb",), needs=("tensorboard",), extra="track",
    summary="Event files for TensorBoard: a curve per figure, with training beside validation.",
    use_when="You watch long runs in a browser, or compare the curves of many runs.",
    avoid_when="A short run: report.html has its curves without a server. Searches over hundreds "
    "of runs: mlflow sorts and filters them by options.",
    best_for="Looking on while a run is still going.",
    paper="Abadi et al. 2016 (arXiv:1603.04467), section 9.1.",
    tune_first="Nothing; log_every of the recipe decides how many points there are.",
    cost="About a second to import; then some ten microseconds a figure, written by a thread.",
    pairs_with=("csv_log",),
)  # fmt: skip
class TensorBoard(Logger):
    """Write event files; look at them with ``tensorboard --logdir runs``.

    Figures are called ``loss/train`` and ``loss/val``, so that they stand side by side. A resumed
    run goes on in the same folder, and TensorBoard drops what came after the checkpoint.

    Args:
        folder: of the event files; a relative path starts at the run folder.
        flush_seconds: how long rows may wait for the disk; checkpoints never wait.

    Example:
        >>> TensorBoard().folder.name
        'tensorboard'

    Reference:
        Abadi et al., TensorFlow: Large-Scale Machine Learning on Heterogeneous Distributed
        Systems, 2016, section 9.1.
    """

    def __init__(self, folder: str = "tensorboard", flush_seconds: float = 30):
        if flush_seconds <= 0:
            raise ValueError(f"flush_seconds must be above 0; got {flush_seconds}")
        self.folder, self.flush_seconds = Path(folder).expanduser(), flush_seconds
        self._writer: Any = None

    def start(self, run: RunFacts) -> None:
        """Open a new event file; tell TensorBoard where the run goes on."""
        from torch.utils.tensorboard import SummaryWriter

        self.folder = run.folder / self.folder
        again = any(self.folder.glob("events.out.tfevents.*"))
        self._writer = SummaryWriter(
            str(self.folder), flush_secs=max(1, round(self.flush_seconds)),
            purge_step=run.step + 1 if again else None,
        )  # fmt: skip
        if not again:
            self._writer.add_text("recipe", _as_code(run.recipe), 0)

    def row(self, step: int, epoch: float, split: str, values: Mapping[str, float]) -> None:
        """Add a point to each curve."""
        for name, value in values.items():
            self._writer.add_scalar(f"{name}/{split}", value, step)

    def flush(self) -> None:
        """Wait until all points are in the file."""
        self._writer.flush()

    def close(self, summary: Mapping[str, Any]) -> None:
        """Close the file."""
        self._writer.close()


def _as_code(recipe: Mapping[str, Any]) -> str:
    """Return the recipe as a block of code in Markdown."""
    text = yamls.dump(dict(recipe))
    return "\n".join(f"    {line}" for line in text.splitlines())
