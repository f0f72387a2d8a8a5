"""Language modelling: every token is predicted from those before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brickyard.catalog import Card, brick
from brickyard.train.data import Data
from brickyard.train.data.pieces import UNKNOWN
from brickyard.train.tasks.base import Task, inputs_of

__all__ = ["Hidden", "LanguageModel", "language_model", "sample_tokens"]

#: Targets of this value count for nothing, as in torch.
IGNORED = -100
_WRITTEN = 200  # tokens that the report shows of what the model writes
_PROMPT = 24


class Hidden(NamedTuple):
    """Hold what a model's output layer sees, and that layer's weights, instead of logits."""

    features: Tensor
    weight: Tensor
    bias: Tensor | None


@dataclass
class LanguageModel(Task):
    """Predict the next token at every position.

    Args:
        outputs: number of different tokens.
        vocabulary: the tokens as text, by index; empty when unknown.
        fused: the loss multiplies with the output layer itself (linear_cross_entropy).
    """

    outputs: int
    vocabulary: Sequence[str] = ()
    fused: bool = False
    ignored: int = IGNORED
    name = "language_model"
    axis = 2
    mixable = False
    given = "windows of tokens, by index"
    meaning = (
        "It returns logits (N, T, tokens): at every position the scores of the token that comes "
        "next. The tokens are the classes that follow, by index."
    )
    wants = (
        "it compares scores of all tokens with the index of the one that comes next, at every "
        "position"
    )

    @property
    def metric_outputs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Return the number of different tokens."""
        return self.outputs

    def takes(self, loss: Card) -> bool:
        """Say whether a loss takes scores and class indices, or makes the scores itself."""
        if loss.key == "linear_cross_entropy":
            return True
        indices = str(loss.facts.get("target", "")).startswith("class indices")
        return indices and len(inputs_of(loss)) == 2

    def begin(self, model: nn.Module, loss: Any, total: int, epoch: int) -> None:
        """Learn which targets the loss leaves out."""
        self.ignored = int(getattr(loss, "ignore_index", IGNORED))

    def forward(self, model: nn.Module, x: Tensor) -> Tensor | Hidden:
        """Return logits (N, T, tokens), or what the output layer would make them from."""
        if not self.fused:
            return model(x)
        whole: Any = model
        if not callable(getattr(whole, "features", None)) or not hasattr(whole, "head"):
            raise ValueError(
                "linear_cross_entropy takes what the output layer sees, so the model needs "
                f"features(x) and a linear layer head, which {type(model).__name__} has not; take "
                "cross_entropy"
            )
        return Hidden(whole.features(x), whole.head.weight, whole.head.bias)

    def loss(self, criterion: Callable[..., Tensor], output: Any, x: Tensor, y: Tensor) -> Tensor:
        """Return the loss over all tokens of the batch that count."""
        if isinstance(output, Hidden):
            return criterion(output.features, output.weight, y, output.bias)
        if output.ndim != 3 or output.shape[:2] != y.shape:
            raise ValueError(
                f"language_model needs logits (N, T, {self.outputs}) for targets "
                f"{tuple(y.shape)}; got {tuple(output.shape)}"
            )
        logits, tokens = output.flatten(0, 1), y.flatten()
        if self.ignored < 0:  # then losses need not know of it
            keep = tokens != self.ignored
            if not bool(keep.all()):
                logits, tokens = logits[keep], tokens[keep]
        if not len(tokens):
            return output.sum() * 0.0
        return criterion(logits, tokens)

    def weigh(self, y: Tensor) -> float:
        """Return the number of tokens that count."""
        return float((y != self.ignored).sum())

    def scored(self, output: Any, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (tokens, outputs) and the tokens that came, of those that count."""
        logits = F.linear(*output) if isinstance(output, Hidden) else output
        keep = y != self.ignored
        return logits[keep].float(), y[keep]

    def inspect(self, output: Any, y: Tensor) -> dict[str, Tensor]:
        """Return the mean loss of every window, in nats a token."""
        logits = F.linear(*output) if isinstance(output, Hidden) else output
        each = F.cross_entropy(
            logits.float().movedim(-1, 1), torch.where(y == self.ignored, IGNORED, y),
            reduction="none",
        )  # fmt: skip
        return {"loss": each.sum(1) / (y != self.ignored).sum(1).clamp_min(1)}

    def text(self, tokens: Tensor) -> str:
        """Return tokens as text; indices where there is no vocabulary."""
        if not self.vocabulary:
            return " ".join(map(str, tokens.tolist()))
        return "".join(str(self.vocabulary[i]) for i in tokens.tolist()).replace(UNKNOWN, "?")

    def show(self, model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Any]:
        """Return what the model writes after the beginning of some windows."""
        prompts = x[:3, :_PROMPT]
        written = sample_tokens(model, prompts, _WRITTEN, x.shape[1])
        return {
            "heading": "What it writes",
            "told": f"After {prompts.shape[1]} tokens of the validation text, in bold, the model "
            f"goes on alone: {_WRITTEN} tokens drawn from its own probabilities.",
            "texts": [
                (self.text(begin), self.text(rest[len(begin) :]))
                for begin, rest in zip(prompts, written, strict=True)
            ],
        }


@torch.no_grad()
def sample_tokens(
    model: nn.Module, prompts: Tensor, count: int, longest: int, temperature: float = 0.8,
    seed: int = 0,
) -> Tensor:  # fmt: skip
    """Return prompts with tokens behind them that a model draws one after the other.

    Args:
        model: returns logits (N, T, tokens) for tokens (N, T).
        prompts: shape (N, T).
        count: how many to draw.
        longest: tokens that the model can look back on.
        temperature: below 1 it keeps to likelier tokens.
        seed: of the draws.
    """
    generator = torch.Generator().manual_seed(seed)
    out = prompts
    for _ in range(count):
        logits = model(out[:, -longest:])[:, -1].float().cpu() / temperature
        drawn = torch.multinomial(logits.softmax(-1), 1, generator=generator)
        out = torch.cat([out, drawn.to(out.device)], 1)
    return out


@brick(
    "task", "language_model", aliases=("lm", "next_token"), public="brickyard.train.tasks",
    takes=("language_model",),
    summary="Predict every token of a text from those before it.",
    use_when="You want a model of running text, or to compare anything on text.",
    avoid_when="Whole texts have labels (classification), or the order of the tokens is free.",
    best_for="Characters and pieces of words; anything that is a sequence of symbols.",
    paper="Bengio et al. 2003, A Neural Probabilistic Language Model, JMLR 3, section 2",
    tune_first="The model's window and width; the loss is cross_entropy.",
    pairs_with=("gpt", "cross_entropy", "perplexity", "kjv"),
    cost="One row of logits a token: with large vocabularies take linear_cross_entropy.",
)  # fmt: skip
def language_model(data: Data, loss: Card | None = None) -> LanguageModel:
    """Make the task of predicting next tokens; every token that is not ignored counts the same.

    With ``accumulate`` the batches of a step count by their tokens, so that padding in one of
    them does not give the others less weight.

    Args:
        data: windows of tokens and the tokens that follow.
        loss: the loss's card; none for the user's own, which gets logits (tokens, outputs).

    Example:
        >>> LanguageModel(outputs=50).weigh(torch.tensor([[3, 4, -100]]))
        2.0

    Reference:
        Bengio et al. 2003, JMLR 3, section 2.
    """
    fused = loss is not None and loss.key == "linear_cross_entropy"
    return LanguageModel(data.outputs, data.classes, fused)
