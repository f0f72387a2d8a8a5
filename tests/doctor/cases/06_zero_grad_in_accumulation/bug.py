"""Gradient accumulation to reach a larger batch on a small machine."""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def parse():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--micro-batch", type=int, default=16)
    parser.add_argument("--accumulate", type=int, default=4)
    parser.add_argument("--lr", type=float, default=0.1)
    return parser.parse_args()


def evaluate(model, loader, criterion):
    model.eval()
    losses, hits, n = 0.0, 0, 0
    with torch.no_grad():
        for x, y in loader:
            out = model(x)
            losses += criterion(out, y).item() * len(y)
            hits += (out.argmax(1) == y).sum().item()
            n += len(y)
    return losses / n, hits / n


def main():
    args = parse()
    torch.manual_seed(0)
    x, y = load_digits(return_X_y=True)
    x, y = torch.tensor(x / 16 - 0.3, dtype=torch.float32), torch.tensor(y)
    mix = torch.randperm(len(x))
    train = TensorDataset(x[mix[:1408]], y[mix[:1408]])
    val = TensorDataset(x[mix[1408:]], y[mix[1408:]])
    train_loader = DataLoader(train, batch_size=args.micro_batch, shuffle=True)
    val_loader = DataLoader(val, batch_size=256)

    model = nn.Sequential(
        nn.Linear(64, 96), nn.GELU(), nn.Linear(96, 96), nn.GELU(), nn.Linear(96, 10)
    )
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr, momentum=0.9)

    for epoch in range(args.epochs):
        model.train()
        for i, (xb, yb) in enumerate(train_loader):
            optimizer.zero_grad()
            loss = criterion(model(xb), yb) / args.accumulate
            loss.backward()
            if (i + 1) % args.accumulate == 0:
                optimizer.step()
        val_loss, val_acc = evaluate(model, val_loader, criterion)
        print(f"epoch {epoch}: val loss {val_loss:.4f} acc {val_acc:.4f}")

    print("final", val_loss, sum(p.double().sum().item() for p in model.parameters()))


if __name__ == "__main__":
    main()
