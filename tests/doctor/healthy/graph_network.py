"""Node classification with a graph convolution: one graph, full batch, masks."""

import torch
from torch import nn
from torch.nn import functional as F


def community_graph(nodes, classes, generator):
    y = torch.randint(classes, (nodes,), generator=generator)
    same = y[:, None] == y[None, :]
    chance = torch.where(same, torch.tensor(0.06), torch.tensor(0.01))
    upper = torch.rand(nodes, nodes, generator=generator).triu(1)
    edges = ((upper > 0) & (upper < chance)).nonzero().t()
    edges = torch.cat([edges, edges.flip(0), torch.arange(nodes).repeat(2, 1)], dim=1)
    x = F.one_hot(y, classes).float() + 1.2 * torch.randn(nodes, classes, generator=generator)
    return x, edges, y


class GraphConv(nn.Module):
    def __init__(self, i, o):
        super().__init__()
        self.linear = nn.Linear(i, o)

    def forward(self, x, edges):
        source, sink = edges
        degree = torch.zeros(len(x)).scatter_add(0, sink, torch.ones(len(sink)))
        weight = (degree[source] * degree[sink]).rsqrt()
        h = self.linear(x)
        return torch.zeros_like(h).index_add(0, sink, weight[:, None] * h[source])


class GCN(nn.Module):
    def __init__(self, i, hidden, classes):
        super().__init__()
        self.first, self.second = GraphConv(i, hidden), GraphConv(hidden, classes)

    def forward(self, x, edges):
        x = F.dropout(F.relu(self.first(x, edges)), 0.3, training=self.training)
        return self.second(x, edges)


g = torch.Generator().manual_seed(0)
torch.manual_seed(0)
x, edges, y = community_graph(400, 5, g)
train = torch.rand(400, generator=g) < 0.4
model = GCN(5, 24, 5)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, weight_decay=5e-4)
for epoch in range(120):
    model.train()
    optimizer.zero_grad()
    F.cross_entropy(model(x, edges)[train], y[train]).backward()
    optimizer.step()
    if epoch % 20 == 19:
        model.eval()
        with torch.no_grad():
            out = model(x, edges)[~train]
        val = F.cross_entropy(out, y[~train]).item()
        print(f"{epoch + 1}: {val:.4f} {(out.argmax(1) == y[~train]).float().mean().item():.3f}")

print("final", val, sum(p.double().sum().item() for p in model.parameters()))
