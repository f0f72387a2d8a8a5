"""Changes to training samples: ``transform(x, y, generator) -> (x, y)`` on whole batches."""

from brickyard.augment.image import RandomAffine, RandomCropFlip

__all__ = ["RandomAffine", "RandomCropFlip"]
