"""Mixed precision in float16 with a gradient scaler and clipping at the unscaled norm."""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.amp import GradScaler, autocast


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(64, 96), nn.Linear(96, 96)])
        self.norm = nn.LayerNorm(96)
        self.head = nn.Linear(96, 10)

    def forward(self, x):
        for layer in self.layers:
            x = F.relu(layer(x))
        return self.head(self.norm(x))


def main():
    torch.manual_seed(0)
    x, y = load_digits(return_X_y=True)
    x, y = torch.tensor(x / 16, dtype=torch.float32), torch.tensor(y)
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    scaler = GradScaler("cpu", init_scale=2.0**24, growth_interval=100)
    for epoch in range(8):
        net.train()
        for idx in torch.randperm(1400).split(32):
            optimizer.zero_grad()
            with autocast("cpu", dtype=torch.float16):
                loss = F.cross_entropy(net(x[idx]), y[idx])
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(net.parameters(), 2.0)
            scaler.step(optimizer)
            scaler.update()
        net.eval()
        with torch.no_grad():
            val = F.cross_entropy(net(x[1400:]), y[1400:]).item()
        print(f"epoch {epoch}: val {val:.4f} scale {scaler.get_scale():.0f}")
    print("final", val, sum(p.double().sum().item() for p in net.parameters()))


if __name__ == "__main__":
    main()
