"""Hold what every reader returns: two splits and what the trainer must know about them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from brickyard.errors import DataError

TASKS = ("classification", "regression")
#: Forms of data: what targets are, or that samples are seeds of episodes in an environment.
FORMS = (
    *TASKS, "multi_label", "segmentation", "language_model", "transcription", "environment",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Split:
    """Hold one of train and validation: tensors in memory, or a map-style dataset.

    Args:
        x: the samples, shape (n, *input_shape).
        y: class indices, int64 of shape (n,); regression targets, float32 of shape (n, outputs),
            standardised; 0.0 or 1.0 for every label, (n, outputs); a class for every pixel,
            (n, H, W); the next token for every token, (n, T), -100 for none; or the symbols of a
            strip, (n, most), -1 after the last.
        dataset: instead of the two, an object with ``len`` whose items are such pairs (x, y).

    Raises:
        DataError: both or neither are given, or x and y have different lengths.
    """

    x: Tensor | None = None
    y: Tensor | None = None
    dataset: Dataset[Any] | None = None

    def __post_init__(self) -> None:
        """Check that exactly one form is given."""
        if (self.x is None) != (self.y is None) or (self.x is None) == (self.dataset is None):
            raise DataError("a split takes x and y, or dataset, and not both")
        if self.x is not None and self.y is not None and len(self.x) != len(self.y):
            raise DataError(
                f"x and y must have one entry per sample; x has {len(self.x)}, y {len(self.y)}"
            )

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.x) if self.x is not None else len(self.dataset)  # pyright: ignore

    @property
    def in_memory(self) -> bool:
        """Say whether the samples are tensors in memory."""
        return self.x is not None


@dataclass(frozen=True, eq=False)
class Data:
    """Hold a training and a validation split, and all that the trainer must know about them.

    Args:
        name: what reports call the data.
        task: one of ``FORMS``: what the targets are.
        train: what is trained on.
        val: what is only measured.
        input_shape: shape of one sample.
        outputs: number of classes, or of regression targets.
        classes: names of the classes, in the order of their indices.
        target_mean: what was taken off the regression targets (the training split's mean); a
            tensor of shape (outputs,) when there are several.
        target_std: what they were divided by after that; shaped like ``target_mean``.
        facts: plain values for the report: ``source``, ``samples``, ``class_counts``,
            ``features``, ``preprocessing``, ``split``, ``fingerprint``, ``warnings`` ...; also
            ``image``, the shape (H, W) or (C, H, W) of the pictures that flat samples hold.

    Raises:
        DataError: an unknown task, an empty split, or fewer classes than two.
    """

    name: str
    task: str
    train: Split
    val: Split
    input_shape: tuple[int, ...]
    outputs: int
    classes: tuple[str, ...] = ()
    target_mean: float | Tensor = 0.0
    target_std: float | Tensor = 1.0
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check what the trainer relies on."""
        if self.task not in FORMS:
            raise DataError(f"task must be one of {', '.join(FORMS)}; got {self.task!r}")
        for what, split in (("training", self.train), ("validation", self.val)):
            if len(split) == 0:
                raise DataError(f"the {what} split of {self.name!r} is empty; change val")
        if self.task == "classification" and self.outputs < 2:
            raise DataError(f"classification needs two classes at least; got {self.outputs}")
        if self.classes and len(self.classes) != self.outputs:
            raise DataError(
                f"there are {len(self.classes)} class names for {self.outputs} outputs; "
                "give one name per class"
            )

        check_image(self.facts.get("image"), self.input_shape)

    def restore(self, y: Tensor) -> Tensor:
        """Return regression targets or predictions in the user's own units.

        Args:
            y: standardised values, shape (..., outputs).
        """
        return y * self.target_std + self.target_mean

    @property
    def warnings(self) -> list[str]:
        """Return what the reader found strange, a sentence each."""
        return list(self.facts.get("warnings", ()))


def check_image(image: Any, input_shape: tuple[int, ...]) -> None:
    """Check the shape of the pictures that flat samples are said to hold.

    Raises:
        DataError: no shape of a picture, or one of another size than the samples.
    """
    if image is None or len(input_shape) != 1:
        return
    sizes = list(image) if isinstance(image, list | tuple) else []
    whole = all(isinstance(n, int) and n > 0 for n in sizes)
    if not whole or len(sizes) not in (2, 3) or (len(sizes) == 3 and sizes[0] not in (1, 3)):
        raise DataError(f"image must be (H, W) or (C, H, W) with 1 or 3 channels; got {image!r}")
    if math.prod(sizes) != math.prod(input_shape):
        raise DataError(
            f"image={image!r} has {math.prod(sizes)} pixels, and a sample of shape {input_shape} "
            f"has {math.prod(input_shape)} entries; they must be equal"
        )


def fingerprint(*splits: Split, name: str = "") -> str:
    """Return a hash of all samples and targets, to notice that data changed before a resume.

    Args:
        splits: their tensors count.
        name: what else decides the data.
    """
    digest = hashlib.blake2b(name.encode(), digest_size=16)
    for split in splits:
        for tensor in (split.x, split.y):
            if tensor is not None:
                plain = tensor.detach().cpu().contiguous()
                digest.update(f"{plain.dtype}{tuple(plain.shape)}".encode())
                digest.update(plain.view(torch.uint8).numpy().data if plain.numel() else b"")
    return digest.hexdigest()


def class_counts(y: Tensor, classes: tuple[str, ...]) -> dict[str, int]:
    """Return how many samples each class has."""
    counts = torch.bincount(y, minlength=len(classes)).tolist()
    return dict(zip(classes, counts, strict=True))


def merge_facts(*parts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the union of facts; their warnings follow one another."""
    merged: dict[str, Any] = {}
    warnings: list[str] = []
    for part in parts:
        warnings += part.get("warnings", ())
        merged.update(part)
    return {**merged, "warnings": warnings}


def find_path(path: str, root: str | Path | None, what: str = "file") -> Path:
    """Return the path of a user's file or folder, which must exist.

    Args:
        path: as the recipe gives it; a relative one starts at ``root``.
        root: the recipe's folder; None is the working directory.
        what: ``"file"`` or ``"folder"``.

    Raises:
        DataError: nothing is there, or something else; the message gives near names.
    """
    given = Path(path).expanduser()
    found = given if given.is_absolute() else Path(root or ".") / given
    if found.is_file() if what == "file" else found.is_dir():
        return found
    if found.exists():
        raise DataError(f"{found} is not a {what}; path must name one")
    message = f"no {what} at {found}"
    if not given.is_absolute():
        message += f" (relative paths start at the recipe's folder, {Path(root or '.').resolve()})"
    names = [p.name for p in found.parent.iterdir()] if found.parent.is_dir() else []
    close = get_close_matches(found.name, names, n=3, cutoff=0.6)
    if close:
        message += f"; that folder has {' and '.join(repr(name) for name in close)}"
    raise DataError(message)
