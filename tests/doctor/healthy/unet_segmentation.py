"""Segment circles in noisy images with a two-level U-Net and Dice plus cross-entropy."""

import torch
import torch.nn as nn
import torch.nn.functional as F


def circles(n, size, generator):
    grid = torch.arange(size).float()
    centre = torch.rand(n, 2, generator=generator) * size * 0.6 + size * 0.2
    radius = torch.rand(n, generator=generator) * size * 0.15 + size * 0.12
    dy = grid[None, :, None] - centre[:, 0, None, None]
    dx = grid[None, None, :] - centre[:, 1, None, None]
    mask = (dy**2 + dx**2 < radius[:, None, None] ** 2).float()
    image = mask + 0.5 * torch.randn(n, size, size, generator=generator)
    return image.unsqueeze(1), mask.unsqueeze(1)


def double_conv(i, o):
    return nn.Sequential(
        nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU(inplace=True),
        nn.Conv2d(o, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU(inplace=True),
    )  # fmt: skip


class UNet(nn.Module):
    def __init__(self, base=8):
        super().__init__()
        self.down = double_conv(1, base)
        self.bottom = double_conv(base, 2 * base)
        self.up = nn.ConvTranspose2d(2 * base, base, 2, stride=2)
        self.merge = double_conv(2 * base, base)
        self.out = nn.Conv2d(base, 1, 1)

    def forward(self, x):
        a = self.down(x)
        b = self.bottom(F.max_pool2d(a, 2))
        return self.out(self.merge(torch.cat([a, self.up(b)], dim=1)))


def dice(logits, target):
    p = torch.sigmoid(logits)
    inter = (p * target).sum(dim=(1, 2, 3))
    total = p.sum(dim=(1, 2, 3)) + target.sum(dim=(1, 2, 3))
    return (1 - (2 * inter + 1) / (total + 1)).mean()


g = torch.Generator().manual_seed(0)
torch.manual_seed(0)
x, y = circles(320, 16, g)
x_val, y_val = circles(80, 16, g)
model = UNet()
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
for epoch in range(4):
    model.train()
    for idx in torch.randperm(320, generator=g).split(10):
        logits = model(x[idx])
        loss = F.binary_cross_entropy_with_logits(logits, y[idx]) + dice(logits, y[idx])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        val = dice(model(x_val), y_val).item()
    print(f"epoch {epoch}: dice loss {val:.4f}")

print("final", val, sum(p.double().sum().item() for p in model.parameters()))
