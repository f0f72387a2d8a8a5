"""Label smoothing with a bidirectional GRU over the rows of a digit."""

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class BiGRU(nn.Module):
    def __init__(self, hidden=32):
        super().__init__()
        self.gru = nn.GRU(8, hidden, batch_first=True, bidirectional=True)
        self.drop = nn.Dropout(0.2)
        self.fc = nn.Linear(2 * hidden, 10)

    def forward(self, x):
        output, _ = self.gru(x)
        return self.fc(self.drop(output.mean(dim=1)))


torch.manual_seed(0)
digits = load_digits()
xt, xv, yt, yv = train_test_split(digits.images / 16, digits.target, test_size=300, random_state=0)
xt, xv = torch.tensor(xt, dtype=torch.float32), torch.tensor(xv, dtype=torch.float32)
yt, yv = torch.tensor(yt), torch.tensor(yv)
model = BiGRU()
train_criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
val_criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
for epoch in range(6):
    model.train()
    for xb, yb in DataLoader(TensorDataset(xt, yt), batch_size=40, shuffle=True):
        optimizer.zero_grad()
        train_criterion(model(xb), yb).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        val = val_criterion(model(xv), yv).item()
    print(f"epoch {epoch}: {val:.4f}")

print("final", val, sum(p.double().sum().item() for p in model.parameters()))
