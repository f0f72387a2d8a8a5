"""Two towers, one for images and one for captions, trained contrastively."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from sklearn.datasets import load_digits

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
LETTERS = {c: i + 1 for i, c in enumerate(sorted(set("".join(WORDS))))}


def encode(word, length=5):
    return [LETTERS[c] for c in word] + [0] * (length - len(word))


class TextTower(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.embed = nn.Embedding(len(LETTERS) + 1, 16, padding_idx=0)
        self.gru = nn.GRU(16, 32, batch_first=True)
        self.proj = nn.Linear(32, dim)

    def forward(self, t):
        return self.proj(self.gru(self.embed(t))[1][0])


class TwoTowers(nn.Module):
    def __init__(self, dim=24):
        super().__init__()
        self.image = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, dim))
        self.text = TextTower(dim)
        self.log_scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, images, tokens):
        a = F.normalize(self.image(images), dim=1)
        b = F.normalize(self.text(tokens), dim=1)
        return self.log_scale.exp() * a @ b.t()


def class_batches(y, rounds):
    """Each batch holds every digit once, so that each caption has one image."""
    groups = [torch.nonzero(y == c)[:, 0] for c in range(10)]
    for _ in range(rounds):
        yield torch.stack([g[torch.randint(len(g), (1,))][0] for g in groups])


torch.manual_seed(0)
data = load_digits()
x, y = torch.tensor(data.data / 16, dtype=torch.float32), torch.tensor(data.target)
captions = torch.tensor([encode(w) for w in WORDS])
model = TwoTowers()
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
labels = torch.arange(10)
for epoch in range(6):
    model.train()
    for idx in class_batches(y[:1400], 60):
        logits = model(x[idx], captions)
        loss = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.t(), labels)) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        scores = model(x[1400:], captions)
        val = F.cross_entropy(scores, y[1400:]).item()
    print(f"epoch {epoch}: {val:.4f} {(scores.argmax(1) == y[1400:]).float().mean().item():.3f}")

print("final", val, sum(p.double().sum().item() for p in model.parameters()))
