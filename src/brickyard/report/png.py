"""Encode images as PNG with the standard library alone, and as data URIs."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB = 0, 2


def encode_png(image: np.ndarray) -> bytes:
    """Return an image as the bytes of a PNG file.

    Of the row filters None, Sub and Up, the one that compresses this image best is used.

    Args:
        image: (H, W) grey, (H, W, 1) grey or (H, W, 3) RGB, uint8.

    Raises:
        ValueError: another shape or dtype.
    """
    pixels = np.asarray(image)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.dtype != np.uint8 or not (
        pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)
    ):
        raise ValueError(
            f"image must be uint8 of shape (H, W) or (H, W, 3), got {pixels.dtype} "
            f"{tuple(np.shape(image))}; scale to 0..255 and convert first"
        )
    height, width = pixels.shape[:2]
    if not (height and width):
        raise ValueError(f"image must have at least one pixel, got {tuple(np.shape(image))}")
    step = 1 if pixels.ndim == 2 else 3
    rows = np.ascontiguousarray(pixels).reshape(height, width * step)
    data = min((zlib.compress(_filtered(rows, kind, step), 9) for kind in (0, 1, 2)), key=len)
    colour = _GREY if step == 1 else _RGB
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _filtered(rows: np.ndarray, kind: int, step: int) -> bytes:
    """Return the rows, each behind its filter's number; differences wrap modulo 256."""
    out = np.empty((rows.shape[0], rows.shape[1] + 1), np.uint8)
    out[:, 0] = kind
    body = out[:, 1:]
    body[:] = rows
    if kind == 1:
        body[:, step:] -= rows[:, :-step]
    elif kind == 2:
        body[1:] -= rows[:-1]
    return out.tobytes()


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def shrink(image: np.ndarray, most: int = 224) -> np.ndarray:
    """Return the image with no side longer than ``most``, averaged over whole blocks of pixels."""
    block = -(-max(image.shape[:2]) // most)
    if block <= 1:
        return image
    height, width = (max(1, side // block) for side in image.shape[:2])
    cut = image[: height * block, : width * block].astype(np.float32)
    if cut.shape[0] < height * block or cut.shape[1] < width * block:  # thinner than one block
        return image[::block, ::block]
    mean = cut.reshape(height, block, width, block, -1).mean(axis=(1, 3))
    return np.rint(mean).astype(np.uint8).reshape(height, width, *image.shape[2:])


def data_uri(image: np.ndarray, most: int = 224) -> str:
    """Return an image as a ``data:`` URI, shrunk so that no side is longer than ``most``."""
    return "data:image/png;base64," + base64.b64encode(encode_png(shrink(image, most))).decode()
