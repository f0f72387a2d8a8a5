"""Read slices of a human brain with the tissue of every pixel."""

from __future__ import annotations

import numpy as np
import torch

from brickyard.catalog import brick
from brickyard.errors import DataError
from brickyard.train.data.base import Data, Split, fingerprint
from brickyard.train.data.builtin import packaged

__all__ = ["brain"]

TISSUES = ("rest", "grey matter", "white matter")
#: Voxels of the head that are kept: 192 x 160 of them around the brain, and its slices.
_BOX = (slice(18, 178), slice(22, 214), slice(4, 152))
#: Slices that are left out on either side of a border between training and validation.
_GAP = 2


@brick(
    "data", "brain", aliases=("mni152", "brain_slices"), public="brickyard.train.data",
    task="segmentation", needs=("nilearn",), extra="data",
    summary="Slices of a human brain (the MNI152 average) with grey matter, white matter and rest.",
    use_when="You want a real segmentation task that a small network learns in minutes.",
    avoid_when="You want to know how a method does on patients: this is an average of 152 healthy "
    "heads, smoother than any scan.",
    best_for="U-Nets, overlap losses, augmentation of images with masks.",
    paper="Fonov et al. 2011, Unbiased average age-appropriate atlases for pediatric studies, "
    "NeuroImage 54(1)",
    tune_first="noise: without it the brightness of a pixel nearly tells its tissue.",
    pairs_with=("unet", "dice", "cross_entropy", "mean_iou"),
    cost="8 MB in memory at step 2; read in about a second.",
)  # fmt: skip
def brain(step: int = 2, slab: int = 12, noise: float = 0.15, seed: int = 0) -> Data:
    """Read axial slices of the MNI152 brain that nilearn carries, and the tissue of every pixel.

    A pixel's class is what is likeliest there: grey matter, white matter, or neither. Whole slabs
    are for validation, every fourth one, and two slices on either side of a border are left out:
    neighbouring slices are nearly the same. The average of 152 heads has no noise, so that each
    slice gets some, the same in every epoch.

    Args:
        step: distance of the pixels that are taken from a slice, in millimetres.
        slab: thickness of the slabs, in slices of a millimetre; above 4.
        noise: deviation of the noise, in shares of the brightest value.
        seed: of the noise.

    Raises:
        DataError: nilearn is not installed, or an option out of range.

    Example:
        >>> data = brain(step=4)
        >>> data.input_shape, data.classes[2], len(data.train), len(data.val)
        ((1, 48, 40), 'white matter', 100, 24)

    Reference:
        Fonov et al. 2011, NeuroImage 54(1): the ICBM 2009a nonlinear symmetric template.
    """
    if step < 1 or slab <= 2 * _GAP or noise < 0:
        raise DataError(
            f"step must be at least 1, slab above {2 * _GAP} and noise at least 0; got {step}, "
            f"{slab} and {noise}"
        )
    head, grey, white = (_volume(name, step) for name in ("t1", "gm", "wm"))
    tissue = np.stack([1 - grey - white, grey, white]).argmax(0)
    shape = head[:, None].shape
    image = head[:, None] + noise * np.random.default_rng(seed).standard_normal(shape)
    height = np.arange(len(head))
    held = height // slab % 4 == 3
    near = np.zeros_like(held)
    for border in np.flatnonzero(held[1:] != held[:-1]) + 1:
        near[max(border - _GAP, 0) : border + _GAP] = True
    splits = [
        Split(
            torch.from_numpy(image[part].astype(np.float32)),
            torch.from_numpy(tissue[part].astype(np.int64)),
        )
        for part in (~held & ~near, held & ~near)
    ]  # fmt: skip
    if min(map(len, splits)) == 0:
        raise DataError(f"slab={slab} leaves no slab for validation; lower it")
    shares = [np.bincount(s.y.flatten().numpy(), minlength=3) / s.y.numel() for s in splits]  # pyright: ignore
    facts = {
        "source": "nilearn, MNI152 (ICBM 2009a)",
        "scaling": f"brightness from 0 to 1, noise of deviation {noise:g} added",
        "split": {"given": False, "by": f"slabs of {slab} slices, {_GAP} left out at each border"},
        "pixel_shares": {
            side: dict(zip(TISSUES, share.round(4).tolist(), strict=True))
            for side, share in zip(("train", "val"), shares, strict=True)
        },
        "fingerprint": fingerprint(*splits),
        "warnings": [],
    }
    return Data(
        name="brain", task="segmentation", train=splits[0], val=splits[1],
        input_shape=tuple(image.shape[1:]), outputs=3, classes=TISSUES, facts=facts,
    )  # fmt: skip


def _volume(name: str, step: int) -> np.ndarray:
    """Return a packaged volume as axial slices (n, front to back, left to right) in [0, 1]."""
    import nibabel

    file = f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
    values = np.asarray(nibabel.load(packaged("nilearn", "datasets", "data", file)).dataobj)  # pyright: ignore
    slices = values[_BOX].transpose(2, 1, 0)[:, ::-step, ::step]
    return slices.astype(np.float32) / np.float32(values.max())
