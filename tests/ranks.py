"""What tests with several processes share: one job on each rank, and what the ranks found."""

import socket
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import warm

__all__ = ["on_ranks"]


def on_ranks(job: Callable[[int, Any], None], count: int) -> dict[str, Any]:
    """Run a function on gloo processes; return what they put into a dict.

    Args:
        job: called with the rank and the dict; a function of a module.
        count: of processes.
    """
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    with warm.manager() as manager:
        shared = manager.dict()
        warm.on_each(_rank, job, count, port, shared, count=count)
        return dict(shared)


def _rank(rank: int, job: Callable[[int, Any], None], count: int, port: int, found: Any) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=count)
    try:
        job(rank, found)
    finally:
        dist.destroy_process_group()
