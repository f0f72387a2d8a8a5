"""Model-agnostic meta-learning of sine waves."""

import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call


def task():
    amplitude, phase = 0.5 + 1.5 * torch.rand(()), math.pi * torch.rand(())

    def draw(n):
        x = 10 * torch.rand(n, 1) - 5
        return x / 5, amplitude * torch.sin(x - phase)

    return draw


def adapt(model, params, x, y, lr=0.2, create_graph=True):
    loss = F.mse_loss(functional_call(model, params, (x,)), y)
    grads = torch.autograd.grad(loss, list(params.values()), create_graph=create_graph)
    return {k: p - lr * g for (k, p), g in zip(params.items(), grads, strict=True)}


def main(steps=160, tasks=6):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(1, 40), nn.Tanh(), nn.Linear(40, 40), nn.Tanh(), nn.Linear(40, 1)
    )
    meta = torch.optim.Adam(model.parameters(), lr=5e-3)
    history = []
    for step in range(steps):
        params = dict(model.named_parameters())
        total = 0.0
        for _ in range(tasks):
            draw = task()
            fast = adapt(model, params, *draw(10))
            x, y = draw(10)
            total = total + F.mse_loss(functional_call(model, fast, (x,)), y)
        meta.zero_grad()
        (total / tasks).backward()
        meta.step()
        history.append(total.item() / tasks)
        if step % 40 == 39:
            print(f"step {step + 1}: after adaptation {sum(history[-40:]) / 40:.4f}")
    checksum = sum(p.double().sum().item() for p in model.parameters())
    print("final", sum(history[-40:]) / 40, checksum)


if __name__ == "__main__":
    main()
