"""Disease progression from ten baseline variables (regression)."""

import numpy as np
import torch
from sklearn.datasets import load_diabetes

rng = np.random.default_rng(0)
torch.manual_seed(0)

features, target = load_diabetes(return_X_y=True)
features = (features - features.mean(0)) / features.std(0)
target = (target - target.mean()) / target.std()
order = rng.permutation(len(features))
train, val = order[:350], order[350:]

X = torch.from_numpy(features).float()
Y = torch.from_numpy(target).float()

net = torch.nn.Sequential(torch.nn.Linear(10, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))
opt = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)


def mse(prediction, truth):
    return ((prediction - truth) ** 2).mean()


for epoch in range(60):
    for idx in np.array_split(rng.permutation(train), 11):
        idx = torch.from_numpy(idx)
        opt.zero_grad()
        loss = mse(net(X[idx]), Y[idx])
        loss.backward()
        opt.step()
    with torch.no_grad():
        residual = net(X[val])[:, 0] - Y[val]
    if epoch % 10 == 9:
        print(f"epoch {epoch + 1}: train {loss.item():.3f}, val {residual.var().item():.3f}")

weights = torch.nn.utils.parameters_to_vector(net.parameters())
print("final", (residual**2).mean().item(), weights.double().sum().item())
