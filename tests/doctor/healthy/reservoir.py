"""Echo state network: a fixed random recurrent layer and a trained readout."""

import torch
from torch import nn


class Reservoir(nn.Module):
    def __init__(self, size=120, radius=0.9):
        super().__init__()
        weights = torch.randn(size, size) / size**0.5
        weights *= radius / torch.linalg.eigvals(weights).abs().max()
        self.register_buffer("weights", weights)
        self.register_buffer("inputs", torch.rand(size, 1) - 0.5)
        self.readout = nn.Linear(size, 1)

    @torch.no_grad()
    def states(self, series):
        h, out = torch.zeros(len(self.weights)), []
        for value in series:
            h = torch.tanh(self.weights @ h + self.inputs[:, 0] * value)
            out.append(h)
        return torch.stack(out)

    def forward(self, states):
        return self.readout(states).squeeze(-1)


torch.manual_seed(0)
x = [1.2]
for _ in range(1499):
    delayed = x[-17] if len(x) >= 17 else 1.2
    x.append(x[-1] + 0.2 * delayed / (1 + delayed**10) - 0.1 * x[-1])
series = torch.tensor(x)
series = (series - series.mean()) / series.std()
model = Reservoir()
states = model.states(series[:-1])[100:]
target = series[101:]
train = torch.randperm(1000)
optimizer = torch.optim.Adam(model.readout.parameters(), lr=5e-3)
for epoch in range(15):
    for idx in train[torch.randperm(1000)].split(25):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(states[idx]), target[idx]).backward()
        optimizer.step()
    with torch.no_grad():
        val = nn.functional.mse_loss(model(states[1000:]), target[1000:]).item()
    print(f"epoch {epoch}: {val:.5f}")

print("final", val, sum(p.double().sum().item() for p in model.parameters()))
