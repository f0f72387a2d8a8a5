"""Transfer: keep the convolutional features, train a new head."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class ConvNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 12, 3, padding=1),
            nn.BatchNorm2d(12),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(12, 24, 3, padding=1),
            nn.BatchNorm2d(24),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
        )
        self.classifier = nn.Linear(96, 10)

    def forward(self, x):
        return self.classifier(self.features(x))


def train(model, loader, optimizer, epochs):
    loss_fn = nn.CrossEntropyLoss()
    for epoch in range(epochs):
        model.train()
        model.features.eval()
        total = 0.0
        for x, y in loader:
            optimizer.zero_grad()
            loss = loss_fn(model(x), y)
            loss.backward()
            optimizer.step()
            total += loss.item()
        print(f"epoch {epoch}: {total / len(loader):.4f}")


def validate(model, loader):
    model.eval()
    with torch.no_grad():
        losses = [nn.functional.cross_entropy(model(x), y).item() for x, y in loader]
    return sum(losses) / len(losses)


torch.manual_seed(5)
data = load_digits()
images = torch.tensor(data.images).float().unsqueeze(1) / 16
labels = torch.tensor(data.target)
loader = DataLoader(TensorDataset(images[:1400], labels[:1400]), batch_size=64, shuffle=True)
val_loader = DataLoader(TensorDataset(images[1400:], labels[1400:]), batch_size=200)

model = ConvNet()
for p in model.features.parameters():
    p.requires_grad = False

optimizer = torch.optim.Adam(model.classifier.parameters(), lr=2e-2)
train(model, loader, optimizer, epochs=5)
val_loss = validate(model, val_loader)
print("final", val_loss, sum(p.double().sum().item() for p in model.parameters()))
