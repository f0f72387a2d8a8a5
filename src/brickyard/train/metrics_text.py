"""Metrics of sequences: how well the next token is known, how well a strip is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from brickyard.catalog import brick

if TYPE_CHECKING:
    from torchmetrics import Metric

__all__ = ["bits_per_character", "character_error_rate", "exact_match", "perplexity"]


@brick(
    "metric", "perplexity", aliases=("ppl",), task="language_model", better="lower",
    summary="How many tokens the model wavers between: exp of the mean loss in nats a token.",
    use_when="Language models with the same tokens are compared.",
    avoid_when="Tokens differ: longer ones are harder to guess; take bits_per_character.",
    best_for="Following one language model while it trains.",
    paper="Jelinek et al. 1977, Perplexity, a measure of the difficulty of speech recognition "
    "tasks, JASA 62(S1)",
    tune_first="Nothing to tune.",
    pairs_with=("bits_per_character", "cross_entropy"),
    cost="A log-softmax of the logits.",
)  # fmt: skip
def perplexity(outputs: int) -> Metric:
    """Make a metric that gives the perplexity of all tokens.

    Math:
        exp(-(1 / tokens) * sum log p(token))

    Args:
        outputs: number of different tokens.

    Example:
        >>> import torch
        >>> metric = perplexity(outputs=4)
        >>> metric.update(torch.zeros(6, 4), torch.zeros(6, dtype=torch.long))
        >>> round(float(metric.compute()), 6)
        4.0

    Reference:
        Jelinek, Mercer, Bahl & Baker 1977, JASA 62(S1).
    """
    from brickyard.train.scores_text import TokenLoss

    return TokenLoss(outputs)


@brick(
    "metric", "bits_per_character", aliases=("bpc",), task="language_model", better="lower",
    summary="Bits that the text would take a character, coded by the model: free of the tokens.",
    use_when="Models with different tokens (characters, pieces of words) read the same text.",
    avoid_when="Tokens are no text, so that they have no length.",
    best_for="Character models; comparing with compressors.",
    paper="Shannon 1951, Prediction and Entropy of Printed English, Bell System Technical Journal "
    "30: people need 0.6 to 1.3 bits a letter.",
    tune_first="Nothing to tune.",
    pairs_with=("perplexity", "kjv"),
    cost="A log-softmax of the logits.",
)  # fmt: skip
def bits_per_character(outputs: int, classes: Sequence[str] = ()) -> Metric:
    """Make a metric that gives the bits a character of the text.

    Math:
        -sum log2 p(token) / characters in those tokens

    Args:
        outputs: number of different tokens.
        classes: the tokens as text, by index; without them each counts as one character.

    Example:
        >>> import torch
        >>> metric = bits_per_character(outputs=4, classes=("?", "a", "b", "ab"))
        >>> metric.update(torch.zeros(2, 4), torch.tensor([3, 1]))  # 4 bits for "aba"
        >>> round(float(metric.compute()), 6)
        1.333333

    Reference:
        Shannon 1951, Bell System Technical Journal 30(1).
    """
    from brickyard.train.scores_text import TokenLoss

    return TokenLoss(outputs, classes, bits=True)


@brick(
    "metric", "character_error_rate", aliases=("cer", "label_error_rate"), task="transcription",
    better="lower",
    summary="Symbols to insert, delete or replace, over the true symbols: errors per symbol.",
    use_when="Text, digits or phonemes are read off images or sound.",
    avoid_when="One wrong symbol spoils the whole (numbers of accounts): take exact_match.",
    best_for="Handwriting and speech recognition.",
    paper="Levenshtein 1966, Binary codes capable of correcting deletions, insertions, and "
    "reversals, Soviet Physics Doklady 10",
    tune_first="Nothing to tune.",
    pairs_with=("exact_match", "ctc"),
    cost="The product of both lengths, a strip.",
)  # fmt: skip
def character_error_rate(outputs: int) -> Metric:
    """Make a metric that gives the edit distance of all strips over their true symbols.

    It may exceed 1, when more is read than there is.

    Math:
        sum_i distance(read_i, true_i) / sum_i |true_i|

    Args:
        outputs: number of different symbols.

    Example:
        >>> import torch
        >>> metric = character_error_rate(outputs=10)
        >>> metric.update(torch.tensor([[1, 2, -1]]), torch.tensor([[1, 3, 4, -1]]))
        >>> round(float(metric.compute()), 4)  # one to replace, one to insert, of three
        0.6667

    Reference:
        Levenshtein 1966, Soviet Physics Doklady 10(8).
    """
    from brickyard.train.scores_text import EditDistance

    return EditDistance(outputs)


@brick(
    "metric", "exact_match", aliases=("sequence_accuracy",), task="transcription", better="higher",
    summary="Share of sequences without a single error.",
    use_when="A sequence with one error is useless.",
    avoid_when="Sequences are long, so that nearly all have some error: take character_error_rate.",
    best_for="Short strips: numbers, words.",
    paper="Graves et al. 2009, A Novel Connectionist System for Unconstrained Handwriting "
    "Recognition, IEEE TPAMI 31(5)",
    tune_first="Nothing to tune.",
    pairs_with=("character_error_rate",),
    cost="A comparison a symbol.",
)  # fmt: skip
def exact_match(outputs: int) -> Metric:
    """Make a metric that gives the share of strips that are read without an error.

    Math:
        #(i: read_i = true_i) / N

    Args:
        outputs: number of different symbols.

    Example:
        >>> import torch
        >>> metric = exact_match(outputs=10)
        >>> metric.update(torch.tensor([[1, -1], [2, 3]]), torch.tensor([[1, -1], [2, -1]]))
        >>> float(metric.compute())
        0.5

    Reference:
        Graves et al. 2009, IEEE TPAMI 31(5).
    """
    from brickyard.train.scores_text import WholeSequences

    return WholeSequences(outputs)
