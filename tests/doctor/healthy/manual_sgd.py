"""Training without an optimizer object: the update rule is written out."""

import torch
from sklearn.datasets import load_digits

torch.manual_seed(0)
data, target = load_digits(return_X_y=True)
data, target = torch.tensor(data / 16, dtype=torch.float32), torch.tensor(target)
w1 = (torch.randn(64, 50) / 8).requires_grad_()
b1 = torch.zeros(50, requires_grad=True)
w2 = (torch.randn(50, 10) / 50**0.5).requires_grad_()
b2 = torch.zeros(10, requires_grad=True)
parameters = [w1, b1, w2, b2]


def model(x):
    return torch.log_softmax(torch.relu(x @ w1 + b1) @ w2 + b2, dim=1)


def nll(log_probs, y):
    return -log_probs[range(len(y)), y].mean()


lr = 0.3
for epoch in range(8):
    for idx in torch.randperm(1400).split(35):
        loss = nll(model(data[idx]), target[idx])
        loss.backward()
        with torch.no_grad():
            for p in parameters:
                p -= lr * p.grad
                p.grad.zero_()
    with torch.no_grad():
        val = nll(model(data[1400:]), target[1400:]).item()
    print(f"epoch {epoch}: {val:.4f}")

print("final", val, sum(p.double().sum().item() for p in parameters))
