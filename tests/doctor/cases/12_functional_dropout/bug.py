"""Wine varieties from chemical analysis."""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split


class WineNet(torch.nn.Module):
    def __init__(self, inputs=13, hidden=64, classes=3, p=0.5):
        super().__init__()
        self.p = p
        self.a = torch.nn.Linear(inputs, hidden)
        self.b = torch.nn.Linear(hidden, hidden)
        self.c = torch.nn.Linear(hidden, classes)

    def forward(self, x):
        x = F.dropout(F.relu(self.a(x)), self.p)
        x = F.dropout(F.relu(self.b(x)), self.p)
        return self.c(x)


torch.manual_seed(0)
x, y = load_wine(return_X_y=True)
x = (x - x.mean(0)) / x.std(0)
parts = train_test_split(x, y, test_size=0.3, random_state=0, stratify=y)
x_train, x_val = (torch.tensor(a, dtype=torch.float32) for a in parts[:2])
y_train, y_val = (torch.tensor(a) for a in parts[2:])

model = WineNet()
optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3)
history = []
for epoch in range(50):
    model.train()
    for idx in torch.randperm(len(x_train)).split(16):
        optimizer.zero_grad()
        F.cross_entropy(model(x_train[idx]), y_train[idx]).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        logits = model(x_val)
    history.append(F.cross_entropy(logits, y_val).item())
    if epoch % 10 == 9:
        print(f"epoch {epoch + 1}: val loss {history[-1]:.4f}")

print("final", sum(history[-10:]) / 10, sum(p.double().sum().item() for p in model.parameters()))
