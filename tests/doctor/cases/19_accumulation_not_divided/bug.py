"""Large effective batches by accumulating eight small ones."""

import torch
import torch.nn as nn
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(9)
ACCUMULATION = 8

digits = load_digits()
images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
labels = torch.tensor(digits.target)
train = DataLoader(TensorDataset(images[:1408], labels[:1408]), batch_size=16, shuffle=True)
val = DataLoader(TensorDataset(images[1408:], labels[1408:]), batch_size=389)

model = nn.Sequential(
    nn.Conv2d(1, 16, 3),
    nn.ReLU(),
    nn.Conv2d(16, 16, 3),
    nn.ReLU(),
    nn.Flatten(),
    nn.Linear(256, 10),
)
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)

for epoch in range(10):
    model.train()
    optimizer.zero_grad()
    for step, (x, y) in enumerate(train, start=1):
        loss = criterion(model(x), y)
        loss.backward()
        if step % ACCUMULATION == 0:
            optimizer.step()
            optimizer.zero_grad()
    model.eval()
    with torch.no_grad():
        x, y = next(iter(val))
        val_loss = criterion(model(x), y).item()
    print(f"epoch {epoch}: val loss {val_loss:.4f}")

print("final", val_loss, sum(p.double().sum().item() for p in model.parameters()))
