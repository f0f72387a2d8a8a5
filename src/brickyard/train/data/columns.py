"""Turn the columns of a table into numbers, with all statistics taken from training rows."""

from __future__ import annotations

import datetime
import decimal
import numbers
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from brickyard.errors import DataError
from brickyard.train.data.target import Target

#: A text column gets one-hot columns for its so many most frequent training categories.
CATEGORIES = 100
#: A text column with more distinct values than this, most of them in one row only, is a name.
NAMES = 20
#: Rows are counted from 1 in messages, the header not included.
ROW_BASE = 1

_ISO_DATE = r"\d{4}-\d{2}-\d{2}([ T]\d{2}:\d{2}(:\d{2}([.,]\d+)?)?(Z|[+-]\d{2}:?\d{2})?)?"
_MISSING = "(missing)"


@dataclass(frozen=True)
class Column:
    """Hold one feature column.

    Args:
        name: its heading.
        kind: ``"number"``, ``"date"`` (days since 1970), ``"flag"`` (0 or 1), ``"category"``.
        values: float64 with NaN where missing; for categories places in ``texts``, -1 where
            missing.
        texts: the categories.
    """

    name: str
    kind: str
    values: np.ndarray
    texts: tuple[str, ...] = ()

    @property
    def missing(self) -> np.ndarray:
        """Say for every row whether the value is missing."""
        return self.values < 0 if self.kind == "category" else np.isnan(self.values)

    def rows(self, which: Any) -> Column:
        """Return the column of some rows."""
        return replace(self, values=self.values[which])


def read_column(name: str, series: pd.Series) -> Column:
    """Find out what a column holds and return it.

    Raises:
        DataError: it holds infinity, objects that are neither numbers, text nor dates, or numbers
            with some text among them.
    """
    dtype = series.dtype
    if pd.api.types.is_bool_dtype(dtype) and not isinstance(dtype, pd.CategoricalDtype):
        return Column(name, "flag", _floats(series))
    if pd.api.types.is_datetime64_any_dtype(dtype):
        return Column(name, "date", _days(series))
    if pd.api.types.is_timedelta64_dtype(dtype):
        return Column(name, "number", (series / pd.Timedelta(seconds=1)).to_numpy(np.float64))
    if pd.api.types.is_numeric_dtype(dtype):
        return Column(name, "number", _finite(name, _floats(series)))
    try:
        codes, distinct = pd.factorize(series)
    except TypeError:  # lists and the like
        raise _strange(name, next(v for v in series.dropna() if not _hashable(v))) from None
    values = list(distinct)
    if isinstance(dtype, pd.CategoricalDtype):
        return _category(name, codes, values)
    return _read_objects(name, series, codes, values)


def _read_objects(name: str, series: pd.Series, codes: np.ndarray, values: list[Any]) -> Column:
    """Read a column of objects from its ``values``, which are all different."""
    if all(isinstance(v, bool | np.bool_) for v in values):  # an empty column ends here too
        return Column(name, "flag", _floats(series))
    if all(isinstance(v, numbers.Number | decimal.Decimal) for v in values):
        return Column(name, "number", _finite(name, _floats(series)))
    if all(isinstance(v, datetime.date) for v in values):
        return Column(name, "date", _days(pd.Series(pd.to_datetime(series, utc=True))))
    strange = next((v for v in values if not isinstance(v, str | numbers.Number)), None)
    if strange is not None:
        raise _strange(name, strange)
    text = pd.Series([str(v) for v in values])
    if text.str.fullmatch(_ISO_DATE).all():
        return Column(name, "date", _days(_dates(name, text))[codes] + _gaps(codes))
    bad = pd.Series(pd.to_numeric(text, errors="coerce")).isna().to_numpy()
    known = codes[codes >= 0]
    count = int(bad[known].sum())
    if len(known) > 1 and 0 < count <= 0.1 * len(known):
        odd = sorted(text[bad])[:3]
        raise DataError(
            f"column {name!r} holds numbers, but {count} rows hold "
            f"{', '.join(map(repr, odd))}; empty those cells (then see missing), or name it in drop"
        )
    return _category(name, codes, values)


def _strange(name: str, value: Any) -> DataError:
    return DataError(
        f"column {name!r} holds a {type(value).__name__} ({str(value)[:40]}); a column "
        "must hold numbers, text, dates or true/false. Name it in drop"
    )


def _hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _category(name: str, codes: np.ndarray, values: list[Any]) -> Column:
    texts = [_plain(v) for v in values]
    distinct = sorted(set(texts))  # 1 and "1" are one category
    places = {text: i for i, text in enumerate(distinct)}
    lookup = np.array([*(places[text] for text in texts), -1], np.int64)  # codes are -1 in gaps
    return Column(name, "category", lookup[codes], tuple(distinct))


def _gaps(codes: np.ndarray) -> np.ndarray:
    return np.where(codes < 0, np.nan, 0.0)


def _dates(name: str, text: pd.Series) -> pd.Series:
    try:
        return pd.Series(pd.to_datetime(text, format="ISO8601", utc=True))
    except ValueError as error:
        raise DataError(f"column {name!r} holds dates, but not all can be read: {error}") from error


def _floats(series: pd.Series) -> np.ndarray:
    return series.astype("Float64" if series.dtype == "boolean" else series.dtype).to_numpy(
        np.float64, na_value=np.nan
    )


def _finite(name: str, values: np.ndarray) -> np.ndarray:
    rows = np.flatnonzero(np.isinf(values))
    if len(rows):
        raise DataError(
            f"column {name!r} has {len(rows)} infinite values, the first in row "
            f"{rows[0] + ROW_BASE}; correct them, or name it in drop"
        )
    return values


def _days(series: pd.Series) -> np.ndarray:
    zone = getattr(series.dt, "tz", None)
    epoch = pd.Timestamp(0, tz=zone)
    return ((series - epoch) / pd.Timedelta(days=1)).to_numpy(np.float64, na_value=np.nan)


def _plain(value: Any) -> str:
    whole = isinstance(value, float) and value.is_integer()
    return str(int(value)) if whole else str(value)


def looks_like_names(column: Column) -> str:
    """Return why a column names rows instead of describing them; empty where it does not."""
    missing = column.missing
    present = column.values[~missing]
    if column.kind == "category":
        distinct = int((np.bincount(present, minlength=1) > 0).sum())
        if distinct > NAMES and distinct > 0.5 * len(present):
            return f"{distinct} different texts in {len(present)} rows"
    elif column.kind == "number" and not missing.any() and len(present) > NAMES:
        steps = np.diff(present)
        if (steps == 1).all() and present[0] in (0, 1):
            return "it counts the rows"
    return ""


def identity(columns: list[Column]) -> np.ndarray:
    """Return one row of float64 per sample; equal samples have equal rows."""
    return np.stack([column.values.astype(np.float64) for column in columns], 1)


def giveaways(columns: list[Column], target: Target) -> list[str]:
    """Warn of columns that are the target under another name."""
    return [
        f"column {column.name!r} gives the target away; is it known when predicting?"
        for column in columns
        if (
            _one_to_one(column, target.values, len(target.classes))
            if target.task == "classification"
            else column.kind == "number" and _proportional(column.values, target.values[:, 0])
        )
    ]


def _one_to_one(column: Column, labels: np.ndarray, classes: int) -> bool:
    if len(np.unique(column.values[:1000])) > classes:
        return False
    codes, distinct = pd.factorize(column.values, use_na_sentinel=False)
    return len(distinct) == classes == len(np.unique(codes * classes + labels))


def _proportional(a: np.ndarray, b: np.ndarray) -> bool:
    known = ~np.isnan(a)
    a, b = a[known], b[known]
    if len(a) < 3 or a.std() == 0 or b.std() == 0:
        return False
    return abs(float(np.corrcoef(a, b)[0, 1])) > 1 - 1e-12


@dataclass
class Encoder:
    """Turn columns into a matrix with figures of the training rows.

    Numbers and dates: gaps become the median, then mean 0 and deviation 1. Flags: 0 and 1.
    Categories: one column each, all of them 0 for one that no training row has. Columns with the
    same value in all training rows are left out.

    Args:
        impute: fill gaps; without it there are none.
    """

    impute: bool
    names: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def fit_transform(self, columns: list[Column], train: np.ndarray) -> np.ndarray:
        """Fit on the rows ``train`` and return all rows as float32.

        Raises:
            DataError: no column is left.
        """
        blocks, left_out = [], []
        for column in columns:
            block = self._category if column.kind == "category" else self._number
            encoded = block(column, train)
            if encoded is None:
                left_out.append(column.name)
            else:
                blocks.append(encoded)
        if left_out:
            self.warnings.append(
                f"left out, the same in all training rows: {', '.join(map(repr, left_out))}"
            )
        if not blocks:
            raise DataError("no feature column is left: all are the same in all training rows")
        return np.concatenate(blocks, 1, dtype=np.float32)

    def _number(self, column: Column, train: np.ndarray) -> np.ndarray | None:
        values = column.values
        known = values[train][~np.isnan(values[train])]
        gaps = np.isnan(values)
        if len(known) == 0 or (not gaps.any() and known.min() == known.max()):
            return None
        figures: dict[str, Any] = {"kind": column.kind}
        if self.impute and gaps.any():
            figures["median"] = float(np.median(known))
            figures["imputed"] = int(gaps.sum())
            values = np.where(gaps, figures["median"], values)
        fitted = values[train]
        if fitted.min() == fitted.max():
            return None
        if column.kind != "flag":
            figures |= {"mean": float(fitted.mean()), "std": float(fitted.std())}
            values = (values - figures["mean"]) / figures["std"]
        self.names.append(column.name)
        self.facts[column.name] = figures
        return values[:, None].astype(np.float32)

    def _category(self, column: Column, train: np.ndarray) -> np.ndarray | None:
        texts = (*column.texts, _MISSING)
        codes = np.where(column.values < 0, len(texts) - 1, column.values)
        counts = np.bincount(codes[train], minlength=len(texts))
        found = np.flatnonzero(counts)
        if len(found) < 2:
            return None
        kept = np.sort(found[np.lexsort((found, -counts[found]))[:CATEGORIES]])
        unseen = len(np.setdiff1d(codes, found))
        if len(found) > len(kept):
            self.warnings.append(
                f"column {column.name!r} has {len(found)} categories; the {len(kept)} most "
                "frequent have a column, the others are all zeros"
            )
        if unseen:
            self.warnings.append(
                f"column {column.name!r} has {unseen} categories that no training row has; "
                "they are all zeros"
            )
        names = [texts[code] for code in kept]
        self.names += [f"{column.name}={name}" for name in names]
        self.facts[column.name] = {"kind": "category", "categories": names, "unseen": unseen}
        return (codes[:, None] == kept).astype(np.float32)
