"""Read a folder of images with one folder per class."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset

from brickyard.catalog import brick
from brickyard.errors import DataError
from brickyard.train.data.assemble import describe, finish, take
from brickyard.train.data.base import Data, Split, find_path, merge_facts
from brickyard.train.data.reading import Unreadable
from brickyard.train.data.splitting import Plan, partition
from brickyard.train.data.target import Target

#: Images are kept in memory when all of them take no more than this as float32.
IN_MEMORY_BYTES = 1 << 30
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm",
                      ".pgm"})  # fmt: skip


@brick(
    "data", "image_folder", aliases=("images",), public="brickyard.train.data",
    task="classification", needs=("PIL",), extra="data",
    summary="Your own images, one folder per class.",
    use_when="Every image shows one class, and files are sorted into folders named after them.",
    avoid_when="An image carries several labels, boxes or masks: take target: with your own "
    "dataset. Or shots of one scene or person must stay together: split the folders yourself.",
    best_for="Image classification with hundreds to some hundred thousand images.",
    paper="none; the layout is the usual one",
    tune_first="size: the smallest at which you can still tell the classes apart.",
    pairs_with=("cnn", "cross_entropy", "balanced_accuracy"),
    cost="Four bytes per pixel and channel in memory up to 1 GiB; beyond that, files are read "
    "for every batch.",
)  # fmt: skip
def image_folder(
    path: str, size: int | tuple[int, int] | None = None, color: Literal["rgb", "grey"] = "rgb",
    val: float | str = 0.2, in_memory: bool | None = None,
    duplicates: Literal["together", "allow"] = "together", seed: int = 0,
    root: str | Path | None = None, on_error: Literal["stop", "skip"] = "stop",
) -> Data:  # fmt: skip
    """Read images as float32 in [0, 1], shape (channels, height, width).

    A folder's name is its class; images may lie in folders below it. Orientation marks of cameras
    are obeyed, transparency is ignored, hidden files and files of other kinds are passed over.

    Args:
        path: the folder; a relative path starts at the recipe's folder.
        size: height and width in pixels, or one number for both: the image is scaled until it
            covers that size, and its centre is kept. Needed when sizes differ.
        color: "rgb" for three channels, "grey" for one.
        val: fraction of the images for validation, or their number from 1 up; or the folder with
            your own validation images, with the same class folders in it.
        in_memory: keep all images in memory, or read files for every batch; if not said, in
            memory up to 1 GiB.
        duplicates: keep identical images on one side of the split ("together"; an error where
            your own folders share some), or let them be ("allow").
        seed: of the stratified split.
        root: the recipe's folder.
        on_error: what images are that cannot be read: an error ("stop"), or left out and told
            ("skip").

    Raises:
        DataError: no folder, no images, images that cannot be read or differ in size.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for i in range(20):
        ...         place = Path(folder, "photos", "light" if i % 2 else "dark")
        ...         place.mkdir(parents=True, exist_ok=True)
        ...         Image.new("L", (9, 6), 12 * i).save(place / f"{i}.png")
        ...     data = image_folder("photos", color="grey", root=folder)
        >>> data.classes, data.input_shape
        (('dark', 'light'), (1, 6, 9))

    Reference:
        The layout is torchvision's (``datasets.ImageFolder``); scaling and cropping is Pillow's
        ``ImageOps.fit``, bilinear.
    """
    folder = find_path(path, root, "folder")
    files, labels, skipped = _list_images(folder)
    classes, given = tuple(sorted(set(labels))), None
    if isinstance(val, str):
        second = find_path(val, root, "folder")
        more, more_labels, more_skipped = _list_images(second)
        _same_classes(classes, more_labels, folder, second)
        given = len(files)
        files, labels, skipped = files + more, labels + more_labels, skipped + more_skipped
    if len(classes) < 2:
        raise DataError(
            f"{folder} has images in {len(classes)} class folder ({', '.join(classes)}); "
            "classification needs two at least"
        )
    view, bad = ImageView(_size(size), color), {} if on_error == "skip" else None
    shape = view.check(files, bad)
    total = 4 * len(files) * int(np.prod(shape))
    stays = in_memory or (in_memory is None and total <= IN_MEMORY_BYTES)
    images = view.read_all(files, bad) if stays else []
    good = [i for i, file in enumerate(files) if not bad or file not in bad]
    given = None if given is None else sum(i < given for i in good)
    files = [files[i] for i in good]
    codes = np.array([classes.index(labels[i]) for i in good], np.int64)
    target = Target("classification", codes, classes, "a folder per class")
    plan = Plan("classification", 0.2 if isinstance(val, str) else val, seed, duplicates, given)
    facts: dict[str, Any] = {
        "source": folder.name,
        "image": list(shape[1:]),
        "preprocessing": {"x": "bytes / 255", "size": size, "color": color},
        "files_passed_over": skipped,
        **_left_out(bad),
    }
    if stays:
        x = _gather(images, files)
        parts = partition(x, target, plan)
        pair = (take(x, parts.train), take(x, parts.val))
        return finish(folder.name, pair, target, parts, facts)
    return _lazy(folder.name, files, shape, view, target, plan, facts)


class ImageView:
    """Read image files in one size and colour.

    Args:
        size: height and width; None takes them as they are.
        color: "rgb" or "grey".
    """

    def __init__(self, size: tuple[int, int] | None, color: str):
        if color not in ("rgb", "grey"):
            raise DataError(f"color must be 'rgb' or 'grey'; got {color!r}")
        self.size = size
        self.color = color

    def read(self, file: Path) -> np.ndarray:
        """Return one image as float32 in [0, 1], shape (channels, height, width).

        Raises:
            DataError: the file cannot be read.
        """
        try:
            with Image.open(file) as opened:
                image = ImageOps.exif_transpose(opened)
                deep = image.mode.startswith("I") or image.mode == "F"
                image = image if deep else image.convert("RGB" if self.color == "rgb" else "L")
                if self.size is not None:
                    image = ImageOps.fit(
                        image, (self.size[1], self.size[0]), Image.Resampling.BILINEAR
                    )
                pixels = np.asarray(image)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise DataError(f"{file} cannot be read as an image: {_reason(error)}") from error
        if deep:
            pixels = self._deep(file, pixels)
        else:
            pixels = pixels.astype(np.float32) / np.float32(255)
        return pixels.transpose(2, 0, 1) if pixels.ndim == 3 else pixels[None]

    def _deep(self, file: Path, pixels: np.ndarray) -> np.ndarray:
        """Scale 16-bit grey values; Pillow would cut them off at 255."""
        if pixels.dtype.kind == "f" or pixels.min() < 0 or pixels.max() > 65535:
            raise DataError(f"{file} holds values outside 0 to 65535; save it with 8 or 16 bits")
        grey = pixels.astype(np.float32) / np.float32(65535)
        return np.stack([grey] * 3, 2) if self.color == "rgb" else grey

    def read_all(
        self, files: Sequence[Path], bad: dict[Path, str] | None = None
    ) -> list[np.ndarray]:
        """Return all images that can be read; several threads read them.

        Args:
            files: their paths.
            bad: gets the others, with the reasons; without it they are an error.

        Raises:
            DataError: files cannot be read, or none can.
        """

        def attempt(file: Path) -> np.ndarray | DataError:
            try:
                return self.read(file)
            except DataError as error:
                return error

        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            read = list(pool.map(attempt, files))
        errors = {f: r for f, r in zip(files, read, strict=True) if isinstance(r, DataError)}
        if errors and (bad is None or len(errors) == len(files)):
            more = f" (and {len(errors) - 1} other files)" if len(errors) > 1 else ""
            raise DataError(
                f"{next(iter(errors.values()))}{more}; remove or repair, or leave such files out "
                "by on_error: skip"
            )
        if bad is not None:
            bad |= {file: str(error) for file, error in errors.items()}
        return [r for r in read if not isinstance(r, DataError)]

    def check(
        self, files: Sequence[Path], bad: dict[Path, str] | None = None
    ) -> tuple[int, int, int]:
        """Return the shape that all images have, from their headers alone.

        Args:
            files: their paths.
            bad: gets those whose header cannot be read; without it they are an error.

        Raises:
            DataError: a header cannot be read, or sizes differ and none is asked for.
        """
        channels = 3 if self.color == "rgb" else 1
        if self.size is not None:
            return channels, *self.size
        first: tuple[int, int] | None = None
        for file in files:
            try:
                with Image.open(file) as image:
                    width, height = image.size
                    # Asked for its marks, Pillow would decode a whole PNG; cameras write JPEG.
                    marks = image.getexif() if image.format != "PNG" else {}
                    if marks.get(0x0112, 1) >= 5:  # turned by a quarter
                        width, height = height, width
            except (OSError, ValueError, UnidentifiedImageError) as error:
                text = f"{file} cannot be read as an image: {_reason(error)}"
                if bad is None:
                    raise DataError(f"{text}; repair it, or set on_error: skip") from error
                bad[file] = text
                continue
            first = first or (height, width)
            if (height, width) != first:
                raise _other_size(files[0], first, file, (height, width))
        if first is None:
            raise DataError(f"none of {len(files)} images can be read; the first is {files[0]}")
        height, width = first
        return channels, height, width


class ImageFiles(Dataset[tuple[Tensor, int]]):
    """Read image files when they are asked for.

    Args:
        files: their paths.
        labels: their class indices.
        view: how to read them.
        shape: what all of them have.
    """

    def __init__(
        self, files: Sequence[Path], labels: np.ndarray, view: ImageView, shape: tuple[int, ...]
    ):
        self.files = list(files)
        self.targets = labels.tolist()
        self.view = view
        self.shape = shape

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return image and class index."""
        pixels = np.ascontiguousarray(self.view.read(self.files[index]))
        if pixels.shape != self.shape:
            raise _other_size(
                Path("the first"), self.shape[1:], self.files[index], pixels.shape[1:]
            )
        return torch.from_numpy(pixels), self.targets[index]


def _left_out(bad: dict[Path, str] | None) -> dict[str, Any]:
    """Return facts on images that could not be read; of these only where they may be left out."""
    if bad is None:
        return {}
    lost = Unreadable({
        f"{file.parent.name}/{file.name}": why.removeprefix(f"{file} ") for file, why in bad.items()
    })  # fmt: skip
    return {"unreadable": lost.found, "warnings": [lost.sentence()] if len(lost) else []}


def _lazy(
    name: str, files: list[Path], shape: tuple[int, int, int], view: ImageView,
    target: Target, plan: Plan, facts: dict[str, Any],
) -> Data:  # fmt: skip
    hashes = [hashlib.blake2b(f.read_bytes(), digest_size=16).digest() for f in files]
    parts = partition(np.frombuffer(b"".join(hashes), np.uint64).reshape(-1, 2), target, plan)
    splits = [
        Split(dataset=ImageFiles([files[i] for i in index], target.values[index], view, shape))
        for index in (parts.train, parts.val)
    ]
    facts = {
        **facts,
        "fingerprint": hashlib.blake2b(b"".join(hashes), digest_size=16).hexdigest(),
        "in_memory": False,
    }
    return Data(
        name=name, task=target.task, train=splits[0], val=splits[1], input_shape=shape,
        outputs=target.outputs, classes=target.classes,
        facts=merge_facts(facts, parts.facts, describe(target, parts, 0.0, 1.0)),
    )  # fmt: skip


def _gather(images: list[np.ndarray], files: list[Path]) -> np.ndarray:
    """Stack images into one array, each freed as soon as it is copied."""
    out = np.empty((len(images), *images[0].shape), np.float32)
    for i in range(len(images)):
        if images[i].shape != out.shape[1:]:
            raise _other_size(files[0], out.shape[2:], files[i], images[i].shape[1:])
        out[i] = images[i]
        images[i] = out[:0]
    return out


def _list_images(folder: Path) -> tuple[list[Path], list[str], int]:
    """Return image files in order of their names, their classes, how many files were no images."""
    files, labels, skipped = [], [], 0
    for place in sorted(p for p in folder.iterdir() if p.is_dir() and p.name[0] != "."):
        inside = sorted(p for p in place.rglob("*") if p.is_file() and p.name[0] != ".")
        images = [p for p in inside if p.suffix.lower() in SUFFIXES]
        if not images:
            raise DataError(
                f"the class folder {place} has no images "
                f"({', '.join(sorted(s[1:] for s in SUFFIXES))}); fill it or remove it"
            )
        skipped += len(inside) - len(images)
        files += images
        labels += [place.name] * len(images)
    if not files:
        loose = sum(p.suffix.lower() in SUFFIXES for p in folder.iterdir())
        hint = f"; the {loose} images in it belong into one folder per class" if loose else ""
        raise DataError(f"{folder} has no class folders with images{hint}")
    return files, labels, skipped


def _same_classes(classes: tuple[str, ...], other: list[str], folder: Path, second: Path) -> None:
    unknown = sorted(set(other) - set(classes))
    if unknown:
        raise DataError(
            f"{second} has the class folder {unknown[0]!r}, which {folder} lacks; both need the "
            "same classes"
        )


def _size(size: int | Sequence[int] | None) -> tuple[int, int] | None:
    if size is None:
        return None
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2 or min(pair) < 1:
        raise DataError(f"size must be one or two numbers of pixels from 1 up; got {size!r}")
    return pair[0], pair[1]


def _other_size(
    first: Path, size: tuple[int, ...], file: Path, other: tuple[int, ...]
) -> DataError:
    return DataError(
        f"images must have one size; {first.name} has {size[0]}x{size[1]} and {file.name} "
        f"{other[0]}x{other[1]} (height x width). Set size"
    )


def _reason(error: Exception) -> str:
    return "unknown format" if isinstance(error, UnidentifiedImageError) else str(error)
