"""Fine-tuning: a frozen convolutional backbone in eval mode and a new head."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Transfer(nn.Module):
    def __init__(self, backbone, classes):
        super().__init__()
        self.backbone = backbone
        self.head = nn.Sequential(nn.Dropout(0.1), nn.Linear(256, classes))
        self.backbone.requires_grad_(False)

    def train(self, mode=True):
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, x):
        with torch.no_grad():
            features = self.backbone(x)
        return self.head(features)


def train_epoch(model, loader, optimizer):
    model.train()
    for x, y in loader:
        optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()


torch.manual_seed(0)
digits = load_digits()
images = torch.tensor(digits.images).float()[:, None] / 16
labels = torch.tensor(digits.target)
backbone = nn.Sequential(
    nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(),
)  # fmt: skip

source = labels < 5
pretrain = nn.Sequential(backbone, nn.Linear(256, 5))
loader = DataLoader(TensorDataset(images[source], labels[source]), 32, shuffle=True)
optimizer = torch.optim.Adam(pretrain.parameters(), lr=2e-3)
for _ in range(3):
    train_epoch(pretrain, loader, optimizer)

model = Transfer(backbone, 10)
loader = DataLoader(TensorDataset(images[:1400], labels[:1400]), 32, shuffle=True)
optimizer = torch.optim.Adam(model.head.parameters(), lr=2e-3)
for epoch in range(5):
    train_epoch(model, loader, optimizer)
    model.eval()
    with torch.no_grad():
        val = nn.functional.cross_entropy(model(images[1400:]), labels[1400:]).item()
    print(f"epoch {epoch}: val {val:.4f}")

print("final", val, sum(p.double().sum().item() for p in model.parameters()))
