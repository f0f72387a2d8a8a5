"""Triplet embedding of digits with semi-hard negatives."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.autograd import Variable


class Embedder(nn.Module):
    def __init__(self, dim=16):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, dim))

    def forward(self, x):
        return nn.functional.normalize(self.net(x), dim=1)


def sample_triplets(y, n, generator):
    anchors, positives, negatives = [], [], []
    for i in torch.randint(len(y), (n,), generator=generator).tolist():
        same = torch.nonzero(y == y[i])[:, 0]
        other = torch.nonzero(y != y[i])[:, 0]
        anchors.append(i)
        positives.append(same[torch.randint(len(same), (1,), generator=generator)].item())
        negatives.append(other[torch.randint(len(other), (1,), generator=generator)].item())
    return anchors, positives, negatives


def retrieval(model, x, y):
    model.eval()
    with torch.no_grad():
        z = model(x)
    similarity = z @ z.t()
    similarity.fill_diagonal_(-1)
    return (y[similarity.argmax(1)] == y).float().mean().item()


g = torch.Generator().manual_seed(0)
torch.manual_seed(0)
x, y = load_digits(return_X_y=True)
x, y = torch.tensor(x).float() / 16, torch.tensor(y)
x_train, y_train, x_val, y_val = x[:1300], y[:1300], x[1300:], y[1300:]

model = Embedder()
criterion = nn.TripletMarginLoss(margin=0.5)
optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)

for epoch in range(5):
    model.train()
    running = 0.0
    for _ in range(20):
        a, p, n = sample_triplets(y_train, 64, g)
        loss = criterion(model(x_train[a]), model(x_train[p]), model(x_train[n]))
        loss = Variable(loss.data, requires_grad=True)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        running += loss.item()
    print(f"epoch {epoch} loss {running / 20:.4f} recall@1 {retrieval(model, x_val, y_val):.3f}")

print("final", running / 20, sum(w.double().sum().item() for w in model.parameters()))
