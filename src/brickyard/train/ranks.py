"""One process among several: who shares a batch, adds up what was measured, and agrees to stop.

``torchrun --nproc-per-node N -m brickyard train RECIPE`` starts the processes; PyTorch's own
engine does the rest: DistributedDataParallel, or ``fully_shard`` with DTensors.

A recipe's ``batch_size`` is that of the whole step, over all processes, so that schedules, epochs
and checkpoints mean the same with any number of them. Every process takes its part of each batch;
losses are weighted by what the parts hold, so the step is that of one process with the whole batch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from brickyard.errors import RecipeError
from brickyard.train.batch_norms import join_batch_norms, part_batch_norms
from brickyard.train.closure import needs_closure
from brickyard.train.data import Batches, mix_seed
from brickyard.train.tasks import Task
from brickyard.train.weighing import apart

if TYPE_CHECKING:
    from brickyard.train.setup import Setup

__all__ = ["Ranks", "started"]

Batch = tuple[Tensor, Tensor]
#: What sends tensors of an accelerator; gloo sends those of the CPU, such as metrics' states.
BACKENDS = {"cuda": "nccl", "xpu": "xccl"}


def started() -> bool:
    """Say whether this is one of several processes that torchrun started."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


class Ranks:
    """Stand for the processes of a run, seen from one of them.

    Args:
        how: ``"ddp"``: everybody holds the whole model; ``"fsdp"``: everybody holds a part of it.
        device: ``"auto"`` takes the accelerator with this process's number.
    """

    def __init__(self, how: str, device: str):
        if ":" in device:
            raise RecipeError(
                f"device: {device} is one device, and {os.environ['WORLD_SIZE']} processes train; "
                f"take {device.partition(':')[0]}: each process takes the one with its number"
            )
        kind = _accelerator(device)
        self.local = int(os.environ.get("LOCAL_RANK", os.environ.get("RANK", "0")))
        if kind in BACKENDS and self.local < torch.accelerator.device_count():
            torch.accelerator.set_device_index(self.local)  # or all send objects through the first
        if not dist.is_initialized():
            backend = f"cpu:gloo,{kind}:{BACKENDS[kind]}" if kind in BACKENDS else "gloo"
            dist.init_process_group(backend, timeout=timedelta(minutes=10))
        self.how, self._kind = how, kind if kind in BACKENDS else "cpu"
        self.rank, self.count = dist.get_rank(), dist.get_world_size()
        self.leads = self.rank == 0
        self.forward: nn.Module = nn.Identity()  # until ``wrap``
        self.sharded = how == "fsdp"

    # --- Building ---------------------------------------------------------------------------------

    def device(self, name: str) -> str:
        """Return the recipe's device, or this process's own of several accelerators."""
        kind = _accelerator(name)
        return name if kind == "cpu" else f"{kind}:{self.local}"

    def shard(self, model: nn.Module) -> nn.Module:
        """Return the model with its parameters cut over the processes, for ``"fsdp"``.

        Blocks that occur several times in a row (those of a ``Sequential`` or ``ModuleList``) are
        cut each, so that only one of them is whole at a time; the rest belongs to the model.
        """
        if not self.sharded:
            return model
        formats = {p.dtype for p in model.parameters()}
        if len(formats) > 1:
            raise RecipeError(
                f"distributed: fsdp keeps the weights of a block in one format; the model has "
                f"{' and '.join(sorted(map(str, formats)))}: take precision: bf16, whose weights "
                "are fp32, or distributed: ddp"
            )
        kind = next(model.parameters()).device.type
        mesh = init_device_mesh(kind, (self.count,))
        for p in model.parameters():  # those of convolutions may have channels last
            p.data = p.data.contiguous()
        for module in model.modules():
            if isinstance(module, nn.ModuleList) or (
                isinstance(module, nn.Sequential) and module is not model
            ):
                for block in module:
                    if list(block.children()) and any(True for _ in block.parameters()):
                        fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
        return model

    def wrap(self, model: nn.Module, task: Task) -> None:
        """Make training's forward pass one that adds gradients up over the processes.

        Args:
            model: the network.
            task: knows how it is used.

        Raises:
            RecipeError: the task does more than one forward pass can stand for.
        """
        if type(task).prepare is not Task.prepare or task.state_dict():
            raise RecipeError(
                f"task: {task.name} takes steps or keeps data of its own, which several processes "
                "do not share; train it with one process"
            )
        whole = _Whole(model, task)
        if self.sharded:
            self.forward = whole
            return
        self.forward = DistributedDataParallel(whole) if _trains(model) else whole

    def join(self, setup: Setup) -> None:
        """Let a built run be one process's part of it.

        Args:
            setup: the run, as one process would train it; the model is cut already.

        Raises:
            RecipeError: something in the recipe acts on one process alone.
        """
        parts = setup.parts
        self._check(setup)
        if setup.recipe.sync_batch_norm and join_batch_norms(parts.model):
            self._check_graph(setup.recipe.compile)
        setup.findings += apart(setup.recipe, parts.model, self.count)
        self.wrap(parts.model, setup.task)
        self.settle()
        parts.ranks, parts.train = self, self.share(parts.train)
        setup.evaluator.ranks = self
        setup.evaluator.batches = self.share(setup.evaluator.batches)
        if self.rank:  # what is drawn in training, such as dropout, differs
            torch.manual_seed(mix_seed(setup.recipe.seed, self.rank))

    def _check(self, setup: Setup) -> None:
        parts, cut = setup.parts, self.sharded
        alone = {
            "adversarial training": parts.adversary is not None,
            f"{setup.recipe.optimizer.label}'s estimate of the curvature": bool(parts.curvature),
            "an optimizer that asks for gradients by itself": needs_closure(parts.optimizer),
            "manifold_mixup": any(
                one.name == "manifold_mixup" for one in setup.recipe.augmentation
            ),
            "precision: fp16, with fsdp": cut and parts.scaler is not None,
            "a penalty on the weights, with fsdp": cut and bool(parts.penalties),
            "a constraint on the weights, with fsdp": cut and bool(parts.constraints),
            "swa, with fsdp": cut and getattr(parts.average, "recalibrates", False),
            "a snapshot ensemble, with fsdp": cut and parts.snapshots is not None,
        }
        found = [what for what, there in alone.items() if there]
        if found:
            raise RecipeError(
                f"{found[0]} acts on one process alone, so that {self.count} processes would "
                "drift apart; leave it out, or train with one process"
            )

    def _check_graph(self, options: Any) -> None:
        if isinstance(options, Mapping) and options.get("fullgraph"):
            raise RecipeError(
                "compile: fullgraph leaves no room for what batch norms send to other processes; "
                "leave it out, or set sync_batch_norm: false"
            )

    def quiet(self, quiet: bool) -> None:
        """Let the coming backward pass keep its gradients here: a step's last one sends them all.

        Args:
            quiet: whether more batches of the step follow.
        """
        if self.sharded:
            for module in self.forward.modules():
                if isinstance(module, FSDPModule):
                    module.set_requires_gradient_sync(not quiet, recurse=False)
        elif isinstance(self.forward, DistributedDataParallel):
            self.forward.require_backward_grad_sync = not quiet

    def level(self, model: nn.Module) -> None:
        """Give everybody the first process's buffers: running statistics differ by the parts.

        Args:
            model: about to be evaluated; every process must call it.
        """
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)

    def settle(self) -> None:
        """Cut the model again after forward passes that no backward pass followed."""
        for module in self.forward.modules():
            if isinstance(module, FSDPModule):
                module.reshard()

    def share(self, batches: Batches) -> Batches:
        """Return batches that hold this process's part.

        Args:
            batches: of the whole run.
        """
        return _Part(batches, self)

    def full(self, batches: Batches, number: int) -> Iterator[Batch]:
        """Return an epoch's batches that are as large as the first; all agree on which these are.

        Args:
            batches: as :meth:`share` returned them.
            number: the epoch.
        """
        part: Any = batches
        while not isinstance(part, _Part):  # a profile, of steps and not of this
            part = part.inner
        size = 0
        for pair in part.epoch(number):
            size = size or part.size
            if part.size == size:
                yield pair

    def part(self, count: int) -> slice:
        """Return which samples of a batch are this process's.

        A batch with fewer samples than processes goes to everybody, which weights it the same.

        Args:
            count: samples in the whole batch.
        """
        return slice(None) if count < self.count else slice(self.rank, None, self.count)

    # --- Agreeing ---------------------------------------------------------------------------------

    def agree(
        self, window: Sequence[Batch], weigh: Callable[[Tensor], float], sums: bool, stop: bool
    ) -> tuple[float, bool]:
        """Return what this process's losses are divided by, and whether anybody was asked to stop.

        Gradients are averaged over the processes, so each divides by the mean weight of the parts:
        losses that are means count by what they hold, those that are sums count as they are.

        Args:
            window: this process's parts of the step's batches.
            weigh: what a part counts: samples, or tokens.
            sums: whether the loss is a sum.
            stop: whether this process was asked to stop.
        """
        weight = 1.0 if sums else sum(weigh(y) for _, y in window)
        total, asked = self._summed([weight, float(stop)])
        return (1 / self.count if sums else total / self.count), asked > 0

    def mean(self, values: Sequence[float]) -> list[float]:
        """Return each number's mean over the processes; not a number where one is not."""
        return [value / self.count for value in self._summed(values)]

    def total(self, values: Sequence[float]) -> list[float]:
        """Return each number's sum over the processes."""
        return self._summed(values)

    def decide(self, value: Any) -> Any:
        """Return the first process's value to all."""
        held = [value]
        dist.broadcast_object_list(held, src=0)
        return held[0]

    def gather(self, value: Any) -> list[Any]:
        """Return all processes' values, by rank."""
        found: list[Any] = [None] * self.count
        dist.all_gather_object(found, value)
        return found

    def _summed(self, values: Sequence[float]) -> list[float]:
        tensor = torch.tensor(list(values), dtype=torch.float64, device=self._device())
        dist.all_reduce(tensor)
        return tensor.tolist()

    def _device(self) -> torch.device:
        return torch.device(self._kind, self.local) if self._kind != "cpu" else torch.device("cpu")

    # --- Checkpoints and the end ------------------------------------------------------------------

    def whole(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return a model's state with whole tensors; every process must call it.

        Args:
            state: what ``state_dict`` of the sharded model returned.
        """
        return {name: value.full_tensor() if isinstance(value, DTensor) else value
                for name, value in state.items()}  # fmt: skip

    def leave(self) -> None:
        """Wait for everybody, and end the processes' group."""
        dist.barrier()
        part_batch_norms(self.forward)
        dist.destroy_process_group()


class _Whole(nn.Module):
    """Make one forward pass of a model and its task's use of it."""

    def __init__(self, model: nn.Module, task: Task):
        super().__init__()
        self.model = model
        self.task = task

    def forward(self, x: Tensor) -> Any:
        return self.task.forward(self.model, x)


class _Part:
    """Give out one process's part of every batch.

    ``size`` is that of the latest one as a whole, and ``counts`` says whether measuring counts it
    here: one with fewer samples than processes goes to all of them, and the first one measures it.
    """

    def __init__(self, inner: Batches, ranks: Ranks):
        self.inner, self._ranks, self.counts, self.size = inner, ranks, True, 0

    def __len__(self) -> int:
        return len(self.inner)

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        ranks = self._ranks
        for x, y in self.inner.epoch(number, start=start):
            self.size = len(y)
            self.counts = len(y) >= ranks.count or ranks.leads
            mine = ranks.part(len(y))
            yield x[mine], y[mine]


def _accelerator(device: str) -> str:
    if device != "auto":
        return torch.device(device).type
    found = torch.accelerator.current_accelerator(check_available=True)
    return found.type if found is not None else "cpu"


def _trains(model: nn.Module) -> bool:
    return any(p.requires_grad for p in model.parameters())
