"""The network of recipes/casp-mlp.yaml against boosted trees on the same rows.

scikit-learn's HistGradientBoostingRegressor gets the same training rows and is scored on the same
validation rows; its trees do not care about logarithms and standardisation. "defaults" is as
installed; "tuned" has the best of a small grid, chosen on a fifth of the training rows. The
network's choice of the best epoch looks at the validation rows, which favours it a little.

`python benchmarks/casp_baseline.py [--no-network]` (scikit-learn 1.9.1, torch 2.13.0, 1 thread,
seed 0):

    36,584 rows to train on, 9,146 to validate
    r2 -0.0000   RMSE 6.136 A        0 CPU s   mean of the training rows
    r2 0.5627    RMSE 4.058 A        1 CPU s   trees, defaults
    r2 0.6750    RMSE 3.498 A       81 CPU s   trees, tuned: rate 0.05, 255 leaves, no l2
    r2 0.5955    RMSE 3.903 A       49 CPU s   casp-mlp

The network beats the trees as they are installed; trees that are allowed to grow beat the network
by a wide margin, at the price of a grid.
"""

import itertools
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.metrics import mean_squared_error, r2_score

from brickyard.train import train
from brickyard.train.data.benchmarks import casp

RECIPE = Path(__file__).parents[1] / "recipes" / "casp-mlp.yaml"
GRID = {"learning_rate": (0.05, 0.1), "max_leaf_nodes": (63, 255), "l2_regularization": (0.0, 1.0)}


def trees(x, y, **options):
    """Fit boosted trees with early stopping on a tenth of the rows."""
    made = HistGradientBoostingRegressor(
        max_iter=1500, early_stopping=True, validation_fraction=0.1, random_state=0, **options
    )
    return made.fit(x, y)


def tuned(x, y):
    """Return trees with the options of the grid that a fifth of the rows likes best."""
    held = np.random.default_rng(0).permutation(len(x)) < len(x) // 5
    best, chosen = -np.inf, {}
    for values in itertools.product(*GRID.values()):
        options = dict(zip(GRID, values, strict=True))
        score = trees(x[~held], y[~held], **options).score(x[held], y[held])
        if score > best:
            best, chosen = score, options
    return trees(x, y, **chosen), chosen


def main():
    """Print a row for each."""
    data = casp(val=0.2, seed=0)
    x, vx = data.train.x.numpy(), data.val.x.numpy()
    y, vy = (data.restore(s.y).squeeze(1).numpy() for s in (data.train, data.val))
    rows = []

    def note(name, predicted, start):
        error = mean_squared_error(vy, predicted) ** 0.5
        rows.append((name, r2_score(vy, predicted), error, time.process_time() - start))

    note("mean of the training rows", np.full(len(vy), y.mean()), time.process_time())
    start = time.process_time()
    note("trees, defaults", HistGradientBoostingRegressor(random_state=0).fit(x, y).predict(vx),
         start)  # fmt: skip
    start = time.process_time()
    made, options = tuned(x, y)
    note(f"trees, tuned {options}", made.predict(vx), start)
    if "--no-network" not in sys.argv:
        start = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            best = train(RECIPE, out=f"{folder}/run").summary["best"]["val"]
        rows.append(("casp-mlp", best["r2"], best["root_mean_squared_error"],
                     time.process_time() - start))  # fmt: skip
    print(f"{len(x):,} rows to train on, {len(vx):,} to validate")
    for name, share, error, seconds in rows:
        print(f"r2 {share:.4f}   RMSE {error:.3f} A   {seconds:6.0f} CPU s   {name}")


if __name__ == "__main__":
    main()
