"""Transcription: a shorter sequence in the order of the input, with no place written down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brickyard.catalog import brick
from brickyard.train.data import Data
from brickyard.train.tasks.base import Task

__all__ = ["Transcription", "collapse", "transcription"]

#: What stands behind the last symbol of a target.
END = -1


@dataclass
class Transcription(Task):
    """Read symbols off frames, with a blank between them; the loss sums over all alignments.

    Args:
        symbols: their names, by index.
        blank: the output that stands for no symbol.
    """

    symbols: Sequence[str]
    blank: int = 0
    name = "transcription"
    axis = 2
    loss_inputs = 4
    targets = frozenset({"tokens"})
    mixable = False
    meaning = (
        "It returns scores (N, frames, symbols + 1), whose `log_softmax(2)` are log-probabilities; "
        "one output is the blank (0, unless the loss says otherwise), the symbols stand around it. "
        "To read: `scores.argmax(2)`, of equal neighbours keep one, then leave the blanks out."
    )
    wants = (
        "it compares log-probabilities of every frame with the symbols in their order, whatever "
        "their places"
    )

    @property
    def outputs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Return one output a symbol and one for the blank."""
        return len(self.symbols) + 1

    @property
    def metric_outputs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Return the number of symbols."""
        return len(self.symbols)

    def begin(self, model: nn.Module, loss: Any, total: int, epoch: int) -> None:
        """Learn which output the loss takes for the blank."""
        self.blank = int(getattr(loss, "blank", 0))

    def forward(self, model: nn.Module, x: Tensor) -> Tensor:
        """Return log-probabilities (N, frames, outputs)."""
        output = model(x)
        if output.ndim != 3 or output.shape[2] != self.outputs:
            raise ValueError(
                f"transcription needs scores (N, frames, {self.outputs}), of the blank and "
                f"{len(self.symbols)} symbols; got {tuple(output.shape)}"
            )
        return output.log_softmax(2)  # of log-probabilities it changes nothing

    def target(self, y: Tensor) -> Tensor:
        """Return the symbols' outputs (N, most), counted around the blank."""
        return torch.where(y < 0, y, y + (y >= self.blank).to(y.dtype))

    def loss(self, criterion: Callable[..., Tensor], output: Any, x: Tensor, y: Tensor) -> Tensor:
        """Return the loss of a batch: the mean over its strips."""
        frames = torch.full((len(y),), output.shape[1], dtype=torch.long)
        lengths = (y >= 0).sum(1).cpu()
        target = self.target(y).clamp_min(0)  # behind the last symbol nobody looks
        return criterion(output.transpose(0, 1), target, frames, lengths)

    def scored(self, output: Any, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the symbols that are read and the true ones, both -1 behind the last."""
        best = collapse(output.argmax(2), self.blank)
        return torch.where(best > self.blank, best - 1, best), y

    def inspect(self, output: Any, y: Tensor) -> dict[str, Tensor]:
        """Return the loss of every strip, in nats a symbol."""
        lengths = (y >= 0).sum(1)
        target = self.target(y).clamp_min(0)
        frames = torch.full((len(y),), output.shape[1], dtype=torch.long)
        each = F.ctc_loss(
            output.float().transpose(0, 1), target, frames, lengths.cpu(), self.blank, "none",
            zero_infinity=True,
        )  # fmt: skip
        return {"loss": each / lengths.clamp_min(1)}

    def text(self, row: Tensor) -> str:
        """Return symbols as text."""
        names = [str(self.symbols[i]) for i in row.tolist() if i >= 0]
        return ("" if all(len(name) == 1 for name in names) else " ").join(names) or "nothing"

    def show(self, model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Any]:
        """Return strips with what is read off them."""
        said, true = self.scored(self.forward(model, x), y)
        shown: dict[str, Any] = {
            "heading": "What it reads",
            "told": "The validation strips with the highest loss.",
        }
        pairs = [(self.text(a), self.text(b)) for a, b in zip(said, true, strict=True)]
        if x.ndim != 4:
            return {**shown, "texts": [(f"{b}: ", f"read as {a}") for a, b in pairs]}
        low, high = x.amin((1, 2, 3), keepdim=True), x.amax((1, 2, 3), keepdim=True)
        grey = ((x - low) / (high - low).clamp_min(1e-8) * 255).round().to(torch.uint8)
        captions = [f"{b}, read right" if a == b else f"{b}, read as {a}" for a, b in pairs]
        return {**shown, "pictures": grey[:, :1].cpu(), "titles": [""], "captions": captions}


def collapse(best: Tensor, blank: int = 0) -> Tensor:
    """Return the symbols of a path: repeats merged, blanks left out, -1 behind the last.

    Args:
        best: an output for every frame, shape (N, frames).
        blank: the output that stands for no symbol.

    Example:
        >>> collapse(torch.tensor([[0, 3, 3, 0, 3, 1]]))
        tensor([[ 3,  3,  1, -1, -1, -1]])
    """
    keep = best != blank
    keep[:, 1:] &= best[:, 1:] != best[:, :-1]
    order = (~keep).to(torch.uint8).argsort(dim=1, stable=True)
    return torch.where(keep, best, END).gather(1, order)


@brick(
    "task", "transcription", aliases=("sequence_without_alignment", "ctc_task"),
    public="brickyard.train.tasks", takes=("transcription",),
    summary="Read a sequence of symbols off a longer input, without being told where each stands.",
    use_when="Only the symbols in their order are known: lines of text, speech, gestures.",
    avoid_when="The places are known (then classify them), or the order may change (translation).",
    best_for="Handwriting, speech, digits on meters.",
    paper="Graves et al. 2006, Connectionist Temporal Classification, ICML",
    tune_first="Frames a symbol: the model's stride. Then the loss's zero_infinity for short ones.",
    pairs_with=("ctc", "crnn", "character_error_rate", "digit_strips"),
    cost="The loss's recursions over frames times symbols.",
)  # fmt: skip
def transcription(data: Data) -> Transcription:
    """Make the task of reading symbols; the best path is decoded greedily.

    The model returns scores (N, frames, symbols + 1), log_softmax or not; the blank is the loss's.
    The mean over strips divides each by its length, so batches of a step count by their strips.

    Args:
        data: strips and their symbols, -1 behind the last.

    Example:
        >>> Transcription("0123456789").outputs
        11

    Reference:
        Graves et al. 2006, ICML, sections 3.2 (best path decoding) and 4.
    """
    return Transcription(data.classes or tuple(map(str, range(data.outputs))))
