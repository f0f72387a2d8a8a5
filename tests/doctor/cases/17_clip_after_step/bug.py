"""The adding problem: sum two marked numbers of a sequence with a vanilla RNN."""

import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_


def adding_problem(n, length, generator):
    values = torch.rand(n, length, generator=generator)
    marks = torch.zeros(n, length)
    half = length // 2
    first = torch.randint(half, (n,), generator=generator)
    second = torch.randint(half, (n,), generator=generator) + half
    rows = torch.arange(n)
    marks[rows, first] = 1
    marks[rows, second] = 1
    return torch.stack([values, marks], dim=2), (values * marks).sum(1)


class Adder(nn.Module):
    def __init__(self, hidden=32):
        super().__init__()
        self.rnn = nn.RNN(2, hidden, nonlinearity="relu", batch_first=True)
        nn.init.eye_(self.rnn.weight_hh_l0)
        self.readout = nn.Linear(hidden, 1)

    def forward(self, x):
        hidden, _ = self.rnn(x)
        return self.readout(hidden[:, -1]).squeeze(-1)


g = torch.Generator().manual_seed(0)
torch.manual_seed(0)
x_train, y_train = adding_problem(1280, 10, g)
x_val, y_val = adding_problem(256, 10, g)
model = Adder()
optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
loss_fn = nn.MSELoss()

for epoch in range(16):
    model.train()
    for idx in torch.randperm(len(x_train), generator=g).split(32):
        optimizer.zero_grad()
        loss = loss_fn(model(x_train[idx]), y_train[idx])
        loss.backward()
        optimizer.step()
        clip_grad_norm_(model.parameters(), 1.0)
    model.eval()
    with torch.no_grad():
        val_loss = loss_fn(model(x_val), y_val).item()
    print(f"epoch {epoch}: val mse {val_loss:.5f}")

print("final", val_loss, sum(p.double().sum().item() for p in model.parameters()))
