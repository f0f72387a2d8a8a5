"""Mixed precision training with gradient clipping."""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def get_loaders(batch_size):
    data = load_digits()
    x = torch.tensor(data.data / 16.0, dtype=torch.float32)
    y = torch.tensor(data.target)
    train = TensorDataset(x[:1400], y[:1400])
    val = TensorDataset(x[1400:], y[1400:])
    return DataLoader(train, batch_size, shuffle=True), DataLoader(val, 397)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--clip", type=float, default=1.0)
    args = parser.parse_args()

    torch.manual_seed(0)
    train_loader, val_loader = get_loaders(64)
    net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.2, momentum=0.9)
    scaler = torch.amp.GradScaler("cpu")

    for epoch in range(args.epochs):
        net.train()
        for x, y in train_loader:
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = criterion(net(x), y)
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(net.parameters(), args.clip)
            scaler.step(optimizer)
            scaler.update()
        net.eval()
        with torch.no_grad():
            x, y = next(iter(val_loader))
            logits = net(x)
            val_loss = criterion(logits, y).item()
        accuracy = (logits.argmax(1) == y).float().mean().item()
        print(f"epoch {epoch}: val loss {val_loss:.4f}, accuracy {accuracy:.3f}")

    print("final", val_loss, sum(p.double().sum().item() for p in net.parameters()))


if __name__ == "__main__":
    main()
