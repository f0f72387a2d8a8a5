"""Change sequences of tokens: masked tokens, dropped words."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from brickyard.augment.base import (
    Transform,
    check_mode,
    check_probability,
    integers,
    uniform,
    whole,
)
from brickyard.catalog import brick

__all__ = ["TokenMask", "WordDrop", "drop_tokens"]

_IGNORED = -100


def _check_tokens(x: Tensor, name: str) -> None:
    if x.ndim != 2 or x.is_floating_point() or x.dtype == torch.bool:
        raise ValueError(
            f"{name} takes token indices of shape (N, T), got {x.dtype} of shape {tuple(x.shape)}"
        )


def _is_any(x: Tensor, tokens: tuple[int, ...]) -> Tensor:
    found = torch.zeros_like(x, dtype=torch.bool)
    for token in tokens:
        found |= x == token
    return found


@brick(
    "augmentation",
    "token_mask",
    aliases=("masked_language_model", "word_dropout"),
    summary="Replaces random tokens by the mask token; can also make the targets of masked "
    "language modelling.",
    use_when="Text classifiers that lean on single words; pre-training by guessing hidden tokens.",
    avoid_when="A single token decides (negations in short texts), or there is no mask or unknown "
    "token in the vocabulary.",
    best_for="Transformers over text, recurrent text classifiers.",
    paper="Devlin et al. 2019, BERT, arXiv:1810.04805, section 3.1 and appendix A.1",
    tune_first="p: 0.15 for pre-training, 0.05 to 0.2 as a regularizer.",
    cost="A draw per token.",
    pairs_with=("cross_entropy", "word_drop"),
)
class TokenMask(Transform):
    """Hide random tokens of every sequence.

    Math:
        each token that is not special is chosen with probability p; a chosen one becomes
        mask_id, or with probability random any token, or with probability unchanged stays

    Args:
        mask_id: the token that stands for a hidden one.
        p: probability that a token is chosen.
        special: tokens that are never chosen, such as padding.
        random: share of the chosen that become a random token instead; BERT takes 0.1.
        unchanged: share of the chosen that stay as they are; BERT takes 0.1.
        vocabulary: number of tokens, for ``random``.
        labels: ``"keep"`` leaves ``y`` alone; ``"tokens"`` makes it the chosen tokens, -100
            elsewhere, as cross_entropy over (N, vocabulary, T) takes it.

    Raises:
        ValueError: an option out of range, or samples that are no token indices.

    Example:
        >>> x = torch.arange(1, 9).view(1, 8)
        >>> hidden, y = TokenMask(0, p=0.5, special=(), labels="tokens")(
        ...     x, None, torch.Generator().manual_seed(0))
        >>> bool(((hidden == 0) == (y == x)).all())
        True

    Reference:
        Devlin et al. 2019, arXiv:1810.04805, section 3.1, task 1.
    """

    def __init__(
        self, mask_id: int, p: float = 0.15, special: tuple[int, ...] = (0,),
        random: float = 0.0, unchanged: float = 0.0, vocabulary: int | None = None,
        labels: Literal["keep", "tokens"] = "keep",
    ) -> None:  # fmt: skip
        self.mask_id, self.p = whole("mask_id", mask_id), check_probability("p", p)
        self.special = tuple(special)
        self.random = check_probability("random", random)
        self.unchanged = check_probability("unchanged", unchanged)
        if random + unchanged > 1:
            raise ValueError(
                f"random and unchanged are shares of the chosen tokens and their sum must be at "
                f"most 1, got {random!r} + {unchanged!r}"
            )
        if (random > 0) != (vocabulary is not None):
            raise ValueError(
                f"random tokens and the size of the vocabulary go together; got random={random!r} "
                f"and vocabulary={vocabulary!r}"
            )
        self.vocabulary = None if vocabulary is None else whole("vocabulary", vocabulary, 1)
        self.labels = check_mode("labels", labels, ("keep", "tokens"))

    def __call__(
        self, x: Tensor, y: Any = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Any]:
        """Return sequences with hidden tokens, and ``y`` as it came or the hidden tokens.

        Args:
            x: token indices, shape (N, T).
            y: targets.
            generator: source of all randomness; torch's default generator when None.
        """
        _check_tokens(x, type(self).__name__)
        shape = (x.shape[0], x.shape[1])
        picked = (uniform(shape, x, generator) < self.p) & ~_is_any(x, self.special)
        fate = uniform(shape, x, generator)
        out = torch.where(picked & (fate >= self.random + self.unchanged), self.mask_id, x)
        if self.vocabulary is not None:
            other = integers(self.vocabulary, shape, x, generator).to(x.dtype)
            out = torch.where(picked & (fate < self.random), other, out)
        return out, torch.where(picked, x, _IGNORED).long() if self.labels == "tokens" else y


def drop_tokens(x: Tensor, dropped: Tensor, fill: int) -> Tensor:
    """Return sequences without some of their tokens; the rest moves up, ``fill`` behind it.

    Args:
        x: tokens, shape (N, T).
        dropped: which go, shape (N, T).
        fill: what stands at the end.

    Example:
        >>> drop_tokens(torch.tensor([[5, 6, 7]]), torch.tensor([[False, True, False]]), 0)
        tensor([[5, 7, 0]])
    """
    order = dropped.to(torch.uint8).argsort(dim=1, stable=True)
    return x.masked_fill(dropped, fill).gather(1, order)


@brick(
    "augmentation",
    "word_drop",
    aliases=("random_deletion", "word_deletion"),
    summary="Takes random words out of every text and closes the gaps.",
    use_when="Text classification where order matters little and single words should not decide.",
    avoid_when="Grammar or every word matters: translation, entailment, short texts.",
    best_for="Bags of embeddings and small text classifiers.",
    paper="Iyyer et al. 2015, Deep Unordered Composition Rivals Syntactic Methods for Text "
    "Classification, ACL, section 3.1",
    tune_first="p: 0.1 to 0.3.",
    cost="A draw and a sort per token.",
    pairs_with=("token_mask",),
)
class WordDrop(Transform):
    """Remove random tokens of every sequence; what is left moves up and padding follows.

    A sequence never loses all of its words: one drawn at random stays. Labels for every token,
    whole numbers of the tokens' shape, move with them.

    Math:
        each token that is not special goes with probability p

    Args:
        p: probability that a token goes.
        pad_id: what fills the end.
        special: tokens that never go, besides the padding: beginning and end of a text.
        label_fill: label of the padding, where there is one for every token.

    Raises:
        ValueError: an option out of range, or samples that are no token indices.

    Example:
        >>> x = torch.arange(1, 9).view(1, 8)
        >>> WordDrop(p=0.5)(x, None, torch.Generator().manual_seed(0))[0].shape
        torch.Size([1, 8])

    Reference:
        Iyyer et al. 2015, ACL, section 3.1 (word dropout).
    """

    def __init__(
        self, p: float = 0.1, pad_id: int = 0, special: tuple[int, ...] = (),
        label_fill: int = _IGNORED,
    ) -> None:  # fmt: skip
        self.p, self.pad_id = check_probability("p", p), whole("pad_id", pad_id)
        self.special, self.label_fill = tuple(special), label_fill

    def __call__(
        self, x: Tensor, y: Any = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Any]:
        """Return shorter texts, and labels moved with their tokens where there are such.

        Args:
            x: token indices, shape (N, T).
            y: targets; whole numbers of shape (N, T) move with the tokens.
            generator: source of all randomness; torch's default generator when None.
        """
        _check_tokens(x, type(self).__name__)
        shape = (x.shape[0], x.shape[1])
        word = ~_is_any(x, (self.pad_id, *self.special))
        dropped = (uniform(shape, x, generator) < self.p) & word
        lottery = uniform(shape, x, generator).masked_fill(~word, -1.0)
        emptied = (dropped == word).all(1, keepdim=True)
        best = lottery == lottery.amax(1, keepdim=True) if shape[1] else dropped
        dropped = dropped & ~(emptied & best)
        out = drop_tokens(x, dropped, self.pad_id)
        if isinstance(y, Tensor) and y.shape == x.shape and not y.is_floating_point():
            return out, drop_tokens(y, dropped, self.label_fill)
        return out, y
