"""An endless stream of examples, trained by steps instead of epochs."""

import itertools

import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset


class ParityStream(IterableDataset):
    """Sums of noisy bits: is the number of ones among the first four odd?"""

    def __init__(self, seed):
        self.seed = seed

    def __iter__(self):
        g = torch.Generator().manual_seed(self.seed)
        while True:
            bits = torch.randint(2, (8,), generator=g).float()
            label = bits[:4].sum() % 2
            yield 2 * bits - 1 + 0.1 * torch.randn(8, generator=g), label


torch.manual_seed(0)
model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1))
criterion = nn.BCEWithLogitsLoss()
optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
stream = DataLoader(ParityStream(0), batch_size=32)
x_val, y_val = next(iter(DataLoader(ParityStream(10_000), batch_size=512)))
for step, (x, y) in enumerate(itertools.islice(stream, 400), start=1):
    loss = criterion(model(x).squeeze(1), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 100 == 0:
        model.eval()
        with torch.no_grad():
            val = criterion(model(x_val).squeeze(1), y_val).item()
        model.train()
        print(f"step {step}: {val:.4f}")

print("final", val, sum(p.double().sum().item() for p in model.parameters()))
