"""Tables: types, gaps, encodings, leaks, and what each message names."""

import datetime
import decimal
import inspect

import numpy as np
import pandas as pd
import pytest
import torch

from brickyard.errors import DataError
from brickyard.train.data import columns as columns_module
from brickyard.train.data import csv, parquet

N = 60
READERS = {"csv": csv, "parquet": parquet}


def _mixed(n=N):
    random = np.random.RandomState(0)
    return pd.DataFrame({
        "age": random.randint(18, 90, n),
        "income": random.lognormal(10, 1, n),
        "city": random.choice(["Ulm", "Köln", "Kiel"], n),
        "member": random.rand(n) < 0.5,
        "since": pd.Timestamp("2020-01-01") + pd.to_timedelta(random.randint(0, 900, n), unit="D"),
        "label": np.where(np.arange(n) % 3 == 0, "yes", "no"),
    })  # fmt: skip


def _write(frame, folder, kind, name="table"):
    path = folder / f"{name}.{kind}"
    frame.to_csv(path, index=False) if kind == "csv" else frame.to_parquet(path)
    return path.name


@pytest.mark.parametrize("kind", READERS)
def test_mixed_types_round_trip(kind, tmp_path):
    frame = _mixed()
    data = READERS[kind](_write(frame, tmp_path, kind), "label", root=tmp_path)
    assert (data.name, data.task, data.classes) == ("table", "classification", ("no", "yes"))
    cities = ["city=Kiel", "city=Köln", "city=Ulm"]
    assert data.facts["features"] == ["age", "income", *cities, "member", "since"]
    assert data.input_shape == (7,)
    assert (len(data.train), len(data.val)) == (48, 12)
    assert data.facts["class_counts"] == {
        "train": {"no": 32, "yes": 16},
        "val": {"no": 8, "yes": 4},
    }
    figures = data.facts["preprocessing"]["columns"]
    kinds = {name: f["kind"] for name, f in figures.items()}
    assert kinds == {"age": "number", "income": "number", "city": "category", "member": "flag",
                     "since": "date"}  # fmt: skip
    x = torch.cat([data.train.x, data.val.x]).double().numpy()
    names = data.facts["features"]
    for name in ("age", "income"):
        back = x[:, names.index(name)] * figures[name]["std"] + figures[name]["mean"]
        np.testing.assert_allclose(np.sort(back), np.sort(frame[name]), rtol=1e-4)
    days = x[:, names.index("since")] * figures["since"]["std"] + figures["since"]["mean"]
    expected = (frame["since"] - pd.Timestamp(0)) / pd.Timedelta(days=1)
    np.testing.assert_allclose(np.sort(days), np.sort(expected), atol=1e-2)
    assert x[:, names.index("member")].sum() == frame["member"].sum()
    for name in cities:
        assert x[:, names.index(name)].sum() == (frame["city"] == name[5:]).sum()
    assert "'since' holds dates" in data.warnings[0]


def test_csv_and_parquet_agree(tmp_path):
    frame = _mixed()
    ours = [READERS[k](_write(frame, tmp_path, k), "label", root=tmp_path) for k in READERS]
    assert torch.allclose(ours[0].train.x, ours[1].train.x, atol=1e-5)
    assert torch.equal(ours[0].val.y, ours[1].val.y)


def test_statistics_come_from_training_rows(tmp_path):
    """What stands in validation rows must not change a single training number."""
    frame = _mixed(90)
    frame.loc[3, "income"] = np.nan
    train, val = frame[:60], frame[60:].copy()
    _write(train, tmp_path, "csv", "train")
    _write(val, tmp_path, "csv", "val")
    val["income"] *= 1e6
    val["age"] += 1000
    val["city"] = "Rom"
    val["since"] += pd.Timedelta(days=9999)
    _write(val, tmp_path, "csv", "spoiled")
    options = {"missing": "impute", "root": tmp_path}
    clean = csv("train.csv", "label", val="val.csv", **options)
    spoiled = csv("train.csv", "label", val="spoiled.csv", **options)
    assert torch.equal(clean.train.x, spoiled.train.x)
    assert clean.facts["features"] == spoiled.facts["features"]
    names = clean.facts["features"]
    cities = [i for i, name in enumerate(names) if name.startswith("city=")]
    assert (spoiled.val.x[:, cities] == 0).all()
    assert (clean.val.x[:, cities].sum(1) == 1).all()
    assert any("no training row has" in w for w in spoiled.warnings)
    income = spoiled.facts["preprocessing"]["columns"]["income"]
    assert income["median"] == pytest.approx(train["income"].median())
    filled = train["income"].fillna(train["income"].median())
    assert income["mean"] == pytest.approx(filled.mean())
    assert income["std"] == pytest.approx(filled.std(ddof=0))
    assert income["imputed"] == 1


def test_statistics_of_a_drawn_split(tmp_path):
    data = csv(_write(_mixed(), tmp_path, "csv"), "label", root=tmp_path)
    numbers = [data.facts["features"].index(n) for n in ("age", "income", "since")]
    x = data.train.x[:, numbers].double()
    assert x.mean(0).abs().max() < 1e-5
    assert (x.std(0, correction=0) - 1).abs().max() < 1e-5


def test_missing(tmp_path):
    frame = _mixed()
    frame.loc[[4, 9], "age"] = np.nan
    frame.loc[7, "city"] = None
    path = _write(frame, tmp_path, "csv")
    with pytest.raises(
        DataError, match=r"empty cells in 'age' \(2 rows\), 'city' \(1 rows\).*drop"
    ):
        csv(path, "label", root=tmp_path)
    dropped = csv(path, "label", missing="drop", root=tmp_path)
    assert len(dropped.train) + len(dropped.val) == 57
    assert dropped.facts["missing"] == {
        "policy": "drop", "cells": {"age": 2, "city": 1}, "rows_dropped": 3,
    }  # fmt: skip
    filled = csv(path, "label", missing="impute", root=tmp_path)
    assert len(filled.train) + len(filled.val) == 60
    assert torch.isfinite(filled.train.x).all()
    assert len(csv(path, "label", drop=["age", "city"], root=tmp_path).train) == 48
    with pytest.raises(DataError, match="'error', 'impute' or 'drop'; got 'zero'"):
        csv(path, "label", missing="zero", root=tmp_path)


def test_missing_category_is_a_category(tmp_path):
    frame = _mixed()
    frame.loc[::2, "city"] = None
    data = csv(_write(frame, tmp_path, "csv"), "label", missing="impute", root=tmp_path)
    assert "city=(missing)" in data.facts["features"]


def test_dropping_from_own_files_keeps_the_border(tmp_path):
    frame = _mixed(80)
    frame.loc[[1, 2, 70], "age"] = np.nan
    _write(frame[:60], tmp_path, "csv", "train")
    _write(frame[60:], tmp_path, "csv", "val")
    data = csv("train.csv", "label", val="val.csv", missing="drop", root=tmp_path)
    assert (len(data.train), len(data.val)) == (58, 19)
    assert data.facts["split"]["given"]


def test_a_question_mark_is_a_gap(tmp_path):
    frame = _mixed()
    frame["age"] = frame["age"].astype(str)
    frame.loc[3, "age"] = "?"
    with pytest.raises(DataError, match=r"empty cells in 'age' \(1 rows\)"):
        csv(_write(frame, tmp_path, "csv"), "label", root=tmp_path)


def test_missing_targets(tmp_path):
    frame = _mixed()
    frame.loc[5, "label"] = None
    path = _write(frame, tmp_path, "csv")
    with pytest.raises(DataError, match=r"target 'label' has 1 missing .* row 6"):
        csv(path, "label", missing="impute", root=tmp_path)
    assert len(csv(path, "label", missing="drop", root=tmp_path).train) == 47


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_separators(separator, tmp_path):
    _mixed().to_csv(tmp_path / "t.csv", index=False, sep=separator, encoding="utf-8-sig")
    assert csv("t.csv", "label", root=tmp_path).input_shape == (7,)


def test_columns_and_drop(tmp_path):
    path = _write(_mixed(), tmp_path, "csv")
    only = csv(path, "label", columns=["income", "member"], root=tmp_path)
    assert only.facts["features"] == ["income", "member"]
    without = csv(path, "label", drop=["city", "since"], root=tmp_path)
    assert without.facts["features"] == ["age", "income", "member"]


def test_columns_that_name_rows(tmp_path):
    frame = _mixed()
    frame.insert(0, "row", np.arange(N))
    frame["name"] = [f"person {i}" for i in range(N)]
    frame["always"] = 3.0
    path = _write(frame, tmp_path, "csv")
    data = csv(path, "label", root=tmp_path)
    assert not {"row", "always"} & set(data.facts["features"])
    assert not any(f.startswith("name=") for f in data.facts["features"])
    text = " / ".join(data.warnings)
    assert "left out column 'row', which names rows: it counts the rows" in text
    assert "left out column 'name', which names rows: 60 different texts in 60 rows" in text
    assert "the same in all training rows: 'always'" in text
    asked = csv(path, "label", columns=["row", "age"], root=tmp_path)
    assert asked.facts["features"] == ["row", "age"]
    with pytest.raises(DataError, match="no column is left to learn from; left out column 'name'"):
        csv(path, "label", drop=[c for c in frame if c not in ("name", "label")], root=tmp_path)
    with pytest.raises(DataError, match="no feature column is left: all are the same"):
        csv(path, "label", columns=["always"], duplicates="allow", root=tmp_path)


def test_rare_categories(tmp_path, monkeypatch):
    monkeypatch.setattr(columns_module, "CATEGORIES", 2)
    frame = _mixed()
    frame["city"] = np.random.RandomState(2).choice(["a", "b", "c"], N, p=[0.6, 0.3, 0.1])
    data = csv(_write(frame, tmp_path, "csv"), "label", root=tmp_path)
    assert [f for f in data.facts["features"] if f.startswith("city")] == ["city=a", "city=b"]
    assert any("'city' has 3 categories; the 2 most frequent" in w for w in data.warnings)


def test_task(tmp_path):
    frame = _mixed().drop(columns="label")
    path = _write(frame, tmp_path, "csv")
    assert csv(path, "income", root=tmp_path).task == "regression"
    assert csv(path, "member", root=tmp_path).classes == ("False", "True")
    assert csv(path, "age", root=tmp_path).task == "regression"
    frame["grade"] = np.arange(N) % 4
    path = _write(frame, tmp_path, "csv")
    assert csv(path, "grade", root=tmp_path).task == "classification"
    assert csv(path, "grade", task="regression", root=tmp_path).task == "regression"
    with pytest.raises(DataError, match="target 'city' holds text such as"):
        csv(path, "city", task="regression", root=tmp_path)
    with pytest.raises(DataError, match="different decimal numbers"):
        csv(path, "income", task="classification", root=tmp_path)


def test_duplicates(tmp_path):
    frame = pd.concat([_mixed(40)] * 2, ignore_index=True)
    path = _write(frame, tmp_path, "csv")
    runs = {d: [csv(path, "label", duplicates=d, seed=s, root=tmp_path) for s in range(3)]
            for d in ("together", "allow")}  # fmt: skip
    assert all(d.facts["split"]["overlap"] == 0 for d in runs["together"])
    assert all(d.facts["split"]["overlap"] > 0 for d in runs["allow"])
    _write(frame[:50], tmp_path, "csv", "train")
    _write(frame[50:], tmp_path, "csv", "val")
    with pytest.raises(DataError, match=r"30 of 30 .* sample 1 \(training sample 11\)"):
        csv("train.csv", "label", val="val.csv", root=tmp_path)
    csv("train.csv", "label", val="val.csv", duplicates="allow", root=tmp_path)


def test_val_and_seed(tmp_path):
    path = _write(_mixed(), tmp_path, "csv")
    assert len(csv(path, "label", val=30, root=tmp_path).val) == 30
    prints = [csv(path, "label", seed=s, root=tmp_path).facts["fingerprint"] for s in (0, 0, 1)]
    assert prints[0] == prints[1] != prints[2]


def test_giveaways(tmp_path):
    frame = _mixed()
    frame["verdict"] = frame["label"].map({"yes": 1.5, "no": 0.5})
    frame["net"] = frame["income"] * 0.7
    path = _write(frame, tmp_path, "csv")
    assert any("'verdict' gives the target away" in w
               for w in csv(path, "label", root=tmp_path).warnings)  # fmt: skip
    assert any("'net' gives the target away" in w
               for w in csv(path, "income", root=tmp_path).warnings)  # fmt: skip
    assert not any("gives" in w for w in csv(path, "age", root=tmp_path).warnings)


def test_types_of_parquet(tmp_path):
    frame = pd.DataFrame({
        "gaps": pd.array([1, None, 3] * 20, dtype="Int64"),
        "flag": pd.array([True, None, False] * 20, dtype="boolean"),
        "kind": pd.Categorical(["a", "b", None] * 20),
        "price": [decimal.Decimal(i) / 4 for i in range(60)],
        "day": [datetime.date(2024, 1, 1) + datetime.timedelta(days=i) for i in range(60)],
        "zone": pd.date_range("2024-01-01", periods=60, freq="h", tz="Europe/Berlin"),
        "took": pd.to_timedelta(np.arange(60) ** 2, unit="s"),
        "y": np.random.RandomState(0).rand(60),
    })  # fmt: skip
    data = parquet(_write(frame, tmp_path, "parquet"), "y", missing="impute", root=tmp_path)
    kinds = {n: f["kind"] for n, f in data.facts["preprocessing"]["columns"].items()}
    assert kinds == {"gaps": "number", "flag": "flag", "kind": "category", "price": "number",
                     "day": "date", "zone": "date", "took": "number"}  # fmt: skip
    assert torch.isfinite(data.train.x).all()
    frame["lists"] = [[1, 2]] * 60
    with pytest.raises(DataError, match="column 'lists' holds a ndarray"):
        parquet(_write(frame, tmp_path, "parquet"), "y", missing="impute", root=tmp_path)
    path = _write(frame.drop(columns="lists"), tmp_path, "parquet")
    with pytest.raises(DataError, match="the target 'zone' holds dates"):
        parquet(path, "zone", missing="impute", root=tmp_path)


def _csv_text(text, folder, **options):
    (folder / "t.csv").write_text(text)
    return csv("t.csv", "y", root=folder, **options)


ROWS = "".join(f"{i * 7 % 31},{i % 2}\n" for i in range(31))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "t.csv is empty; its first line"),
        ("a,y\n", "has no rows"),
        ("a,b\n1,2\n", "target_column: t.csv has no column 'y'"),
        ("a,yy\n1,2\n", "no column 'y'; did you mean 'yy'"),
        ("y\n1\n2\n", "no column is left to learn from"),
        ("a,y\n" + ROWS + "inf,1\n", "column 'a' has 1 infinite values, the first in row 32"),
        ("a,y\n" + ROWS + "n/k,1\n", "holds numbers, but 1 rows hold 'n/k'"),
        ("a,y\n1,1,5\n2,0,5\n", "no regular table"),
        ("a,y\n1,1\n2,0\n3,1,5\n", "no regular table"),
        ("a,y\n" + ROWS + "5,2\n", "class '2' has one member only"),
        ("a,y\n" + ROWS.replace(",1", ",0"), "two classes at least; every target 'y' is 0"),
        ("a,y\n2024-01-01,1\n2024-13-41,0\n", "holds dates, but not all can be read"),
    ],
)
def test_refusals(text, message, tmp_path):
    with pytest.raises(DataError, match=message):
        _csv_text(text, tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": ["aa"]}, "columns: t.csv has no column 'aa'; did you mean 'a'"),
        ({"drop": ["b"]}, "drop: t.csv has no column 'b'"),
        ({"drop": ["y"]}, "drop names the target 'y'"),
        ({"columns": ["a"], "drop": ["a"]}, "not both"),
        ({"val": "other.csv"}, "no file at .*other.csv"),
        ({"val": "short.csv"}, "short.csv lacks the column 'a' of t.csv"),
    ],
)
def test_option_refusals(options, message, tmp_path):
    (tmp_path / "short.csv").write_text("y\n1\n0\n")
    with pytest.raises(DataError, match=message):
        _csv_text("a,y\n" + ROWS, tmp_path, **options)


def test_unreadable_files(tmp_path):
    (tmp_path / "latin.csv").write_bytes("größe,y\n1,2\n".encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8 text"):
        csv("latin.csv", "y", root=tmp_path)
    with pytest.raises(DataError, match="no file at"):
        csv("nowhere.csv", "y", root=tmp_path)
    (tmp_path / "bad.parquet").write_text("hello")
    with pytest.raises(DataError, match="no readable Parquet file"):
        parquet("bad.parquet", "y", root=tmp_path)


def test_regression_target_scale(tmp_path):
    frame = _mixed()
    data = csv(_write(frame, tmp_path, "csv"), "income", root=tmp_path)
    back = data.restore(torch.cat([data.train.y, data.val.y]))[:, 0]
    np.testing.assert_allclose(np.sort(back), np.sort(frame["income"]), rtol=1e-4)
    assert data.facts["target"]["mean"] == data.target_mean


def test_options_do_not_clash_with_recipes():
    """In a recipe, ``name`` and ``target`` beside options say which brick it is."""
    for kind, reader in READERS.items():
        names = set(inspect.signature(reader).parameters)
        assert not {"name", "target", "options"} & names, kind
