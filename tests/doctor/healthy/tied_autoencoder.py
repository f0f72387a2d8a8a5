"""Autoencoder whose decoder is the transpose of its encoder."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader


class TiedAutoencoder(nn.Module):
    def __init__(self, inputs=64, sizes=(48, 12)):
        super().__init__()
        self.layer1 = nn.Linear(inputs, sizes[0])
        self.layer2 = nn.Linear(sizes[0], sizes[1])
        self.bias2 = nn.Parameter(torch.zeros(sizes[0]))
        self.bias1 = nn.Parameter(torch.zeros(inputs))

    def forward(self, x):
        code = self.layer2(torch.tanh(self.layer1(x)))
        h = torch.tanh(F.linear(code, self.layer2.weight.t(), self.bias2))
        return F.linear(h, self.layer1.weight.t(), self.bias1)


torch.manual_seed(0)
x = torch.tensor(load_digits().data, dtype=torch.float32) / 16
mean = x[:1400].mean(0)
x = x - mean
loader = DataLoader(x[:1400], batch_size=40, shuffle=True)
model = TiedAutoencoder()
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
for epoch in range(8):
    for batch in loader:
        loss = F.mse_loss(model(batch), batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.inference_mode():
        val = F.mse_loss(model(x[1400:]), x[1400:]).item()
    print(f"epoch {epoch}: {val:.5f}")

print("final", val, sum(p.double().sum().item() for p in model.parameters()))
