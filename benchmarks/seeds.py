"""Train a recipe with several seeds, each on a split of its own; print its mean best metric.

python benchmarks/seeds.py recipes/mnist5k-cnn.yaml --seeds 0 1 2
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from timing import print_machine

from brickyard.train import load, train


def main():
    """Print a line for each seed, then the mean."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("recipe")
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = arguments.parse_args()
    folder, values, seconds = Path(tempfile.mkdtemp()), [], []
    print_machine()
    for seed in options.seeds:
        recipe = load(options.recipe, [f"seed={seed}", f"split_seed={seed}"])
        result = train(recipe, out=folder / str(seed))
        name = result.summary["monitor"]["name"]
        values.append(result.summary["best"]["val"][name])
        seconds.append(result.summary["seconds"]["total"])
        print(f"seed {seed}: {name} {values[-1]:.4f} in {seconds[-1]:.1f} s")
    print(f"mean {name} {statistics.mean(values):.4f}, median {statistics.median(seconds):.1f} s")


if __name__ == "__main__":
    main()
