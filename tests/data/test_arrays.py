"""Arrays: what is converted how, what statistics are fitted on, and .npz files."""

import numpy as np
import pytest
import torch

from brickyard.errors import DataError
from brickyard.train.data import Data, Plan, Split, find_path, npz
from brickyard.train.data.assemble import assemble

RNG = np.random.RandomState(0)


def _toy(n=100, d=3):
    return RNG.rand(n, d), np.arange(n) % 2


def _plan(**kwargs):
    return Plan(**kwargs)


@pytest.mark.parametrize(
    ("x", "dtype", "expected"),
    [
        (np.array([[0.5], [1.5]] * 4), torch.float32, 1.5),
        (np.array([[0], [255]] * 4, np.uint8), torch.float32, 1.0),
        (np.array([[0], [255]] * 4, np.int32), torch.int64, 255),
        (np.array([[False], [True]] * 4), torch.float32, 1.0),
        (torch.tensor([[0.5], [1.5]] * 4, dtype=torch.bfloat16), torch.float32, 1.5),
        (torch.tensor([[0.5], [1.5]] * 4, requires_grad=True), torch.float32, 1.5),
    ],
)
def test_conversion(x, dtype, expected):
    data = assemble("t", x, [0, 1] * 4, _plan(duplicates="allow"))
    assert data.train.x.dtype == dtype
    assert data.train.x.max().item() == expected
    assert data.input_shape == (1,)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.ones(4), [0, 1, 0, 1], r"shape \(n, features\).*got \(4,\)"),
        (np.ones((4, 0)), [0, 1, 0, 1], r"got \(4, 0\)"),
        (np.array([["a"], ["b"]]), [0, 1], "x must hold numbers; got dtype <U1.*csv or parquet"),
        ([[1.0], [1.0, 2.0]], [0, 1], "x must be one array, entries of one shape"),
        (np.ones((4, 2)), [0, 1], r"x has shape \(4, 2\), y has 2 entries"),
        (np.array([[1.0], [np.nan], [2.0]]), [0, 1, 1], "1 non-finite .* nan in row 1, entry"),
    ],
)
def test_refusals(x, y, message):
    with pytest.raises(DataError, match=message):
        assemble("t", x, y, _plan())


def test_non_finite_column_is_named():
    x, y = _toy()
    x[7, 1] = np.inf
    with pytest.raises(
        DataError, match="1 non-finite values; the first is inf in row 7, column 'b'"
    ):
        assemble("t", x, y, _plan(), facts={"features": ["a", "b", "c"]})


def test_no_validation_sample_touches_the_statistics():
    x, y = _toy(200)
    y = x.sum(1)
    clean = assemble("t", x, y, _plan(given=150), standardize=True)
    spoiled_x, spoiled_y = x.copy(), y.copy()
    spoiled_x[150:] = spoiled_x[150:] * 1e4 + 7
    spoiled_y[150:] *= 1e3
    spoiled = assemble("t", spoiled_x, spoiled_y, _plan(given=150), standardize=True)
    assert torch.equal(clean.train.x, spoiled.train.x)
    assert torch.equal(clean.train.y, spoiled.train.y)
    assert clean.facts["preprocessing"] == spoiled.facts["preprocessing"]
    assert clean.target_mean == pytest.approx(y[:150].mean())
    assert clean.target_std == pytest.approx(y[:150].std())
    assert not torch.equal(clean.val.x, spoiled.val.x)


def test_standardize():
    x, y = _toy()
    plain = assemble("t", x, y, _plan())
    scaled = assemble("t", x, y, _plan(), standardize=True)
    assert plain.train.x.min() >= 0
    np.testing.assert_allclose(scaled.train.x.mean(0), 0, atol=1e-6)
    images = assemble("t", RNG.rand(20, 2, 4, 4), y[:20], _plan(), standardize=True)
    assert isinstance(images.facts["preprocessing"]["standardized"]["mean"], float)
    assert abs(images.train.x.mean()) < 1e-6


def test_a_constant_column_stays_finite():
    x, y = _toy()
    x[:, 1] = 0.1
    data = assemble("t", x, y, _plan(), standardize=True)
    assert torch.isfinite(data.train.x).all()
    assert data.train.x[:, 1].abs().max() < 1e-6


def test_several_targets_have_a_scale_each():
    x, _ = _toy()
    y = np.stack([x[:, 0], 1e4 * x[:, 1]], 1)
    data = assemble("t", x, y, _plan())
    assert (data.task, data.outputs) == ("regression", 2)
    np.testing.assert_allclose(data.train.y.std(0, correction=0), 1, rtol=1e-4)
    whole = data.restore(torch.cat([data.train.y, data.val.y]))
    np.testing.assert_allclose(np.sort(whole[:, 1]), np.sort(y[:, 1]), rtol=1e-4, atol=0.1)
    assert len(data.facts["target"]["mean"]) == 2


def test_constant_target():
    with pytest.raises(DataError, match="the target is 3 for all 80 training samples"):
        assemble("t", _toy()[0], np.full(100, 3.0), _plan())


def test_class_names():
    x, y = _toy()
    assert assemble("t", x, y, _plan(), classes=("no", "yes")).classes == ("no", "yes")
    with pytest.raises(DataError, match="3 class names for 2 different labels"):
        assemble("t", x, y, _plan(), classes=("a", "b", "c"))


def test_split_and_data_check_themselves():
    x, y = torch.zeros(4, 2), torch.zeros(4, dtype=torch.long)
    with pytest.raises(DataError, match="x and y, or dataset"):
        Split(x)
    with pytest.raises(DataError, match="x has 4, y 3"):
        Split(x, y[:3])
    good, empty = Split(x, y), Split(x[:0], y[:0])
    with pytest.raises(DataError, match="the validation split of 'd' is empty"):
        Data("d", "classification", good, empty, (2,), 2)
    with pytest.raises(DataError, match="task must be one of"):
        Data("d", "clustering", good, good, (2,), 2)
    with pytest.raises(DataError, match="two classes"):
        Data("d", "classification", good, good, (2,), 1)
    with pytest.raises(DataError, match="1 class names for 2 outputs"):
        Data("d", "classification", good, good, (2,), 2, classes=("a",))


@pytest.fixture
def archive(tmp_path):
    x, y = _toy()
    np.savez(
        tmp_path / "toy.npz", x=x, y=y, pixels=np.arange(400).reshape(100, 2, 2).astype("u1"),
        tokens=np.arange(300).reshape(100, 3), held_x=RNG.rand(10, 3), held_y=np.arange(10) % 2,
        target=x[:, 0] * 7, objects=np.array([{}], object), wide=RNG.rand(10, 4),
    )  # fmt: skip
    return tmp_path


def test_npz(archive):
    data = npz("toy.npz", root=archive)
    assert (data.name, data.task, data.input_shape) == ("toy", "classification", (3,))
    assert (len(data.train), len(data.val)) == (80, 20)
    assert len(npz("toy.npz", val=30, root=archive).val) == 30
    assert npz(str(archive / "toy.npz")).facts["source"] == "toy.npz"
    assert data.facts["fingerprint"] != npz("toy.npz", root=archive, seed=1).facts["fingerprint"]


def test_npz_keys_and_task(archive):
    assert npz("toy.npz", y="target", root=archive).task == "regression"
    assert npz("toy.npz", task="regression", root=archive).task == "regression"
    tokens = npz("toy.npz", x="tokens", root=archive)
    assert tokens.train.x.dtype == torch.int64
    scaled = npz("toy.npz", x="tokens", standardize=True, root=archive)
    assert scaled.train.x.dtype == torch.float32
    assert abs(scaled.train.x.mean()) < 1e-6


def test_npz_with_own_validation(archive):
    data = npz("toy.npz", val=("held_x", "held_y"), root=archive)
    assert (len(data.train), len(data.val)) == (100, 10)
    with np.load(archive / "toy.npz") as raw:
        np.testing.assert_allclose(data.val.x, raw["held_x"], rtol=1e-6)
    with pytest.raises(DataError, match="100 of 100 validation samples are training samples"):
        npz("toy.npz", val=("x", "y"), root=archive)
    assert len(npz("toy.npz", val=("x", "y"), duplicates="allow", root=archive).val) == 100


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "toi.npz"}, r"no file at .*toi.npz \(relative paths.*that folder has 'toy.npz'"),
        ({"x": "pixel"}, "no array 'pixel'; did you mean 'pixels'"),
        ({"x": "objects"}, "Python objects"),
        ({"val": ("wide", "held_y")}, r"'x' has shape \(100, 3\) and 'wide' \(10, 4\)"),
        ({"x": "pixels", "val": ("tokens", "y")}, "one shape"),
        ({"y": "held_y"}, "y has 10 entries"),
        ({"y": "held_y", "val": ("held_x", "held_y")}, "'x' has 100 samples and 'held_y' has 10"),
        ({"val": 1000}, "leaves the training split empty"),
    ],
)
def test_npz_refusals(archive, options, message):
    with pytest.raises(DataError, match=message):
        npz(**{"path": "toy.npz", "root": archive, **options})


def test_other_files(tmp_path):
    np.save(tmp_path / "one.npy", np.ones(3))
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(DataError, match="a single array"):
        npz("one.npy", root=tmp_path)
    with pytest.raises(DataError, match=r"no \.npz archive"):
        npz("text.npz", root=tmp_path)
    with pytest.raises(DataError, match="is not a file"):
        find_path(".", tmp_path)
    with pytest.raises(DataError, match="no folder at"):
        find_path("nowhere/deep", tmp_path, "folder")


def test_dtypes_must_agree(tmp_path):
    x = np.arange(40, dtype=np.uint8).reshape(20, 2)
    np.savez(tmp_path / "t.npz", x=x, y=np.arange(20) % 2, vx=x[:4] / 255.0, vy=[0, 1, 0, 1])
    with pytest.raises(DataError, match="'x' is uint8 and 'vx' float64"):
        npz("t.npz", val=("vx", "vy"), root=tmp_path)
