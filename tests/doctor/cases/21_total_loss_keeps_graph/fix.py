"""Character model of a dataset description with a GRU."""

import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine
from torch import nn

torch.manual_seed(0)
loaders = load_digits, load_wine, load_iris, load_diabetes, load_breast_cancer
text = "\n".join(load().DESCR for load in loaders).lower()
vocabulary = sorted(set(text))
index = {c: i for i, c in enumerate(vocabulary)}
codes = torch.tensor([index[c] for c in text])
split = int(0.9 * len(codes))
train_codes, val_codes = codes[:split], codes[split:]


class CharGRU(nn.Module):
    def __init__(self, size, hidden=64):
        super().__init__()
        self.embed = nn.Embedding(size, 24)
        self.gru = nn.GRU(24, hidden, batch_first=True)
        self.out = nn.Linear(hidden, size)

    def forward(self, x):
        h, _ = self.gru(self.embed(x))
        return self.out(h)


def windows(source, n, length=24):
    starts = torch.randint(len(source) - length - 1, (n,))
    chunk = torch.stack([source[s : s + length + 1] for s in starts.tolist()])
    return chunk[:, :-1], chunk[:, 1:]


model = CharGRU(len(vocabulary))
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)

for epoch in range(3):
    model.train()
    total_loss = 0.0
    for _ in range(60):
        x, y = windows(train_codes, 16)
        optimizer.zero_grad()
        loss = criterion(model(x).flatten(0, 1), y.flatten())
        loss.backward()
        optimizer.step()
        total_loss += loss.item()
    model.eval()
    with torch.no_grad():
        x, y = windows(val_codes, 64)
        val_loss = criterion(model(x).flatten(0, 1), y.flatten()).item()
    print(f"epoch {epoch}: train {total_loss / 60:.3f} val {val_loss:.3f}")

print("final", val_loss, sum(p.double().sum().item() for p in model.parameters()))
