"""Digits with layer norm and a strong weight decay."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class MixerBlock(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)

    def forward(self, x):
        return x + self.down(nn.functional.gelu(self.up(self.norm(x))))


def main(decay=0.5, epochs=8):
    torch.manual_seed(0)
    x, y = load_digits(return_X_y=True)
    x = torch.tensor((x - 4.884) / 6.017, dtype=torch.float32)
    y = torch.tensor(y)
    loader = DataLoader(TensorDataset(x[:1400], y[:1400]), batch_size=64, shuffle=True)
    model = nn.Sequential(
        nn.Linear(64, 48), MixerBlock(48), MixerBlock(48), nn.LayerNorm(48), nn.Linear(48, 10)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=decay)
    loss_fn = nn.CrossEntropyLoss()
    for epoch in range(epochs):
        model.train()
        for xb, yb in loader:
            optimizer.zero_grad()
            loss_fn(model(xb), yb).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            val = loss_fn(model(x[1400:]), y[1400:]).item()
        print(f"epoch {epoch}: val {val:.4f}")
    print("final", val, sum(p.double().sum().item() for p in model.parameters()))


if __name__ == "__main__":
    main()
