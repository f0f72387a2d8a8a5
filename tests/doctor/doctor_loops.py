"""Tiny training loops, right and wrong, for the tests of single checks."""

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

STEPS = 8


def data(rows=256, columns=8, classes=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, columns, generator=g)
    y = (x[:, :classes]).argmax(1)
    return x, y


def mlp(inputs=8, hidden=16, outputs=4, *middle):
    return nn.Sequential(nn.Linear(inputs, hidden), *middle, nn.ReLU(), nn.Linear(hidden, outputs))


def fit(model, loss, params=None, *, steps=STEPS, lr=0.05, xy=None, zero=True, rows=32,
        optimizer=None, calls=(None, None)):  # fmt: skip
    """Train for some steps; ``calls`` run before the step and behind it."""
    x, y = xy or data()
    optimizer = optimizer or torch.optim.SGD(params or model.parameters(), lr=lr)
    for i in range(steps):
        at = torch.arange(i * rows, (i + 1) * rows) % len(x)
        if zero:
            optimizer.zero_grad()
        loss(model(x[at]), y[at]).backward()
        if calls[0]:
            calls[0](optimizer)
        optimizer.step()
        if calls[1]:
            calls[1](optimizer)
    return optimizer


def loader(x, y, **options):
    return DataLoader(TensorDataset(x, y), **{"batch_size": 32, "shuffle": True, **options})


def epochs(model, batches, count=2, lr=0.05, evaluate=None, optimizer=None, scheduler=None,
           per_step=False):  # fmt: skip
    """Train for some epochs, evaluating after each."""
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=lr)
    for _ in range(count):
        model.train()
        for x, y in batches:
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            if scheduler and per_step:
                scheduler.step()
        if scheduler and not per_step:
            scheduler.step()
        if evaluate:
            evaluate(model)
    return optimizer


def closed(forward_twice=False):
    """Return a head and a body that no optimizer knows of, in a list."""

    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = [nn.Linear(8, 8), nn.Linear(8, 8)]
            self.head = nn.Linear(8, 4)

        def forward(self, x):
            for block in self.blocks:
                x = block(x).relu()
            return self.head(x)

    return Hidden()


class Tokens(nn.Module):
    """Attend over all tokens or over earlier ones."""

    def __init__(self, causal):
        super().__init__()
        self.embed = nn.Embedding(12, 16)
        self.head = nn.Linear(16, 12)
        self.causal = causal

    def forward(self, x):
        h = self.embed(x).unsqueeze(1)
        h = h + F.scaled_dot_product_attention(h, h, h, is_causal=self.causal)
        return self.head(h.squeeze(1))


def language(causal, shift, pad=0):
    x = torch.randint(1, 12, (64, 12), generator=torch.Generator().manual_seed(1))
    if pad:
        for i in range(64):
            x[i, 10 - i % 5 :] = 0
    y = x[:, shift : shift + 9].clone()
    if pad > 1:
        y[y == 0] = -100

    def loss(out, target):
        return F.cross_entropy(out.flatten(0, 1), target.flatten())

    fit(Tokens(causal), loss, rows=16, xy=(x[:, :9], y))


def noise(fixed):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(8, 4)

        def forward(self, x):
            if fixed:
                return self.fc(F.dropout(x, 0.5, training=self.training))
            return self.fc(F.dropout(x, 0.5))

    fit(Net(), F.cross_entropy)
