"""Survival times with censoring: Cox partial likelihood over each batch."""

import torch
from torch import nn

torch.manual_seed(0)


def cohort(n):
    x = torch.randn(n, 8)
    risk = 0.8 * x[:, 0] - 0.6 * x[:, 1] + 0.5 * x[:, 2] ** 2
    time = -torch.log(torch.rand(n)) / torch.exp(risk)
    limit = 3 * torch.rand(n)
    return x, torch.minimum(time, limit), (time <= limit).float()


def cox_loss(score, time, event):
    order = torch.argsort(time, descending=True)
    score, event = score[order], event[order]
    return -((score - torch.logcumsumexp(score, dim=0)) * event).sum() / event.sum()


def concordance(score, time, event):
    earlier = (time[:, None] < time[None, :]) & (event[:, None] == 1)
    return (score[:, None] > score[None, :])[earlier].float().mean().item()


x, time, event = cohort(1600)
model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
for epoch in range(8):
    model.train()
    for idx in torch.randperm(1280).split(64):
        optimizer.zero_grad()
        cox_loss(model(x[idx]).squeeze(1), time[idx], event[idx]).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        score = model(x[1280:]).squeeze(1)
        val = cox_loss(score, time[1280:], event[1280:]).item()
        c = concordance(score, time[1280:], event[1280:])
    print(f"epoch {epoch}: {val:.4f} concordance {c:.3f}")

print("final", val, sum(p.double().sum().item() for p in model.parameters()))
