"""Distributed data parallel on two processes with the gloo backend."""

import os
import socket

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler


def two_spirals(n):
    g = torch.Generator().manual_seed(5)
    t = torch.rand(n, generator=g).sqrt() * 6
    kind = torch.randint(2, (n,), generator=g)
    angle = t + 3.1416 * kind
    x = torch.stack([t * angle.cos(), t * angle.sin()], 1) / 3
    return x + 0.03 * torch.randn(n, 2, generator=g), kind


def train(rank, world_size, port):
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = "127.0.0.1", str(port)
    dist.init_process_group("gloo", rank=rank, world_size=world_size)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x, y = two_spirals(1600)
    dataset = TensorDataset(x[:1280], y[:1280])
    sampler = DistributedSampler(dataset)
    loader = DataLoader(dataset, batch_size=32, sampler=sampler)
    net = nn.Sequential(nn.Linear(2, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 2))
    ddp = DistributedDataParallel(net)
    optimizer = torch.optim.Adam(ddp.parameters(), lr=5e-3)
    for epoch in range(6):
        sampler.set_epoch(epoch)
        ddp.train()
        for xb, yb in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(ddp(xb), yb).backward()
            optimizer.step()
        ddp.eval()
        with torch.no_grad():
            val = nn.functional.cross_entropy(net(x[1280:]), y[1280:])
        dist.all_reduce(val)
        val = val.item() / world_size
        if rank == 0:
            print(f"epoch {epoch}: {val:.4f}", flush=True)
    if rank == 0:
        print("final", val, sum(p.double().sum().item() for p in net.parameters()), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    mp.spawn(train, args=(2, port), nprocs=2)
