"""Random shifts and noise drawn by two loader workers."""

import random

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Augmented(Dataset):
    def __init__(self, images, labels, train):
        self.images, self.labels, self.train = images, labels, train

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        image = self.images[i] / 16.0
        if self.train:
            image = np.roll(image, random.randint(-1, 1), axis=1)
            image = image + 0.05 * torch.randn(8, 8).numpy()
        return torch.as_tensor(image, dtype=torch.float32)[None], int(self.labels[i])


def seed_worker(worker_id):
    seed = torch.initial_seed() % 2**32
    np.random.seed(seed)
    random.seed(seed)


def main():
    torch.manual_seed(0)
    digits = load_digits()
    train = Augmented(digits.images[:1400], digits.target[:1400], train=True)
    val = Augmented(digits.images[1400:], digits.target[1400:], train=False)
    train_loader = DataLoader(
        train, batch_size=50, shuffle=True, num_workers=2, worker_init_fn=seed_worker
    )
    val_loader = DataLoader(val, batch_size=397)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(144, 10)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for epoch in range(4):
        model.train()
        for x, y in train_loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            x, y = next(iter(val_loader))
            val_loss = nn.functional.cross_entropy(model(x), y).item()
        print(f"epoch {epoch}: {val_loss:.4f}")
    print("final", val_loss, sum(p.double().sum().item() for p in model.parameters()))


if __name__ == "__main__":
    main()
