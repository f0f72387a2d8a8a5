"""Two processes train one autoencoder-like regressor over gloo."""

import os
import socket

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel


class Regressor(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 1))

    def forward(self, x):
        return self.net(x)

    def loss(self, x, y):
        return ((self(x)[:, 0] - y) ** 2).mean()


def make(n, seed):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 8, generator=g)
    return x, torch.sin(x[:, 0]) + 0.5 * x[:, 1] * x[:, 2]


def run(rank, world_size, port):
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    os.environ["MASTER_PORT"] = str(port)
    dist.init_process_group("gloo", rank=rank, world_size=world_size)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x, y = make(640, seed=10 + rank)
    x_val, y_val = make(256, seed=99)
    model = DistributedDataParallel(Regressor())
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for epoch in range(5):
        model.train()
        for idx in torch.randperm(len(x)).split(20):
            optimizer.zero_grad()
            loss = model.module.loss(x[idx], y[idx])
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            val = model.module.loss(x_val, y_val).item()
        print(f"rank {rank} epoch {epoch}: val {val:.5f}", flush=True)
    checksum = torch.tensor([sum(p.double().sum().item() for p in model.parameters())])
    gathered = [torch.zeros(1) for _ in range(world_size)]
    dist.all_gather(gathered, checksum.float())
    if rank == 0:
        print("checksums", [c.item() for c in gathered], flush=True)
        print("final", val, checksum.item(), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    mp.spawn(run, args=(2, port), nprocs=2)
