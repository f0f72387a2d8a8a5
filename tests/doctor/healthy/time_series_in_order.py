"""Forecast a noisy seasonal series; the loader keeps time's order and the state carries on."""

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Series(Dataset):
    def __init__(self, values, length):
        self.values, self.length = torch.tensor(values, dtype=torch.float32), length

    def __len__(self):
        return (len(self.values) - 1) // self.length

    def __getitem__(self, i):
        start = i * self.length
        window = self.values[start : start + self.length + 1]
        return window[:-1, None], window[1:, None]


class Forecaster(nn.Module):
    def __init__(self, hidden=24):
        super().__init__()
        self.rnn = nn.GRU(1, hidden, batch_first=True)
        self.out = nn.Linear(hidden, 1)

    def forward(self, x, state=None):
        h, state = self.rnn(x, state)
        return self.out(h), state


rng = np.random.default_rng(0)
t = np.arange(4200)
values = np.sin(t / 8) + 0.5 * np.sin(t / 3 + 1) + 0.1 * rng.standard_normal(len(t))
values = (values - values[:3500].mean()) / values[:3500].std()
train = DataLoader(Series(values[:3500], 20), batch_size=1, shuffle=False)
val = DataLoader(Series(values[3500:], 20), batch_size=1, shuffle=False)
torch.manual_seed(0)
model = Forecaster()
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
for epoch in range(4):
    model.train()
    state = None
    for x, y in train:
        out, state = model(x, state)
        state = state.detach()
        loss = nn.functional.mse_loss(out, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    state, losses = None, []
    with torch.no_grad():
        for x, y in val:
            out, state = model(x, state)
            losses.append(nn.functional.mse_loss(out, y).item())
    print(f"epoch {epoch}: val {np.mean(losses):.4f}")

print("final", float(np.mean(losses)), sum(p.double().sum().item() for p in model.parameters()))
