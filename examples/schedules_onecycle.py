"""Epochs until digits are read to a target: one-cycle against a constant rate, each at its best.

A network of two hidden layers and SGD with momentum. Both choices try the same rates, and each is
shown at the one where it needs the fewest epochs on average over the seeds. A one-cycle run must be
planned to its end, so it is planned for each budget of epochs anew and judged there; a constant
rate is judged after each epoch of one run, which is in its favour.

`python examples/schedules_onecycle.py`, mean and deviation of 5 seeds, target 0.95 of the other
half (torch 2.13.0, CPU, 1 thread); runs that miss it within 12 epochs count as 13:

    constant   rate 0.03    8.4 +- 2.3 epochs [7, 7, 7, 13, 8]
    constant   rate 0.1     8.2 +- 1.2 epochs [7, 8, 7, 9, 10]
    constant   rate 0.2    13.0 +- 0.0 epochs [13, 13, 13, 13, 13]
    one-cycle  rate 0.03   11.2 +- 1.5 epochs [10, 13, 10, 13, 10]
    one-cycle  rate 0.1     5.6 +- 1.4 epochs [8, 6, 4, 5, 5]
    one-cycle  rate 0.2     5.8 +- 2.1 epochs [4, 5, 5, 5, 10]

Budgets are 2, 3, 4, 5, 6, 8, 10 and 12 epochs. A number behind the command runs fewer seeds.
"""

import sys

import numpy as np
import torch

from brickyard import losses, nn, optim, schedules
from brickyard.train.data import TensorBatches, digits

torch.set_num_threads(1)
SEEDS = range(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
RATES, BUDGETS, BATCH, TARGET = (0.03, 0.1, 0.2), (2, 3, 4, 5, 6, 8, 10, 12), 32, 0.95


def fit(data, schedule, rate, epochs, seed):
    """Train a network; return the accuracy on validation data after each epoch."""
    torch.manual_seed(seed)
    model = nn.MLP(data.input_shape, data.outputs, hidden=64, depth=2)
    optimizer = optim.SGD(model, lr=rate, momentum=0.9)
    batches = TensorBatches(data.train, BATCH, shuffle=True, seed=seed)
    scheduler = schedule.bind(optimizer, total=epochs * batches.count)
    curve = []
    for epoch in range(epochs):
        for x, y in batches.epoch(epoch):
            optimizer.zero_grad()
            losses.cross_entropy_loss(model(x), y).backward()
            optimizer.step()
            scheduler.step()
        with torch.inference_mode():
            curve.append((model(data.val.x).argmax(1) == data.val.y).float().mean().item())
    return curve


def epochs_of_constant(data, rate, seed):
    """Return the first epoch that reaches the target; one more than there are if none does."""
    curve = fit(data, schedules.constant(), rate, max(BUDGETS), seed)
    return next((i + 1 for i, v in enumerate(curve) if v >= TARGET), max(BUDGETS) + 1)


def epochs_of_one_cycle(data, rate, seed):
    """Return the smallest budget whose end reaches the target."""
    for epochs in BUDGETS:
        if fit(data, schedules.one_cycle(), rate, epochs, seed)[-1] >= TARGET:
            return epochs
    return max(BUDGETS) + 1


found = {(name, rate): [] for name in ("constant", "one-cycle") for rate in RATES}
for seed in SEEDS:
    data = digits(val=0.5, seed=seed)
    for (name, rate), rows in found.items():
        need = epochs_of_constant if name == "constant" else epochs_of_one_cycle
        rows.append(need(data, rate, seed))
for (name, rate), rows in found.items():
    print(f"{name:10} rate {rate:<5} {np.mean(rows):5.1f} +- {np.std(rows):.1f} epochs {rows}")
best = {n: min(np.mean(r) for (m, _), r in found.items() if m == n) for n, _ in found}
if best["one-cycle"] > best["constant"] + (0 if len(SEEDS) > 1 else 1):
    raise SystemExit("one-cycle should need no more epochs than a constant rate")
