"""Matrix factorisation with sparse embedding gradients and SparseAdam."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Factorisation(nn.Module):
    def __init__(self, users, items, dim=8):
        super().__init__()
        self.users = nn.Embedding(users, dim, sparse=True)
        self.items = nn.Embedding(items, dim, sparse=True)
        for table in (self.users, self.items):
            nn.init.normal_(table.weight, std=0.3)

    def forward(self, u, i):
        return (self.users(u) * self.items(i)).sum(dim=1)


torch.manual_seed(0)
true_users, true_items = torch.randn(120, 4), torch.randn(80, 4)
u, i = torch.randint(120, (6000,)), torch.randint(80, (6000,))
rating = (true_users[u] * true_items[i]).sum(1) / 2 + 0.1 * torch.randn(6000)
pairs = u * 80 + i
seen = torch.zeros(120 * 80, dtype=torch.bool)
seen[pairs[:5000]] = True
held = torch.arange(5000, 6000)
held = held[~seen[pairs[5000:]]]
loader = DataLoader(TensorDataset(u[:5000], i[:5000], rating[:5000]), batch_size=100, shuffle=True)
model = Factorisation(120, 80)
optimizer = torch.optim.SparseAdam(list(model.parameters()), lr=1e-2)
for epoch in range(8):
    model.train()
    for ub, ib, rb in loader:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(ub, ib), rb)
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        val = nn.functional.mse_loss(model(u[held], i[held]), rating[held]).item()
    print(f"epoch {epoch}: {val:.4f}")

print("final", val, sum(p.double().sum().item() for p in model.parameters()))
