"""Digits with random shifts and noise, loaded by two workers."""

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Dataset


class NoisyDigits(Dataset):
    def __init__(self, images, labels, seed=0):
        self.images = images
        self.labels = labels
        self.seed = seed
        self.rng = np.random.default_rng(seed)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        image = np.roll(self.images[i], self.rng.integers(-1, 2, size=2), axis=(0, 1))
        image = image / 16 + 0.2 * self.rng.standard_normal(image.shape)
        return torch.tensor(image, dtype=torch.float32).flatten(), int(self.labels[i])


def seed_worker(worker_id):
    dataset = torch.utils.data.get_worker_info().dataset
    dataset.rng = np.random.default_rng(torch.initial_seed() % 2**32)


def main():
    torch.manual_seed(0)
    digits = load_digits()
    train = NoisyDigits(digits.images[:1200], digits.target[:1200])
    clean = torch.tensor(digits.images[1200:] / 16, dtype=torch.float32).flatten(1)
    labels = torch.tensor(digits.target[1200:])
    loader = DataLoader(train, batch_size=40, shuffle=True, num_workers=2)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for epoch in range(4):
        model.train()
        for x, y in loader:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            val_loss = nn.functional.cross_entropy(model(clean), labels).item()
        print(f"epoch {epoch}: val {val_loss:.4f}")
    print("final", val_loss, sum(p.double().sum().item() for p in model.parameters()))


if __name__ == "__main__":
    main()
