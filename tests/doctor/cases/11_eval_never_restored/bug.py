"""Digits with noise: a regularised network with batch norm and dropout."""

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn


class Trainer:
    def __init__(self, model, lr):
        self.model = model
        self.loss_fn = nn.CrossEntropyLoss()
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=1e-4)

    def train_epoch(self, x, y, batch=32):
        for idx in torch.randperm(len(x)).split(batch):
            self.optimizer.zero_grad()
            loss = self.loss_fn(self.model(x[idx]), y[idx])
            loss.backward()
            self.optimizer.step()
        return loss.item()

    def validate(self, x, y):
        self.model.eval()
        with torch.no_grad():
            scores = self.model(x)
            return self.loss_fn(scores, y).item(), (scores.argmax(1) == y).float().mean().item()


def main():
    torch.manual_seed(2)
    rng = np.random.default_rng(2)
    x, y = load_digits(return_X_y=True)
    x = x / 16 + rng.normal(0, 0.35, x.shape)
    x, y = torch.tensor(x, dtype=torch.float32), torch.tensor(y)
    model = nn.Sequential(
        nn.Linear(64, 256),
        nn.BatchNorm1d(256),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(256, 256),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(256, 10),
    )
    trainer = Trainer(model, lr=1e-3)
    for epoch in range(12):
        last = trainer.train_epoch(x[:600], y[:600])
        val_loss, acc = trainer.validate(x[600:], y[600:])
        print(f"epoch {epoch:2d} train {last:.3f} val {val_loss:.3f} acc {acc:.3f}")
    print("final", val_loss, sum(p.double().sum().item() for p in model.parameters()))


if __name__ == "__main__":
    main()
