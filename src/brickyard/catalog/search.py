"""Rank cards by a text query: fields with weights, stems, concepts, and a fallback for typos."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

from brickyard.catalog.card import Card
from brickyard.catalog.concepts import CONCEPTS, GENERIC, STOP_WORDS
from brickyard.catalog.kinds import KINDS
from brickyard.catalog.shelf import shelf

_find_words = re.compile(r"[a-z0-9]+").findall
_find_parts = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+").findall

#: What is read, how much a word counts there, and how much a long text is discounted (0 to 1).
_FIELDS: tuple[tuple[Callable[[Card], str], float, float], ...] = (
    (lambda c: _names(c), 6.0, 0.6),
    (lambda c: c.summary, 3.0, 0.4),
    (lambda c: f"{c.use_when} {c.best_for}", 2.0, 0.4),
    (lambda c: f"{c.kind} {c.about.category} {c.about.title}", 1.5, 0.0),
    (lambda c: f"{c.doc} {' '.join(o.name for o in c.options)}", 1.0, 0.5),
    (lambda c: f"{c.tune_first} {c.cost} {' '.join(map(str, c.facts.values()))}", 0.8, 0.5),
    (lambda c: f"{c.paper} {' '.join(c.pairs_with)}", 0.6, 0.5),
    (lambda c: f"{c.avoid_when} {' '.join(o.doc for o in c.options)}", 0.3, 0.5),
)
_SATURATION = 2.5  # BM25's k1 for weighted counts
_RELATED = 0.55  # weight of a word that a concept brings in, against 1 for a word of the query
_IN_PHRASE = 0.35  # weight of a word of a phrase by itself
_SLIGHT = 0.3  # weight of a word such as "training"
_FLOOR = 0.2  # cards below this share of the best score are not worth a line
_NAMED = 100.0  # added when the query is a brick's very name, so that it comes first

_Forms = dict[str, float]  # words of the cards that one word of the query stands for, with weights

_SUFFIXES = (
    ("isations", "iz"), ("izations", "iz"), ("isation", "iz"), ("ization", "iz"),
    ("ifications", "if"), ("ification", "if"), ("ifiers", "if"), ("ifier", "if"), ("ifies", "if"),
    ("ify", "if"), ("ations", ""), ("ation", ""), ("ating", ""), ("ated", ""), ("ates", ""),
    ("ate", ""), ("ities", ""), ("ity", ""), ("ness", ""), ("ively", ""), ("ives", ""),
    ("ive", ""), ("ions", ""), ("ion", ""), ("ies", "y"),
    ("ators", ""), ("ator", ""), ("tors", "t"), ("tor", "t"), ("ings", ""), ("ing", ""),
    ("ers", ""), ("er", ""), ("ed", ""), ("ly", ""), ("es", ""), ("s", ""), ("e", ""),
)  # fmt: skip


def search(text: str, kind: str | None = None, limit: int = 10) -> list[tuple[float, Card]]:
    """Return ``(score, card)`` pairs that fit ``text``, best first.

    A brick's own name comes first. Otherwise cards are ranked by BM25 over their fields: names
    count most, then the summary, then when to use it; ``avoid_when`` counts least. Words match by
    stem; concepts ("exploding gradients") bring in the words that cards use; a word that no card
    has is taken for a typo of the nearest ones.

    Args:
        text: words, in any order and case.
        kind: search only among bricks of this kind.
        limit: how many pairs to return at the most.

    Raises:
        CatalogError: no such kind.

    Example:
        >>> [card.key for _, card in search("adamw", limit=1)]
        ['adamw']
    """
    cards = shelf(kind)
    terms = [w for w in _find_words(text.lower()) if w not in STOP_WORDS]
    terms = terms or _find_words(text.lower())
    if not terms or not cards:
        return []
    index = _Index(cards)
    right = index.corrected(terms)
    text = text if right == terms else " ".join(right)
    groups, single = _groups(right)
    scores = _rank(index, groups)
    scores = [s * _kind_boost(card, single) for s, card in zip(scores, cards, strict=True)]
    floor = max(scores) * _FLOOR
    ranked = [
        (round(score + bonus, 3), card)
        for score, card in zip(scores, cards, strict=True)
        if (bonus := _name_bonus(card, text)) or score > floor
    ]
    return sorted(ranked, key=lambda pair: -pair[0])[:limit]


def _names(card: Card) -> str:
    """Return key, aliases and class name, in parts and as one word each."""
    plain = [card.key, *card.aliases]
    joined = [card.name, *(name.replace("_", "") for name in plain if "_" in name)]
    parts = _find_parts(card.name) if card.name.lower() != card.key else []
    return " ".join([*(name.replace("_", " ") for name in plain), *parts, *joined])


def _fold(text: str) -> str:
    return "".join(_find_words(text.lower()))


def _name_bonus(card: Card, text: str) -> float:
    wanted = _fold(text)
    if text.strip().lower().replace("-", "_").replace(" ", "_") == card.key:
        return _NAMED + 1  # "constant" is not "constant_"
    key = card.key.replace("_", "")
    if wanted == key:
        return _NAMED
    if wanted in [alias.replace("_", "").lower() for alias in card.aliases]:
        return _NAMED - 1
    if wanted == card.name.replace("_", "").lower():
        return _NAMED - 2
    if wanted.startswith(key) and wanted[len(key) :] in _kind_names(card.kind):  # "focal loss"
        return _NAMED - 3
    return 0.0


@cache
def _kind_names(kind: str) -> set[str]:
    about = KINDS[kind]
    return {_fold(about.name), _fold(about.category), _fold(about.title)}


def _kind_boost(card: Card, named: set[str]) -> float:
    kinds = _kind_stems()
    if named & kinds[card.kind]:
        return 1.3
    return 0.8 if any(named & stems for stems in kinds.values()) else 1.0


@cache
def _kind_stems() -> dict[str, set[str]]:
    return {kind.name: {stem(kind.name), stem(kind.category)} for kind in KINDS.values()}


@cache
def stem(word: str) -> str:
    """Return the stem of a lower-case word, so that forms of one word meet.

    Example:
        >>> stem("clipping"), stem("normalization"), stem("normalise"), stem("classifiers")
        ('clip', 'normaliz', 'normaliz', 'classif')
    """
    if word.isdigit():
        return word
    root = word
    for suffix, instead in _SUFFIXES:
        if root.endswith(suffix) and len(root) - len(suffix) >= 3 and not root.endswith("ss"):
            root = root[: -len(suffix)] + instead
            break
    if len(root) > 3 and root[-1] == root[-2] and root[-1] not in "aeiou":
        root = root[:-1]
    if len(root) > 5 and root.endswith("is"):
        root = root[:-1] + "z"
    return root


# --- From the query to words of the cards ---------------------------------------------------------


@dataclass
class _Group:
    """Hold one matter that the query names: words with weights, and a phrase where it is one."""

    words: dict[str, float]
    phrase: tuple[str, ...] = ()

    @property
    def weight(self) -> float:
        return 1.0 if self.phrase else max(self.words.values())


def _groups(terms: list[str]) -> tuple[list[_Group], set[str]]:
    """Return the matters that the query names, and the stems of its single words.

    The single words are those outside phrases: the "loss" of "focal loss", but not of "validation
    loss". A phrase that is only another word for one, such as "cost function", stands for it.
    """
    concepts, longest = _concepts()
    stems = [stem(term) for term in terms]
    groups: list[_Group] = []
    single: set[str] = set()
    at = 0
    while at < len(terms):
        for size in range(min(longest, len(terms) - at), 0, -1):
            related = concepts.get(tuple(stems[at : at + size]), ())
            if not related and size > 1:
                continue
            words = dict.fromkeys(related, _RELATED)
            phrase = tuple(terms[at : at + size]) if size > 1 else ()
            if phrase:
                words |= {**dict.fromkeys(phrase, _IN_PHRASE), "".join(phrase): 1.0}
                single |= {stem(word) for word in related if len(related) == 1}
            else:
                slight = terms[at] in GENERIC or terms[at].isdigit()
                words[terms[at]] = _SLIGHT if slight else 1.0
                single.add(stems[at])
            groups.append(_Group(words, phrase))
            at += size
            break
    for pair in pairwise(terms):  # "drop out", "soft max"
        groups[0].words.setdefault("".join(pair), 1.0)
    return groups, single


@cache
def _concepts() -> tuple[dict[tuple[str, ...], tuple[str, ...]], int]:
    table: dict[tuple[str, ...], tuple[str, ...]] = {}
    for phrases, words in CONCEPTS:
        for phrase in phrases.split(","):
            parts = (stem(w) for w in _find_words(phrase) if w not in STOP_WORDS)
            key = tuple(parts)
            table[key] = table.get(key, ()) + tuple(_find_words(words))
    return table, max(map(len, table))


@cache
def _concept_stems() -> set[str]:
    return {part for phrase in _concepts()[0] for part in phrase}


def _nearest(word: str, vocabulary: Iterable[str], preferred: set[str]) -> str:
    """Return the word of the cards that ``word`` may be a slip of; itself if there is none.

    One slip is taken for one in short words, up to two in long ones; names go before other words.
    """
    pairs, most = _pairs(word), 1 if len(word) < 6 else 2
    found: list[tuple[int, bool, str]] = []
    for other in vocabulary:
        if abs(len(other) - len(word)) <= most and len(pairs & _pairs(other)) >= 2:
            slips = _slips(word, other)
            if slips <= most:
                found.append((slips, other not in preferred, other))
    return min(found)[2] if found else word


def _pairs(word: str) -> set[str]:
    padded = f"^{word}$"
    return {padded[i : i + 2] for i in range(len(padded) - 1)}


def _slips(a: str, b: str) -> int:
    """Count the letters left out, added, changed or swapped with their neighbour."""
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        two_before, before, row = before, row, [i]
        for j, y in enumerate(b, 1):
            cost = min(before[j] + 1, row[-1] + 1, before[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                cost = min(cost, two_before[j - 2] + 1)
            row.append(cost)
    return row[-1]


# --- From the words to scores ---------------------------------------------------------------------


class _Index:
    """Hold the words of all cards by field."""

    def __init__(self, cards: list[Card]):
        self.documents = [[_find_words(f[0](card).lower()) for f in _FIELDS] for card in cards]
        totals = [sum(map(len, column)) for column in zip(*self.documents, strict=True)]
        self.mean_lengths = [max(1.0, total / len(cards)) for total in totals]
        self.vocabulary = {w for document in self.documents for words in document for w in words}
        self.names = {word for document in self.documents for word in document[0]}
        self._starts: dict[str, list[str]] = {}
        for word in self.vocabulary:
            self._starts.setdefault(word[:3], []).append(word)

    def forms(self, words: dict[str, float]) -> list[_Forms]:
        """Return the forms in the cards of each word of a group that has any."""
        found = (self._same_word(word, weight) for word, weight in words.items())
        return [forms for forms in found if forms]

    def corrected(self, terms: list[str]) -> list[str]:
        """Return the words of a query, those that nobody knows replaced by the nearest."""
        known = _concept_stems()
        return [
            word
            if len(word) < 4 or stem(word) in known or self._same_word(word, 1.0)
            else _nearest(word, self.vocabulary, self.names)
            for word in terms
        ]

    def _same_word(self, word: str, weight: float) -> _Forms:
        root = stem(word)
        bucket = self._starts.get(root[:3], ())
        same = {w: weight for w in bucket if stem(w) == root}
        if not same and len(word) >= 3:
            same = {w: weight * 0.7 for w in bucket if w.startswith(word)}
        for cut in range(3, len(word) - 2 if not same else 0):  # "crossentropy"
            if {word[:cut], word[cut:]} <= self.vocabulary:
                return {word[:cut]: weight, word[cut:]: weight}
        return same

    def counts(self, wanted: set[str]) -> dict[str, dict[int, float]]:
        """Return, for each word, the documents that have it and its weighted count there."""
        found: dict[str, dict[int, float]] = {word: {} for word in wanted}
        for i, document in enumerate(self.documents):
            for words, mean, field in zip(document, self.mean_lengths, _FIELDS, strict=True):
                _, weight, discount = field
                for word in wanted.intersection(words):
                    norm = 1 - discount + discount * len(words) / mean
                    before = found[word].get(i, 0.0)
                    found[word][i] = before + weight * words.count(word) / norm
        return found


def _rank(index: _Index, groups: list[_Group]) -> list[float]:
    """Return each document's score: per group the best word and a share of the others."""
    size = len(index.documents)
    forms = [index.forms(group.words) for group in groups]
    phrases = [[index.forms({word: 1.0}) for word in group.phrase] for group in groups]
    every = [*forms, *(one for phrase in phrases for one in phrase)]
    counts = index.counts({word for group in every for form in group for word in form})
    scores, covered = [0.0] * size, [0.0] * size
    for group, terms, phrase in zip(groups, forms, phrases, strict=True):
        parts = [_score(max(term.values()), _total(term, counts), size) for term in terms]
        if phrase and all(phrase):  # documents with all of its words
            each = [_total(one[0], counts) for one in phrase]
            both = set(each[0]).intersection(*each[1:])
            parts.append(_score(1.0, {i: min(c[i] for c in each) for i in both}, size))
        for i in set().union(*parts):
            found = [part.get(i, 0.0) for part in parts]
            best = max(found)
            scores[i] += best + 0.3 * (sum(found) - best)
            covered[i] += group.weight
    whole = sum(group.weight for group in groups)
    return [s * (0.25 + 0.75 * (c / whole) ** 2) for s, c in zip(scores, covered, strict=True)]


def _total(forms: _Forms, counts: dict[str, dict[int, float]]) -> dict[int, float]:
    """Return how often each document has one word of the query, in any of its forms."""
    weight = max(forms.values())
    total: dict[int, float] = {}
    for word, share in forms.items():
        for i, count in counts[word].items():
            total[i] = total.get(i, 0.0) + count * share / weight
    return total


def _score(weight: float, counts: dict[int, float], size: int) -> dict[int, float]:
    """Return BM25's score of one word or phrase for each document that has it."""
    rarity = math.log(1 + (size - len(counts) + 0.5) / (len(counts) + 0.5))
    return {i: weight * rarity * c / (_SATURATION + c) for i, c in counts.items()}
