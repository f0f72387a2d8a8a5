"""Find the box around a bright rectangle: class and coordinates from one network."""

import torch
from torch import nn
from torch.nn import functional as F


def scenes(n, generator):
    image = 0.1 * torch.randn(n, 1, 16, 16, generator=generator)
    size = torch.randint(3, 8, (n, 2), generator=generator)
    corner = (torch.rand(n, 2, generator=generator) * (16 - size)).long()
    kind = torch.randint(2, (n,), generator=generator)
    for i in range(n):
        (top, left), (h, w) = corner[i].tolist(), size[i].tolist()
        patch = torch.ones(h, w)
        if kind[i]:
            patch[::2] = -1
        image[i, 0, top : top + h, left : left + w] += patch
    box = torch.cat([corner, corner + size], dim=1).float() / 16
    return image, kind, box


class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(),
        )  # fmt: skip
        self.classifier = nn.Linear(512, 2)
        self.regressor = nn.Sequential(nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 4))

    def forward(self, x):
        h = self.features(x)
        return self.classifier(h), self.regressor(h).sigmoid()


g = torch.Generator().manual_seed(0)
torch.manual_seed(0)
images, kinds, boxes = scenes(800, g)
val_images, val_kinds, val_boxes = scenes(200, g)
model = Detector()
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
for epoch in range(6):
    model.train()
    for idx in torch.randperm(800, generator=g).split(20):
        scores, predicted = model(images[idx])
        loss = F.cross_entropy(scores, kinds[idx]) + 5 * F.smooth_l1_loss(predicted, boxes[idx])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        scores, predicted = model(val_images)
        error = F.l1_loss(predicted, val_boxes).item()
        acc = (scores.argmax(1) == val_kinds).float().mean().item()
    print(f"epoch {epoch}: box error {error:.4f} class accuracy {acc:.3f}")

print("final", error, sum(p.double().sum().item() for p in model.parameters()))
