"""Changes to training samples: ``transform(x, y, generator) -> (x, y)`` on whole batches.

Classes hold the options and draw; the functions beside them do what was drawn.
"""

from brickyard.augment.audio import SpecAugment, TimeShift, shift_time, warp_time
from brickyard.augment.base import Transform
from brickyard.augment.blend import Pairs, blend_targets, cutmix, mixed_loss, mixup
from brickyard.augment.image import RandomAffine, RandomCropFlip
from brickyard.augment.manifold import ManifoldMixup
from brickyard.augment.mix import CutMix, Mixup
from brickyard.augment.pixels import ColorJitter, Cutout, GaussianNoise, erase, recolor
from brickyard.augment.text import TokenMask, WordDrop, drop_tokens

__all__ = [
    "ColorJitter", "CutMix", "Cutout", "GaussianNoise", "ManifoldMixup", "Mixup", "Pairs",
    "RandomAffine", "RandomCropFlip", "SpecAugment", "TimeShift", "TokenMask", "Transform",
    "WordDrop", "blend_targets", "cutmix", "drop_tokens", "erase", "mixed_loss", "mixup",
    "recolor", "shift_time", "warp_time",
]  # fmt: skip
