"""Linear probe: features are computed once, then a linear layer is trained on them."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
x, y = load_digits(return_X_y=True)
x = torch.tensor(x, dtype=torch.float32) / 16
y = torch.tensor(y)

encoder = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 32), nn.ReLU())
decoder = nn.Sequential(nn.Linear(32, 48), nn.ReLU(), nn.Linear(48, 64))
optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=2e-3)
for _ in range(6):
    for idx in torch.randperm(1400).split(50):
        loss = ((decoder(encoder(x[idx])) - x[idx]) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
print(f"reconstruction {loss.item():.4f}")

encoder.eval()
with torch.no_grad():
    features = encoder(x)
    features = (features - features[:1400].mean(0)) / (features[:1400].std(0) + 1e-3)
probe = nn.Linear(32, 10)
sgd = torch.optim.SGD(probe.parameters(), lr=0.1, momentum=0.9)
loader = DataLoader(TensorDataset(features[:1400], y[:1400]), batch_size=50, shuffle=True)
for epoch in range(10):
    for f, t in loader:
        loss = nn.functional.cross_entropy(probe(f), t)
        sgd.zero_grad()
        loss.backward()
        sgd.step()
    with torch.no_grad():
        out = probe(features[1400:])
        val = nn.functional.cross_entropy(out, y[1400:]).item()
    print(f"epoch {epoch}: {val:.4f} {(out.argmax(1) == y[1400:]).float().mean().item():.3f}")

print("final", val, sum(p.double().sum().item() for p in probe.parameters()))
