"""Gradient accumulation: the mean loss of each micro-batch is divided by their number."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Trainer:
    def __init__(self, model, train, val, accumulate=4, lr=0.1):
        self.model, self.train_loader, self.val_loader = model, train, val
        self.accumulate = accumulate
        self.criterion = nn.CrossEntropyLoss()
        self.optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)

    def train_epoch(self):
        self.model.train()
        self.optimizer.zero_grad()
        batches = len(self.train_loader)
        for i, (x, y) in enumerate(self.train_loader):
            loss = self.criterion(self.model(x), y) / self.accumulate
            loss.backward()
            if (i + 1) % self.accumulate == 0 or i + 1 == batches:
                self.optimizer.step()
                self.optimizer.zero_grad()

    @torch.no_grad()
    def validate(self):
        self.model.eval()
        losses = [self.criterion(self.model(x), y).item() for x, y in self.val_loader]
        return sum(losses) / len(losses)


torch.manual_seed(0)
x, y = load_digits(return_X_y=True)
x, y = torch.tensor(x, dtype=torch.float32) / 16, torch.tensor(y)
train = DataLoader(TensorDataset(x[:1400], y[:1400]), batch_size=16, shuffle=True)
val = DataLoader(TensorDataset(x[1400:], y[1400:]), batch_size=200)
trainer = Trainer(nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)), train, val)
for epoch in range(6):
    trainer.train_epoch()
    loss = trainer.validate()
    print(epoch, round(loss, 4))
print("final", loss, sum(p.double().sum().item() for p in trainer.model.parameters()))
