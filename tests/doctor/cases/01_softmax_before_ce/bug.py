"""Handwritten digits with a small fully connected network."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)


class Net(nn.Module):
    def __init__(self, hidden=64, classes=10):
        super().__init__()
        self.fc1 = nn.Linear(64, hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, classes)

    def forward(self, x):
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return F.softmax(self.out(x), dim=1)


data = load_digits()
x = torch.tensor(data.data, dtype=torch.float32) / 16
y = torch.tensor(data.target)
x_train, x_val, y_train, y_val = train_test_split(x, y, test_size=0.2, random_state=0)
train_loader = DataLoader(TensorDataset(x_train, y_train), batch_size=32, shuffle=True)
val_loader = DataLoader(TensorDataset(x_val, y_val), batch_size=128)

model = Net()
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

for epoch in range(12):
    model.train()
    for images, labels in train_loader:
        optimizer.zero_grad()
        loss = criterion(model(images), labels)
        loss.backward()
        optimizer.step()

    model.eval()
    total, correct = 0.0, 0
    with torch.no_grad():
        for images, labels in val_loader:
            scores = model(images)
            total += criterion(scores, labels).item() * len(labels)
            correct += (scores.argmax(1) == labels).sum().item()
    print(f"epoch {epoch}: val loss {total / len(x_val):.4f}, acc {correct / len(x_val):.3f}")

print("final", total / len(x_val), sum(p.double().sum().item() for p in model.parameters()))
