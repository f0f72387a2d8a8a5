"""Differentially private SGD: clip each example's gradient, add noise."""

import torch
import torch.nn as nn
from sklearn.datasets import load_breast_cancer
from torch.func import functional_call, grad, vmap

torch.manual_seed(0)
x, y = load_breast_cancer(return_X_y=True)
x = torch.tensor((x - x.mean(0)) / x.std(0), dtype=torch.float32)
y = torch.tensor(y)
order = torch.randperm(len(x))
x, y = x[order], y[order]
model = nn.Sequential(nn.Linear(30, 16), nn.ReLU(), nn.Linear(16, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=0.5)


def example_loss(params, example, label):
    logits = functional_call(model, params, (example.unsqueeze(0),))
    return nn.functional.cross_entropy(logits, label.unsqueeze(0))


example_grads = vmap(grad(example_loss), in_dims=(None, 0, 0))
clip, sigma = 1.0, 0.3
for epoch in range(8):
    for idx in torch.randperm(450).split(45):
        params = {k: v.detach() for k, v in model.named_parameters()}
        grads = example_grads(params, x[idx], y[idx])
        norms = torch.stack([g.flatten(1).norm(dim=1) for g in grads.values()]).norm(dim=0)
        factor = (clip / (norms + 1e-6)).clamp(max=1)
        for name, p in model.named_parameters():
            total = torch.einsum("b,b...->...", factor, grads[name])
            p.grad = (total + sigma * clip * torch.randn_like(p)) / len(idx)
        optimizer.step()
    with torch.no_grad():
        val = nn.functional.cross_entropy(model(x[450:]), y[450:]).item()
    print(f"epoch {epoch}: {val:.4f}")

print("final", val, sum(p.double().sum().item() for p in model.parameters()))
