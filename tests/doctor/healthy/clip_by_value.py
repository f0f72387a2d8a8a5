"""LSTM on a delayed echo task with gradients clipped by value."""

import torch
from torch import nn


class Echo(nn.Module):
    def __init__(self, hidden=32):
        super().__init__()
        self.lstm = nn.LSTM(1, hidden, batch_first=True)
        self.linear = nn.Linear(hidden, 1)

    def forward(self, x):
        return self.linear(self.lstm(x)[0])


def echo(n, length=16, delay=3):
    x = torch.rand(n, length, 1) * 2 - 1
    return x, torch.cat([torch.zeros(n, delay, 1), x[:, :-delay]], dim=1)


torch.manual_seed(0)
x, y = echo(1000)
x_val, y_val = echo(200)
model = Echo()
criterion = nn.MSELoss()
optimizer = torch.optim.RMSprop(model.parameters(), lr=5e-3)
for epoch in range(8):
    model.train()
    for idx in torch.randperm(1000).split(25):
        optimizer.zero_grad()
        criterion(model(x[idx]), y[idx]).backward()
        nn.utils.clip_grad_value_(model.parameters(), 0.1)
        optimizer.step()
    model.eval()
    with torch.no_grad():
        val = criterion(model(x_val), y_val).item()
    print(f"epoch {epoch}: {val:.4f}")

print("final", val, sum(p.double().sum().item() for p in model.parameters()))
