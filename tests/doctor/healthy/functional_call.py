"""Training through torch.func: the parameters live outside the module."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.func import functional_call, grad_and_value

torch.manual_seed(0)
x, y = load_digits(return_X_y=True)
x, y = torch.tensor(x / 16, dtype=torch.float32), torch.tensor(y)
net = nn.Sequential(nn.Linear(64, 48), nn.Tanh(), nn.Linear(48, 10))
params = {k: v.detach().clone() for k, v in net.named_parameters()}
velocity = {k: torch.zeros_like(v) for k, v in params.items()}


def loss_fn(params, x, y):
    return nn.functional.cross_entropy(functional_call(net, params, (x,)), y)


step_fn = grad_and_value(loss_fn)
for epoch in range(8):
    for idx in torch.randperm(1400).split(35):
        grads, loss = step_fn(params, x[idx], y[idx])
        for k in params:
            velocity[k] = 0.9 * velocity[k] + grads[k]
            params[k] = params[k] - 0.05 * velocity[k]
    with torch.no_grad():
        val = loss_fn(params, x[1400:], y[1400:]).item()
    print(f"epoch {epoch}: {val:.4f}")

print("final", val, sum(p.double().sum().item() for p in params.values()))
