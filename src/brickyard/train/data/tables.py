"""Read tables with named columns: CSV and Parquet."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from brickyard.catalog import brick
from brickyard.errors import DataError, near
from brickyard.train.data.assemble import finish, take
from brickyard.train.data.base import Data, find_path, merge_facts
from brickyard.train.data.columns import (
    ROW_BASE,
    Column,
    Encoder,
    giveaways,
    identity,
    looks_like_names,
    read_column,
)
from brickyard.train.data.splitting import Plan, partition
from brickyard.train.data.target import read_target

Missing = Literal["error", "impute", "drop"]


@brick(
    "data", "csv", aliases=("tsv",), public="brickyard.train.data",
    task="classification or regression", needs=("pandas",), extra="data",
    summary="Your own CSV table: name the target column, the rest is read, checked and encoded.",
    use_when="Samples are rows with numbers, categories, dates or true/false values.",
    avoid_when="Columns hold free text, or rows belong together (several per patient, or a time "
    "series): split those yourself and give the second file as val.",
    best_for="First results on a table with hundreds to some million rows.",
    paper="none; the encoding is described in the guide",
    tune_first="drop: the columns that would not be known when predicting.",
    pairs_with=("mlp", "parquet"),
    cost="The table in memory, plus four bytes per row and encoded column.",
)  # fmt: skip
def csv(
    path: str, target_column: str, columns: list[str] | None = None, drop: list[str] | None = None,
    task: Literal["classification", "regression"] | None = None, missing: Missing = "error",
    val: float | str = 0.2, duplicates: Literal["together", "allow"] = "together",
    seed: int = 0, root: str | Path | None = None,
) -> Data:  # fmt: skip
    """Read a CSV table and encode its columns with the training split's statistics only.

    Commas, semicolons, tabs and bars are recognised as separators; text is UTF-8. Numbers and
    dates (days) are standardised, true/false becomes 0 and 1, text becomes one column per
    category. Left out, and named in ``facts["warnings"]``: columns with one value only, row
    numbers, and text that is different in most rows.

    Args:
        path: the file; a relative path starts at the recipe's folder.
        target_column: the column that is to be predicted.
        columns: the columns to learn from, instead of all others; these are never taken for
            names or row numbers.
        drop: columns to leave out.
        task: what is learned; if not said, text, true/false and at most 20 different whole
            numbers are classes, other numbers regression.
        missing: on empty cells: stop ("error"); fill numbers with the training median and make
            "(missing)" a category ("impute"); or leave such rows out ("drop").
        val: fraction of the rows for validation, or their number from 1 up; or the file with your
            own validation rows.
        duplicates: keep rows with equal features on one side of the split ("together"; an error
            where your own files share some), or let them be ("allow").
        seed: of the stratified split.
        root: the recipe's folder.

    Raises:
        DataError: the file, a column or a cell that cannot be used; each says which.

    Example:
        >>> import tempfile
        >>> table = pd.DataFrame({"size": np.arange(60) % 11, "colour": ["red", "blue"] * 30,
        ...                       "label": np.arange(60) % 3})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     table.to_csv(f"{folder}/toy.csv", index=False)
        ...     data = csv("toy.csv", target_column="label", root=folder)
        >>> data.task, data.facts["features"]
        ('classification', ['size', 'colour=blue', 'colour=red'])

    Reference:
        The encoding is the usual one; see the guide on data, and Kaufman, Rosset, Perlich,
        "Leakage in Data Mining", KDD 2011, for why statistics come from training rows only.
    """
    wish = _Wish(target_column, columns, drop, missing)
    return _read_table(path, wish, Plan(task, _share(val), seed, duplicates), val, root, _read_csv)


@brick(
    "data", "parquet", public="brickyard.train.data",
    task="classification or regression", needs=("pandas", "pyarrow"), extra="data",
    summary="Your own Parquet table: like csv, with the types that the file states.",
    use_when="The table is large, or its types (dates, categories, gaps in integers) must survive.",
    avoid_when="You want to look at or edit the file by hand: take csv.",
    best_for="Tables that another program writes.",
    paper="none; the format is Apache Parquet",
    tune_first="drop: the columns that would not be known when predicting.",
    pairs_with=("mlp", "csv"),
    cost="The table in memory, plus four bytes per row and encoded column; no text is parsed.",
)  # fmt: skip
def parquet(
    path: str, target_column: str, columns: list[str] | None = None, drop: list[str] | None = None,
    task: Literal["classification", "regression"] | None = None, missing: Missing = "error",
    val: float | str = 0.2, duplicates: Literal["together", "allow"] = "together",
    seed: int = 0, root: str | Path | None = None,
) -> Data:  # fmt: skip
    """Read a Parquet table and encode its columns with the training split's statistics only.

    The encoding is that of ``csv``.

    Args:
        path: the file; a relative path starts at the recipe's folder.
        target_column: the column that is to be predicted.
        columns: the columns to learn from, instead of all others; these are never taken for
            names or row numbers.
        drop: columns to leave out.
        task: what is learned; if not said, text, true/false and at most 20 different whole
            numbers are classes, other numbers regression.
        missing: on empty cells: stop ("error"); fill numbers with the training median and make
            "(missing)" a category ("impute"); or leave such rows out ("drop").
        val: fraction of the rows for validation, or their number from 1 up; or the file with your
            own validation rows.
        duplicates: keep rows with equal features on one side of the split ("together"; an error
            where your own files share some), or let them be ("allow").
        seed: of the stratified split.
        root: the recipe's folder.

    Raises:
        DataError: the file, a column or a cell that cannot be used; each says which.

    Example:
        >>> import tempfile
        >>> table = pd.DataFrame({"hour": np.arange(48) % 24, "load": np.arange(48) * 0.5})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     table.to_parquet(f"{folder}/load.parquet")
        ...     data = parquet("load.parquet", target_column="load", root=folder)
        >>> data.task, data.outputs
        ('regression', 1)

    Reference:
        Apache Parquet, https://parquet.apache.org/docs/file-format/
    """
    wish = _Wish(target_column, columns, drop, missing)
    plan = Plan(task, _share(val), seed, duplicates)
    return _read_table(path, wish, plan, val, root, _read_parquet)


@dataclass(frozen=True)
class _Wish:
    target: str
    columns: list[str] | None
    drop: list[str] | None
    missing: Missing

    def __post_init__(self) -> None:
        if self.columns is not None and self.drop is not None:
            raise DataError("give columns (what to use) or drop (what not to), not both")
        if self.missing not in ("error", "impute", "drop"):
            raise DataError(f"missing must be 'error', 'impute' or 'drop'; got {self.missing!r}")


def _share(val: float | str) -> float:
    return 0.2 if isinstance(val, str) else val


def _read_table(
    path: str, wish: _Wish, plan: Plan, val: float | str, root: str | Path | None,
    read: Callable[[Path], pd.DataFrame],
) -> Data:  # fmt: skip
    file = find_path(path, root)
    frame = _checked(read(file), file, wish)
    given = None
    if isinstance(val, str):
        second = find_path(val, root)
        other = _checked(read(second), second, wish)
        frame = _stacked(frame, other, file, second)
        given = len(frame) - len(other)
    names = _feature_names(frame, wish, file)
    columns = [read_column(name, _series(frame, name)) for name in names]
    keep, gaps = _rows(columns, _series(frame, wish.target), wish, file)
    if not keep.all():
        columns = [column.rows(keep) for column in columns]
        frame = frame.loc[keep]
        given = None if given is None else int(keep[:given].sum())
    columns, notes = _useful(columns, wish, len(frame) if given is None else given)
    raw = _raw_target(_series(frame, wish.target))
    target = read_target(
        raw, plan.task, name=f"target {wish.target!r}", table=True, row_base=ROW_BASE
    )
    plan = Plan(plan.task, plan.val, plan.seed, plan.duplicates, given)
    parts = partition(identity(columns), target, plan, row_base=ROW_BASE)
    encoder = Encoder(impute=wish.missing == "impute")
    x = encoder.fit_transform(columns, parts.train)
    notes += encoder.warnings + giveaways(columns, target) + _dated(columns, given)
    facts = merge_facts(
        {
            "source": file.name,
            "target_column": wish.target,
            "features": encoder.names,
            "preprocessing": {"fitted_on": "training split", "columns": encoder.facts},
            "missing": gaps,
            "warnings": notes,
        }
    )
    return finish(file.stem, (take(x, parts.train), take(x, parts.val)), target, parts, facts)


def _read_csv(file: Path) -> pd.DataFrame:
    try:
        with file.open(encoding="utf-8-sig") as opened:
            head = opened.readline()
        with warnings.catch_warnings():  # pandas only warns where it cuts long rows off
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return pd.read_csv(
                file, sep=max(",;\t|", key=head.count), na_values=["?"], skipinitialspace=True,
                index_col=False, low_memory=False, encoding="utf-8-sig",
            )  # fmt: skip
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file} is not UTF-8 text (byte {error.start}); save it as UTF-8"
        ) from error
    except pd.errors.EmptyDataError as error:
        raise DataError(f"{file} is empty; its first line must name the columns") from error
    except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
        raise DataError(f"{file} is no regular table: {str(error).strip()}") from error


def _read_parquet(file: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(file, engine="pyarrow")
    except (ValueError, OSError) as error:  # pyarrow's own errors are ValueErrors
        raise DataError(f"{file} is no readable Parquet file ({error})") from error


def _checked(frame: pd.DataFrame, file: Path, wish: _Wish) -> pd.DataFrame:
    """Return the table with its headings as text; raise where it is empty or columns are absent."""
    frame = frame.rename(columns=str).reset_index(drop=True)
    known = [str(name) for name in frame.columns]
    if len(frame) == 0:
        raise DataError(f"{file} has no rows")
    if len(set(known)) < len(known):
        twice = sorted({name for name in known if known.count(name) > 1})
        raise DataError(f"{file.name} has several columns called {twice[0]!r}; rename them")
    wanted = [("target_column", wish.target)]
    wanted += [("columns", c) for c in wish.columns or ()]
    wanted += [("drop", c) for c in wish.drop or ()]
    for option, name in wanted:
        if name not in known:
            raise DataError(f"{option}: {file.name} has no column {name!r}{near(name, known)}")
        if option != "target_column" and name == wish.target:
            raise DataError(f"{option} names the target {name!r}; take it out")
    return frame


def _series(frame: pd.DataFrame, name: str) -> pd.Series:
    return pd.Series(frame[name])


def _stacked(frame: pd.DataFrame, other: pd.DataFrame, file: Path, second: Path) -> pd.DataFrame:
    lacking = [name for name in frame.columns if name not in other.columns]
    if lacking:
        raise DataError(
            f"{second.name} lacks the column {lacking[0]!r} of {file.name}; both need the same"
        )
    return pd.concat([frame, other.loc[:, list(frame.columns)]], ignore_index=True)


def _feature_names(frame: pd.DataFrame, wish: _Wish, file: Path) -> list[str]:
    names = [c for c in frame.columns if c != wish.target]
    if wish.columns is not None:
        names = list(dict.fromkeys(wish.columns))
    names = [name for name in names if name not in (wish.drop or ())]
    if not names:
        raise DataError(f"{file.name}: no column is left to learn from")
    return names


def _rows(
    columns: list[Column], target: pd.Series, wish: _Wish, file: Path
) -> tuple[np.ndarray, dict[str, Any]]:
    """Return which rows stay, and facts on gaps; raise where gaps are an error."""
    counts = {c.name: int(c.missing.sum()) for c in columns}
    gaps = {name: count for name, count in counts.items() if count}
    if gaps and wish.missing == "error":
        named = ", ".join(f"{name!r} ({count} rows)" for name, count in list(gaps.items())[:5])
        raise DataError(
            f"{file.name} has empty cells in {named}; set missing to 'impute' or 'drop', or name "
            "these columns in drop"
        )
    keep = np.ones(len(target), bool)
    if wish.missing == "drop":
        keep = ~target.isna().to_numpy()
        for column in columns:
            keep &= ~column.missing
        if not keep.any():
            worst = max(gaps or {wish.target: 0}, key=lambda name: gaps.get(name, 0))
            raise DataError(
                f"{file.name}: every row has an empty cell (most are in {worst!r}); "
                "name such columns in drop, or set missing to 'impute'"
            )
    return keep, {"policy": wish.missing, "cells": gaps, "rows_dropped": int((~keep).sum())}


def _useful(columns: list[Column], wish: _Wish, rows: int) -> tuple[list[Column], list[str]]:
    """Leave out columns that name rows, unless the user asked for them by name."""
    if wish.columns is not None:
        return columns, []
    reasons = {c.name: looks_like_names(c.rows(slice(rows))) for c in columns}
    kept = [c for c in columns if not reasons[c.name]]
    notes = [
        f"left out column {name!r}, which names rows: {why}" for name, why in reasons.items() if why
    ]
    if not kept:
        raise DataError(f"no column is left to learn from; {'; '.join(notes)}")
    return kept, notes


def _raw_target(series: pd.Series) -> np.ndarray:
    """Return the target column as numbers, booleans or objects."""
    if pd.api.types.is_datetime64_any_dtype(series.dtype):
        raise DataError(
            f"the target {series.name!r} holds dates; give numbers (such as days) or labels"
        )
    if pd.api.types.is_bool_dtype(series.dtype) and not series.isna().any():
        return series.to_numpy(bool)
    if pd.api.types.is_numeric_dtype(series.dtype):
        values = series.to_numpy(np.float64, na_value=np.nan)
        whole = np.isfinite(values).all() and (values == np.round(values)).all()
        return values.astype(np.int64) if whole and np.abs(values).max() < 2**53 else values
    values = series.to_numpy(object)
    values[series.isna().to_numpy()] = None
    return values


def _dated(columns: list[Column], given: int | None) -> list[str]:
    dates = [repr(c.name) for c in columns if c.kind == "date"]
    if not dates or given is not None:
        return []
    return [
        f"{', '.join(dates)} holds dates, and a random split trains on rows later than those it is "
        "validated on; if time matters, give later rows as a val file"
    ]
