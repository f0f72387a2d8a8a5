"""A convolutional network ported from another framework."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split


def conv(inputs, outputs):
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(outputs, momentum=0.1),
        nn.ReLU(inplace=True),
    )


def main():
    torch.manual_seed(4)
    digits = load_digits()
    images = torch.tensor(digits.images[:, None], dtype=torch.float32)
    images = (images - 4.884) / 6.017
    dataset = TensorDataset(images, torch.tensor(digits.target))
    train_set, val_set = random_split(dataset, [1400, 397])
    train_loader = DataLoader(train_set, batch_size=32, shuffle=True, drop_last=True)
    val_loader = DataLoader(val_set, batch_size=397)

    model = nn.Sequential(
        conv(1, 16),
        conv(16, 32),
        conv(32, 32),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 10),
    )
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for epoch in range(6):
        model.train()
        running = 0.0
        for xb, yb in train_loader:
            optimizer.zero_grad()
            loss = criterion(model(xb), yb)
            loss.backward()
            optimizer.step()
            running += loss.item()
        model.eval()
        with torch.no_grad():
            val = [criterion(model(xb), yb).item() for xb, yb in val_loader]
        val_loss = sum(val) / len(val)
        print(f"epoch {epoch}: train {running / len(train_loader):.4f} val {val_loss:.4f}")
    print("final", val_loss, sum(p.double().sum().item() for p in model.parameters()))


if __name__ == "__main__":
    main()
