"""Fine-tune a network trained on the digits 0-4 to tell 5-9 apart."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from sklearn.datasets import load_digits


class Classifier(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 24), nn.ReLU())
        self.head = nn.Linear(24, classes)

    def forward(self, x):
        return self.head(self.body(x))


def fit(model, optimizer, x, y, epochs):
    for _ in range(epochs):
        for pick in torch.randperm(len(x)).split(32):
            loss = F.cross_entropy(model(x[pick]), y[pick])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


@torch.no_grad()
def score(model, x, y):
    logits = model(x)
    return F.cross_entropy(logits, y).item(), (logits.argmax(1) == y).float().mean().item()


torch.manual_seed(0)
x, y = load_digits(return_X_y=True)
x, y = torch.tensor(x, dtype=torch.float32) / 16, torch.tensor(y)

model = Classifier(5)
low = y < 5
fit(model, torch.optim.Adam(model.parameters(), lr=2e-3), x[low], y[low], epochs=5)
print("pretrained:", score(model, x[low], y[low]))

high_x, high_y = x[~low], y[~low] - 5
train_x, val_x, train_y, val_y = high_x[:700], high_x[700:], high_y[:700], high_y[700:]
model.head = nn.Linear(24, 5)
optimizer = torch.optim.SGD(model.parameters(), lr=0.005)
for round_ in range(8):
    fit(model, optimizer, train_x, train_y, epochs=3)
    loss, acc = score(model, val_x, val_y)
    print(f"round {round_}: loss {loss:.4f} acc {acc:.3f}")

print("final", loss, sum(p.double().sum().item() for p in model.parameters()))
