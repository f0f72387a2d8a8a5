"""Data-parallel training of two processes on one machine."""

import os
import socket

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def blobs(n, generator):
    """Draw points around eight centres in sixteen dimensions."""
    centres = 1.2 * torch.randn(8, 16, generator=generator)
    y = torch.randint(8, (n,), generator=generator)
    return centres[y] + torch.randn(n, 16, generator=generator), y


def worker(rank, world, port):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=world)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    x, y = blobs(1600, torch.Generator().manual_seed(1))
    train = TensorDataset(x[:1400], y[:1400])
    sampler = DistributedSampler(train, num_replicas=world, rank=rank)
    loader = DataLoader(train, batch_size=32, sampler=sampler)
    net = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 8))
    model = DistributedDataParallel(net)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    loss_fn = nn.CrossEntropyLoss()
    for epoch in range(4):
        sampler.set_epoch(epoch)
        model.train()
        for xb, yb in loader:
            optimizer.zero_grad()
            loss = loss_fn(model(xb), yb)
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            val_loss = loss_fn(net(x[1400:]), y[1400:]).item()
        if rank == 0:
            print(f"epoch {epoch}: val {val_loss:.4f}", flush=True)
    if rank == 0:
        checksum = sum(p.double().sum().item() for p in net.parameters())
        print("final", val_loss, checksum, flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    mp.spawn(worker, args=(2, free_port()), nprocs=2)
