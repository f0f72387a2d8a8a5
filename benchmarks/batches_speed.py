"""Batches of samples in memory beside torch's DataLoader: an epoch read, and an epoch trained.

Every way gives shuffled batches of 64 of the same training samples, turn by turn in one process:
`TensorBatches`, a DataLoader over a TensorDataset in this process, and one with two workers that
live through all epochs (as is best for it); nothing is pinned. A trained epoch is that of a
perceptron with one hidden layer of 64 units under a fused AdamW, the same for all.

    python benchmarks/batches_speed.py [--rounds 15]

Median of 15 rounds on two cores of an x86 machine, torch 2.13.0, one thread; in brackets how many
times as long as `TensorBatches` (median of the ratios of neighbouring runs):

    an epoch, ms                               read          trained
    digits, TensorBatches               0.5 (  1.0)     17.8 (  1.0)
    digits, DataLoader                 18.7 ( 28.1)     35.6 (  2.1)
    digits, DataLoader, 2 workers     152.3 (278.6)    165.7 (  8.5)
    mnist5k, TensorBatches              6.1 (  1.0)     96.8 (  1.0)
    mnist5k, DataLoader                60.3 (  9.6)    177.4 (  1.7)
    mnist5k, DataLoader, 2 workers    391.1 ( 64.8)    529.5 (  5.5)

A DataLoader over tensors fetches sample by sample and stacks them, and a process of its own only
adds the way of every batch through shared memory: samples in memory have nothing to wait for.
"""

import argparse
import statistics

import torch
from timing import interleave, print_machine, ratio
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from brickyard.train.data import batches, digits, mnist5k

SIZE = 64


def ways_to_read(split):
    """Return functions by name, each of which returns the batches of a new epoch."""
    ours = batches(split, SIZE, shuffle=True, seed=0)
    epochs = iter(range(10**6))
    pairs = TensorDataset(split.x, split.y)
    plain = DataLoader(pairs, SIZE, shuffle=True)
    workers = DataLoader(pairs, SIZE, shuffle=True, num_workers=2, persistent_workers=True)
    return {
        "TensorBatches": lambda: ours.epoch(next(epochs)),
        "DataLoader": lambda: iter(plain),
        "DataLoader, 2 workers": lambda: iter(workers),
    }


def read(epoch, split):
    """Read an epoch to its end, and make sure that it has every sample."""
    seen = 0
    for x, y in epoch():
        seen += min(len(x), len(y))
    if seen != len(split):
        raise RuntimeError(f"{seen} of {len(split)} samples were read")


def trainer(split):
    """Return a function that trains one more epoch on the batches it is given."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(split.x[0].numel(), 64), nn.ReLU(),
                          nn.Linear(64, 10))  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    criterion = nn.CrossEntropyLoss()

    def train(epoch):
        for x, y in epoch():
            optimizer.zero_grad()
            criterion(model(x), y).backward()
            optimizer.step()

    return train


def main():
    """Print a table of times and ratios."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=15)
    rounds = arguments.parse_args().rounds
    torch.set_num_threads(1)
    print_machine()
    print(f"{'an epoch, ms':30}{'read':>17}{'trained':>17}")
    for name, data in (("digits", digits()), ("mnist5k", mnist5k())):
        split, train = data.train, trainer(data.train)
        ways, found = ways_to_read(split), []
        for work in (lambda epoch, split=split: read(epoch, split), train):
            timed = {
                way: (lambda epoch=epoch, work=work: work(epoch)) for way, epoch in ways.items()
            }
            found.append(interleave(timed, rounds, warmup=2))
        for way in ways:
            cells = ""
            for seconds in found:
                times = ratio(seconds, way, "TensorBatches")
                cells += f"{statistics.median(seconds[way]) * 1e3:9.1f} ({times:5.1f})"
            print(f"{name + ', ' + way:30}{cells}")


if __name__ == "__main__":
    main()
