"""Read the arrays of a NumPy archive."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Literal

import numpy as np

from brickyard.catalog import brick
from brickyard.errors import DataError, near
from brickyard.train.data.assemble import assemble, join
from brickyard.train.data.base import Data, find_path
from brickyard.train.data.splitting import Plan


@brick(
    "data", "npz", aliases=("numpy", "arrays"), public="brickyard.train.data",
    task="classification, regression or multi_label",
    summary="Your own arrays x and y in a .npz file of NumPy.",
    use_when="Your samples are numbers of one shape already: features, images, series, tokens.",
    avoid_when="Columns have names, text or gaps (take csv or parquet), or the arrays do not fit "
    "into memory (take target: with a dataset of your own).",
    best_for="Data prepared once by a script of yours.",
    paper="none; the format is NumPy's (numpy.savez)",
    tune_first="standardize: true for measured features of different scales.",
    pairs_with=("mlp", "cnn"),
    cost="All samples as float32 in memory, about twice that while reading.",
)  # fmt: skip
def npz(
    path: str, x: str = "x", y: str = "y", val: float | tuple[str, str] = 0.2,
    task: Literal["classification", "regression", "multi_label"] | None = None,
    standardize: bool = False,
    duplicates: Literal["together", "allow"] = "together", seed: int = 0,
    root: str | Path | None = None,
) -> Data:  # fmt: skip
    """Read samples and targets from a NumPy archive.

    Floats become float32, bytes (uint8) pixels in [0, 1], booleans 0 and 1. Other whole numbers
    stay whole, as token indices do, unless ``standardize`` is set.

    Args:
        path: the .npz file; a relative path starts at the recipe's folder.
        x: name of the array of samples, shape (n, ...).
        y: name of the array of targets, shape (n,); for regression also (n, outputs), for
            multi_label 0 or 1 for every label, (n, labels).
        val: fraction of the samples for validation, or their number from 1 up; or the two names
            of the arrays that hold your own validation samples and targets.
        task: what is learned; whole numbers and text are classes, decimals are regression,
            if not said.
        standardize: give samples mean 0 and deviation 1 by the training split's figures: per
            column for vectors, one figure for all entries of anything else.
        duplicates: keep identical samples on one side of the split ("together"; an error where
            your own splits share some), or let them be ("allow").
        seed: of the stratified split.
        root: the recipe's folder.

    Raises:
        DataError: no such file or array, or arrays that cannot be trained on.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez(f"{folder}/toy.npz", x=np.random.rand(50, 3), y=np.arange(50) % 2)
        ...     data = npz("toy.npz", root=folder)
        >>> data.task, data.input_shape, len(data.val)
        ('classification', (3,), 10)

    Reference:
        NumPy manual, ``numpy.savez`` and ``numpy.lib.format``.
    """
    file = find_path(path, root)
    own = isinstance(val, tuple | list)
    arrays = _read(file, [x, y, *(val if own else ())])
    samples, targets = arrays[x], arrays[y]
    given = None
    if own:
        given = len(samples)
        samples = join(samples, arrays[val[0]], x, val[0])
        targets = join(targets, arrays[val[1]], y, val[1])
        if len(arrays[y]) != given:
            raise DataError(f"{x!r} has {given} samples and {y!r} has {len(arrays[y])} targets")
    if standardize and samples.dtype.kind in "iu":
        samples = samples.astype(np.float32)
    plan = Plan(task, 0.2 if own else float(val), seed, duplicates, given)  # pyright: ignore
    return assemble(
        file.stem, samples, targets, plan, standardize=standardize, facts={"source": file.name}
    )


def _read(file: Path, names: list[str]) -> dict[str, np.ndarray]:
    try:
        archive = np.load(file, allow_pickle=False)
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{file} is no .npz archive of plain arrays ({error})") from error
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise DataError(f"{file} holds a single array; save x and y with numpy.savez")
    found = {}
    with archive:
        for name in names:
            if name not in archive.files:
                raise DataError(f"{file.name} has no array {name!r}{near(name, archive.files)}")
            try:
                found[name] = archive[name]
            except ValueError as error:
                raise DataError(
                    f"array {name!r} of {file.name} holds Python objects, which are not read "
                    "for safety; save it as numbers or text"
                ) from error
    return found
