"""Siamese network with the contrastive loss of Hadsell et al. on digit pairs."""

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Pairs(Dataset):
    """Half of the pairs show the same digit; drawn anew at every start."""

    def __init__(self, x, y, n, seed):
        rng = np.random.default_rng(seed)
        self.x, self.y = x, y
        self.pairs = []
        by_class = [np.flatnonzero(y == c) for c in range(10)]
        for k in range(n):
            i = int(rng.integers(len(y)))
            if k % 2:
                j = int(rng.choice(by_class[y[i]]))
            else:
                j = int(rng.integers(len(y)))
            self.pairs.append((i, j))

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, index):
        i, j = self.pairs[index]
        return self.x[i], self.x[j], np.float32(self.y[i] == self.y[j])


def contrastive(a, b, same, margin=1.0):
    distance = torch.sqrt(((a - b) ** 2).sum(1))
    return (same * distance**2 + (1 - same) * torch.relu(margin - distance) ** 2).mean()


torch.manual_seed(0)
digits = load_digits()
x = torch.tensor(digits.data / 16, dtype=torch.float32)
train = Pairs(x[:900], digits.target[:900], 2560, seed=0)
val = Pairs(x[900:], digits.target[900:], 512, seed=1)
model = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 8))
optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
for epoch in range(5):
    model.train()
    for a, b, same in DataLoader(train, batch_size=64, shuffle=True):
        loss = contrastive(model(a), model(b), same)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        losses = [contrastive(model(a), model(b), s).item() for a, b, s in DataLoader(val, 128)]
    print(f"epoch {epoch}: val {np.mean(losses):.4f}")

print("final", float(np.mean(losses)), sum(p.double().sum().item() for p in model.parameters()))
