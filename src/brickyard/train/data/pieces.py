"""Cut text into tokens: its characters, or pieces of words that stand together often."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

__all__ = ["UNKNOWN", "Pieces"]

#: What stands for characters that training never saw; always token 0.
UNKNOWN = "\ufffd"
_WORDS = re.compile(r" ?[^\W\d_]+| ?\d+|\s+(?=\S)|\s+|[^\w\s]|_", re.UNICODE)
Pair = tuple[str, str]


@dataclass(frozen=True)
class Pieces:
    """Hold a vocabulary and the merges that make its tokens.

    Args:
        names: the tokens by index; the first stands for unknown characters.
        merges: pairs that are joined, in this order.
    """

    names: tuple[str, ...]
    merges: tuple[Pair, ...] = ()

    @classmethod
    def learn(cls, text: str, merges: int = 0) -> Pieces:
        r"""Learn a vocabulary: all characters, and the pairs that stand together most often.

        Words never merge with their neighbours, only with the space before them. Of pairs that are
        equally frequent the first in the alphabet is taken, so that the same text always gives the
        same tokens.

        Args:
            text: what to learn from.
            merges: how many pairs to join; fewer when no pair is left.

        Example:
            >>> Pieces.learn("low low lower", merges=2).names
            ('\ufffd', ' ', 'e', 'l', 'o', 'r', 'w', 'lo', 'low')
        """
        names = [UNKNOWN, *sorted(set(text))]
        if not merges:
            return cls(tuple(names))
        words = _Words(Counter(_WORDS.findall(text)))
        joined = []
        for _ in range(merges):
            pair = words.commonest()
            if pair is None:
                break
            words.join(pair)
            joined.append(pair)
            names.append("".join(pair))
        return cls(tuple(dict.fromkeys(names)), tuple(joined))

    @cached_property
    def _index(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.names)}

    def encode(self, text: str) -> Tensor:
        """Return the tokens of a text, int64 of shape (tokens,)."""
        index = self._index
        if not self.merges:  # characters, at once: by their code points
            codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
            table = np.zeros(max(map(ord, (*self.names, UNKNOWN))) + 2, np.int64)
            for name, i in index.items():
                table[ord(name)] = i
            table[ord(UNKNOWN)] = 0
            return torch.from_numpy(table[np.minimum(codes, len(table) - 1)])
        rank = {pair: i for i, pair in enumerate(self.merges)}
        known: dict[str, list[int]] = {}
        tokens: list[int] = []
        for word in _WORDS.findall(text):
            if word not in known:
                known[word] = [index.get(piece, 0) for piece in _join_all(word, rank)]
            tokens += known[word]
        return torch.tensor(tokens)


def _join_all(word: str, rank: dict[Pair, int]) -> list[str]:
    """Return the pieces of a word after all merges, the earliest learned first."""
    parts = list(word)
    while len(parts) > 1:
        pair = min(pairwise(parts), key=lambda p: rank.get(p, len(rank)))
        if pair not in rank:
            break
        parts = _joined(parts, pair)
    return parts


def _joined(parts: list[str], pair: Pair) -> list[str]:
    out: list[str] = []
    i = 0
    while i < len(parts):
        if i + 1 < len(parts) and (parts[i], parts[i + 1]) == pair:
            out.append(parts[i] + parts[i + 1])
            i += 2
        else:
            out.append(parts[i])
            i += 1
    return out


class _Words:
    """Count pairs of neighbouring pieces over all different words, and keep the counts true."""

    def __init__(self, counts: Counter[str]):
        self.parts = {word: list(word) for word in counts}
        self.counts = counts
        self.pairs: Counter[Pair] = Counter()
        self.where: defaultdict[Pair, set[str]] = defaultdict(set)
        for word in counts:
            self._count(word, counts[word])

    def _count(self, word: str, times: int) -> None:
        parts = self.parts[word]
        for pair in pairwise(parts):
            self.pairs[pair] += times
            if times > 0:
                self.where[pair].add(word)

    def commonest(self) -> Pair | None:
        """Return the pair that stands together most often; none when none does twice."""
        if not self.pairs:
            return None
        most = max(self.pairs.values())
        return min(p for p, n in self.pairs.items() if n == most) if most > 1 else None

    def join(self, pair: Pair) -> None:
        """Join a pair wherever it stands."""
        for word in sorted(self.where.pop(pair, ())):
            self._count(word, -self.counts[word])
            self.parts[word] = _joined(self.parts[word], pair)
            self._count(word, self.counts[word])
        self.pairs = +self.pairs
