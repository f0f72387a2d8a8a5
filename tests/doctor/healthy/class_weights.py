"""Imbalanced classes: weights in the loss, F1 for validation."""

import torch
from sklearn.datasets import make_classification
from sklearn.metrics import f1_score
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
x, y = make_classification(
    2000, 12, n_informative=6, n_classes=3, weights=[0.85, 0.1, 0.05], class_sep=1.5, random_state=0
)
x = torch.tensor((x - x.mean(0)) / x.std(0), dtype=torch.float32)
y = torch.tensor(y)
counts = torch.bincount(y[:1500])
weights = counts.sum() / (len(counts) * counts)
criterion = nn.CrossEntropyLoss(weight=weights)
loader = DataLoader(TensorDataset(x[:1500], y[:1500]), batch_size=50, shuffle=True)
model = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 3))
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
for epoch in range(10):
    model.train()
    for xb, yb in loader:
        optimizer.zero_grad()
        criterion(model(xb), yb).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        logits = model(x[1500:])
        val = criterion(logits, y[1500:]).item()
    f1 = f1_score(y[1500:], logits.argmax(1), average="macro")
    print(f"epoch {epoch}: val {val:.4f} macro F1 {f1:.3f}")

print("final", val, sum(p.double().sum().item() for p in model.parameters()))
