"""A deep network with a configurable number of residual blocks."""

from dataclasses import dataclass

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


@dataclass
class Config:
    width: int = 48
    depth: int = 4
    epochs: int = 8
    batch_size: int = 32
    lr: float = 0.02


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, width)

    def forward(self, x):
        return x + torch.relu(self.linear(self.norm(x)))


class DeepNet(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.stem = nn.Linear(64, config.width)
        self.blocks = nn.ModuleList([Block(config.width) for _ in range(config.depth)])
        self.head = nn.Linear(config.width, 10)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def run_epoch(model, loader, criterion, optimizer=None):
    model.train(optimizer is not None)
    total, seen = 0.0, 0
    with torch.set_grad_enabled(optimizer is not None):
        for x, y in loader:
            loss = criterion(model(x), y)
            if optimizer is not None:
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            total += loss.item() * len(x)
            seen += len(x)
    return total / seen


if __name__ == "__main__":
    config = Config()
    torch.manual_seed(11)
    x, y = load_digits(return_X_y=True)
    x = torch.as_tensor(x, dtype=torch.float32).sub(4.88).div(6.0)
    y = torch.as_tensor(y)
    train = DataLoader(TensorDataset(x[300:], y[300:]), config.batch_size, shuffle=True)
    val = DataLoader(TensorDataset(x[:300], y[:300]), 300)
    model = DeepNet(config)
    optimizer = torch.optim.SGD(model.parameters(), lr=config.lr, momentum=0.9)
    criterion = nn.CrossEntropyLoss()
    for epoch in range(config.epochs):
        train_loss = run_epoch(model, train, criterion, optimizer)
        val_loss = run_epoch(model, val, criterion)
        print(f"{epoch}: train {train_loss:.4f} val {val_loss:.4f}")
    print("final", val_loss, sum(p.double().sum().item() for p in model.parameters()))
