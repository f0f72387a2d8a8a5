"""Read digits row by row with an LSTM that wants time first."""

import torch
import torch.nn as nn
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset


class SequenceClassifier(nn.Module):
    def __init__(self, features=8, hidden=40, classes=10):
        super().__init__()
        self.lstm = nn.LSTM(features, hidden)
        self.fc = nn.Linear(hidden, classes)

    def forward(self, x):
        x = x.permute(1, 0, 2)
        output, _ = self.lstm(x)
        return self.fc(output[-1])


def main():
    torch.manual_seed(0)
    digits = load_digits()
    x = torch.tensor(digits.images / 16, dtype=torch.float32)
    y = torch.tensor(digits.target)
    train_loader = DataLoader(TensorDataset(x[:1440], y[:1440]), batch_size=32, shuffle=True)
    val_loader = DataLoader(TensorDataset(x[1440:], y[1440:]), batch_size=32)
    model = SequenceClassifier()
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for epoch in range(6):
        model.train()
        for xb, yb in train_loader:
            optimizer.zero_grad()
            loss_fn(model(xb), yb).backward()
            optimizer.step()
        model.eval()
        loss, hits = 0.0, 0
        with torch.no_grad():
            for xb, yb in val_loader:
                out = model(xb)
                loss += loss_fn(out, yb).item() * len(yb)
                hits += (out.argmax(1) == yb).sum().item()
        n = len(val_loader.dataset)
        print(f"epoch {epoch}: val loss {loss / n:.4f} accuracy {hits / n:.3f}")
    print("final", loss / n, sum(p.double().sum().item() for p in model.parameters()))


if __name__ == "__main__":
    main()
