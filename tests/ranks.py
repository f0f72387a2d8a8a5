"""What tests with several processes share: one job on each rank, and what the ranks found."""

import random
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
import torch.distributed as dist
import warm

__all__ = ["free_port", "on_ranks"]


def on_ranks(job: Callable[[int, Any], None], count: int) -> dict[str, Any]:
    """Run a function on gloo processes; return what they put into a dict.

    Args:
        job: called with the rank and the dict; a function of a module.
        count: of processes.
    """
    with warm.manager() as manager:
        shared = manager.dict()
        warm.on_each(_rank, job, count, free_port(), shared, count=count)
        return dict(shared)


def free_port() -> str:
    """Return a port that stays free: systems give connections others, from 32768 or 49152 on."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as s, suppress(OSError):
            s.bind(("127.0.0.1", port))
            return str(port)


def _rank(rank: int, job: Callable[[int, Any], None], count: int, port: str, found: Any) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=count)
    try:
        job(rank, found)
    finally:
        dist.destroy_process_group()
