"""One-cycle training of a recurrent classifier that reads digits row by row."""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class RowReader(nn.Module):
    def __init__(self, hidden=48):
        super().__init__()
        self.gru = nn.GRU(8, hidden, batch_first=True)
        self.head = nn.Linear(hidden, 10)

    def forward(self, x):
        _, state = self.gru(x)
        return self.head(state[0])


def main(epochs=10, max_lr=0.02):
    torch.manual_seed(1)
    data = load_digits()
    x = torch.tensor(data.images / 16.0, dtype=torch.float32)
    y = torch.tensor(data.target)
    loader = DataLoader(TensorDataset(x[:1400], y[:1400]), batch_size=50, shuffle=True)
    model = RowReader()
    optimizer = torch.optim.AdamW(model.parameters(), lr=max_lr)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=max_lr, total_steps=epochs * len(loader), div_factor=1000
    )
    for epoch in range(epochs):
        model.train()
        for xb, yb in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(xb), yb)
            loss.backward()
            optimizer.step()
        scheduler.step()
        model.eval()
        with torch.no_grad():
            out = model(x[1400:])
            val = F.cross_entropy(out, y[1400:]).item()
        lr = optimizer.param_groups[0]["lr"]
        print(f"epoch {epoch}: lr {lr:.2e} val {val:.4f}")
    print("final", val, sum(p.double().sum().item() for p in model.parameters()))


if __name__ == "__main__":
    main()
