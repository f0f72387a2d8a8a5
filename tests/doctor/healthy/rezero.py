"""A deep residual network whose branches start at zero (ReZero)."""

import torch
from sklearn.datasets import load_digits
from torch import nn


class ReZeroBlock(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.f = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        self.alpha = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return x + self.alpha * self.f(x)


class FixupBlock(nn.Module):
    """The last layer of the branch is zero at the start, the first is scaled down."""

    def __init__(self, width, depth):
        super().__init__()
        self.a, self.b = nn.Linear(width, width), nn.Linear(width, width)
        nn.init.kaiming_normal_(self.a.weight)
        with torch.no_grad():
            self.a.weight.mul_(depth**-0.5)
        nn.init.zeros_(self.b.weight)
        nn.init.zeros_(self.b.bias)

    def forward(self, x):
        return x + self.b(torch.relu(self.a(x)))


torch.manual_seed(0)
x, y = load_digits(return_X_y=True)
x, y = torch.tensor((x - 4.88) / 6.02, dtype=torch.float32), torch.tensor(y)
blocks = [ReZeroBlock(48) for _ in range(4)] + [FixupBlock(48, 4) for _ in range(4)]
model = nn.Sequential(nn.Linear(64, 48), *blocks, nn.Linear(48, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for epoch in range(5):
    model.train()
    for idx in torch.randperm(1400).split(50):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x[idx]), y[idx])
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        val = nn.functional.cross_entropy(model(x[1400:]), y[1400:]).item()
    print(f"epoch {epoch}: {val:.4f}")

print("final", val, sum(p.double().sum().item() for p in model.parameters()))
