"""Digits read from a folder per class, one class after the other."""

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader, Dataset


class DigitFolder(Dataset):
    """Lists the files of class 0, then class 1, and so on."""

    def __init__(self, images, labels):
        order = np.argsort(labels, kind="stable")
        self.images, self.labels = images[order], labels[order]

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        image = torch.from_numpy(self.images[i]).float().unsqueeze(0)
        return (image - 4.9) / 6.0, int(self.labels[i])


def accuracy(model, loader):
    model.eval()
    hits = 0
    with torch.no_grad():
        for x, y in loader:
            hits += (model(x).argmax(1) == y).sum().item()
    return hits / len(loader.dataset)


def main():
    torch.manual_seed(0)
    digits = load_digits()
    a, b, c, d = train_test_split(digits.images, digits.target, test_size=0.25, random_state=0)
    train_loader = DataLoader(DigitFolder(a, c), batch_size=32)
    test_loader = DataLoader(DigitFolder(b, d), batch_size=64)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(576, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    for epoch in range(4):
        model.train()
        running = 0.0
        for x, y in train_loader:
            optimizer.zero_grad()
            loss = loss_fn(model(x), y)
            loss.backward()
            optimizer.step()
            running += loss.item() / len(train_loader)
        print(f"epoch {epoch}: train {running:.3f} test acc {accuracy(model, test_loader):.3f}")
    print("final", running, sum(p.double().sum().item() for p in model.parameters()))


if __name__ == "__main__":
    main()
