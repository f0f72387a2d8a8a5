"""Bootstrap your own latent: an online network predicts a momentum encoder."""

import copy

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn


def mlp(i, h, o):
    return nn.Sequential(nn.Linear(i, h), nn.BatchNorm1d(h), nn.ReLU(), nn.Linear(h, o))


class BYOL(nn.Module):
    def __init__(self, momentum=0.98):
        super().__init__()
        self.online = mlp(64, 96, 32)
        self.predictor = mlp(32, 64, 32)
        self.target = copy.deepcopy(self.online).requires_grad_(False)
        self.momentum = momentum

    @torch.no_grad()
    def update_target(self):
        for t, o in zip(self.target.parameters(), self.online.parameters(), strict=True):
            t.lerp_(o, 1 - self.momentum)

    def regress(self, a, b):
        prediction = self.predictor(self.online(a))
        with torch.no_grad():
            goal = self.target(b)
        return (2 - 2 * F.cosine_similarity(prediction, goal, dim=1)).mean()

    def forward(self, a, b):
        return self.regress(a, b) + self.regress(b, a)


def view(x):
    keep = (torch.rand_like(x) > 0.15).float()
    return x * keep + 0.1 * torch.randn_like(x)


torch.manual_seed(0)
data = load_digits()
x = torch.tensor(data.data / 16, dtype=torch.float32)
y = torch.tensor(data.target)
model = BYOL()
trainable = [*model.online.parameters(), *model.predictor.parameters()]
optimizer = torch.optim.AdamW(trainable, lr=2e-3, weight_decay=1e-4)
for epoch in range(6):
    model.train()
    total = 0.0
    for idx in torch.randperm(1400).split(50):
        loss = model(view(x[idx]), view(x[idx]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        model.update_target()
        total += loss.item() / 28
    model.eval()
    with torch.no_grad():
        z = F.normalize(model.online(x), dim=1)
    knn = (y[(z[1400:] @ z[:1400].t()).argmax(1)] == y[1400:]).float().mean().item()
    print(
        f"epoch {epoch}: loss {total:.4f} nearest neighbour {knn:.3f} spread {z.std(0).mean():.3f}"
    )

print("final", total, sum(p.double().sum().item() for p in model.parameters()))
