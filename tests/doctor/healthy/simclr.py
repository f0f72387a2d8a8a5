"""SimCLR: two noisy views of each digit attract, all others repel."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from sklearn.datasets import load_digits


def augment(x):
    shift = int(torch.randint(-1, 2, (1,)))
    x = torch.roll(x, shift, dims=3) * (0.8 + 0.4 * torch.rand(len(x), 1, 1, 1))
    return x + 0.1 * torch.randn_like(x)


def nt_xent(a, b, temperature=0.3):
    z = F.normalize(torch.cat([a, b]), dim=1)
    similarity = z @ z.t() / temperature
    similarity.fill_diagonal_(float("-inf"))
    n = len(a)
    positives = torch.cat([torch.arange(n) + n, torch.arange(n)])
    return F.cross_entropy(similarity, positives)


class Encoder(nn.Module):
    def __init__(self, dim=32):
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        )  # fmt: skip
        self.projector = nn.Sequential(nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, dim))

    def forward(self, x):
        return self.projector(self.conv(x))


torch.manual_seed(0)
digits = load_digits()
images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
labels = torch.tensor(digits.target)
encoder = Encoder()
optimizer = torch.optim.Adam(encoder.parameters(), lr=2e-3)
for epoch in range(5):
    encoder.train()
    total = 0.0
    for idx in torch.randperm(1400).split(70):
        loss = nt_xent(encoder(augment(images[idx])), encoder(augment(images[idx])))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
    encoder.eval()
    with torch.no_grad():
        h = F.normalize(encoder.conv(images), dim=1)
    nearest = (h[1400:] @ h[:1400].t()).argmax(1)
    knn = (labels[nearest] == labels[1400:]).float().mean().item()
    print(f"epoch {epoch}: loss {total / 20:.4f} nearest neighbour {knn:.3f}")

print("final", total / 20, sum(p.double().sum().item() for p in encoder.parameters()))
