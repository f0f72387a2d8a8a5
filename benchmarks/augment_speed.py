"""Time of mixup and CutMix beside timm and kornia, on 256 images of 3 x 64 x 64.

    python benchmarks/augment_speed.py

Like with like: ours and timm's with one weight and one box for the whole batch, and ours, timm's
(mode "elem") and kornia's with those of each image. timm writes into its batch, the others return
new ones; labels are turned into probabilities by ours and timm's.
"""

import argparse
import importlib.util
import statistics
import sys
import warnings

import torch
from timing import interleave, print_machine, ratio

from brickyard.augment import CutMix, Mixup

LIMIT = 1.0
CLASSES = 10


def load_timm():
    """Return timm's Mixup from its own file: the package wants torchvision, which this does not."""
    root = importlib.util.find_spec("timm").submodule_search_locations[0]
    spec = importlib.util.spec_from_file_location("timm_mixup", f"{root}/data/mixup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Mixup


def ways():
    """Return every way by name, for mixup and for CutMix."""
    import kornia.augmentation as kornia

    timm = load_timm()
    x, y = torch.rand(256, 3, 64, 64), torch.randint(CLASSES, (256,))
    scratch, generator = x.clone(), torch.Generator()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mix = kornia.RandomMixUpV2(p=1.0, data_keys=["input", "class"])
        cut = kornia.RandomCutMixV2(p=1.0, data_keys=["input", "class"])

    def call(transform, *given):
        def run():
            transform(*given)

        return run

    def of_timm(**options):  # writes into its batch
        return call(timm(num_classes=CLASSES, **options), scratch, y)

    return {
        "mixup": {
            "ours": call(Mixup(0.2, classes=CLASSES), x, y, generator),
            "ours, batch": call(Mixup(0.2, per="batch", classes=CLASSES), x, y, generator),
            "timm, batch": of_timm(mixup_alpha=0.2),
            "timm, elem": of_timm(mixup_alpha=0.2, mode="elem"),
            "kornia": call(mix, x, y),
        },
        "cutmix": {
            "ours": call(CutMix(1.0, classes=CLASSES), x, y, generator),
            "ours, batch": call(CutMix(1.0, per="batch", classes=CLASSES), x, y, generator),
            "timm, batch": of_timm(mixup_alpha=0.0, cutmix_alpha=1.0),
            "timm, elem": of_timm(mixup_alpha=0.0, cutmix_alpha=1.0, mode="elem"),
            "kornia": call(cut, x, y),
        },
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=31)
    rounds = parser.parse_args().rounds
    print_machine()
    torch.manual_seed(0)
    worst = 0.0
    for what, many in ways().items():
        seconds = interleave(many, rounds, 3)
        for name, took in seconds.items():
            own = "ours, batch" if "batch" in name else "ours"
            found = ratio(seconds, own, name)
            shown = "" if name == own else f"  {own!r} is {found:.2f} of it"
            print(f"{what:7} {name:12} {statistics.median(took) * 1e3:8.2f} ms{shown}")
            worst = max(worst, found if name != own else 0.0)
    print(f"worst ratio: {worst:.2f} (limit {LIMIT})")
    return int(worst > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
