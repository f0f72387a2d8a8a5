"""Batch norms of several processes that normalize by the whole batch, not by each one's part."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

__all__ = ["join_batch_norms", "joined", "part_batch_norms"]


class _Joined(nn.modules.batchnorm._BatchNorm):
    """Share statistics while training; evaluate as the parent does."""

    #: Set when layers are joined; the doctor knows them by it.
    normalized: Callable[..., Any]

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        self._check_input_dim(input)
        output, mean, var, count = self.normalized(input, self.weight, self.bias, self.eps)
        if self.track_running_stats:
            self._follow(mean, var * (count / (count - 1)))
        return output

    @torch.no_grad()
    def _follow(self, mean: Tensor, var: Tensor) -> None:
        """Take a step of the running statistics: of a mean over all when there is no momentum."""
        state: Any = self
        state.num_batches_tracked += 1
        share = 1 / state.num_batches_tracked if self.momentum is None else self.momentum
        for running, found in ((state.running_mean, mean), (state.running_var, var)):
            running.lerp_(found.to(running.dtype), share)


class _Joined1d(_Joined, nn.BatchNorm1d):
    pass


class _Joined2d(_Joined, nn.BatchNorm2d):
    pass


class _Joined3d(_Joined, nn.BatchNorm3d):
    pass


_OF = {nn.BatchNorm1d: _Joined1d, nn.BatchNorm2d: _Joined2d, nn.BatchNorm3d: _Joined3d}
for _plain, _joint in _OF.items():  # what reports and findings call them
    _joint.__name__ = _joint.__qualname__ = _plain.__name__


def join_batch_norms(model: nn.Module) -> bool:
    """Let torch's batch norms normalize by what all processes hold, in training.

    Outputs, gradients and running statistics become those of one process with the whole batch
    (with a batch that all processes have as a whole, the running variances' n / (n - 1) counts it
    several times). In training, every process must call the model as often as the others. A
    forward pass sends two numbers a channel and their count, a backward pass two more. torch's
    ``SyncBatchNorm`` does the same on accelerators and refuses the CPU.

    Args:
        model: changed in place: names, parameters and buffers stay, layers get another class.
            Classes of one's own are left alone.

    Returns:
        Whether there was any.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        >>> join_batch_norms(model)
        True
        >>> joined(model[1]), list(model.state_dict())[2:4]
        (True, ['1.weight', '1.bias'])

    Reference:
        Peng et al., "MegDet: A Large Mini-Batch Object Detector", CVPR 2018, section 3.2; means
        and variances of parts are joined as in Chan, Golub, LeVeque, "Updating Formulae and a
        Pairwise Algorithm for Computing Sample Variances", 1979, eq. 2.1.
    """
    # Here, since it imports torch's compiler, which one process alone may never need.
    _Joined.normalized = staticmethod(torch.compiler.disable(_Normalize.apply))
    found = [module for module in model.modules() if type(module) in _OF]
    for module in found:
        module.__class__ = _OF[type(module)]
    return bool(found)


def part_batch_norms(model: nn.Module) -> None:
    """Make joined batch norms torch's own again, when there are no other processes any more.

    Args:
        model: changed in place.
    """
    plain = {joint: kind for kind, joint in _OF.items()}
    for module in model.modules():
        if type(module) in plain:
            module.__class__ = plain[type(module)]


def joined(module: nn.Module) -> bool:
    """Say whether a module normalizes by the whole batch of several processes."""
    return isinstance(module, _Joined)


class _Normalize(torch.autograd.Function):
    """Normalize by mean and variance over all processes, and send gradients through both."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, ...]:
        dims = [i for i in range(x.ndim) if i != 1]
        var, mean = torch.var_mean(_wide(x), dims, correction=0)
        mean, var, count = _over_all(mean, var, x.numel() // x.shape[1])
        kind = mean.dtype if weight is None else weight.dtype
        y = F.batch_norm(x, mean.to(kind), var.to(kind), weight, bias, False, 0.0, eps)
        ctx.save_for_backward(x, weight, mean, (var + eps).rsqrt(), count)
        ctx.dims = dims
        ctx.mark_non_differentiable(mean, var, count)
        return y, mean, var, count

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grads: Any
    ) -> tuple[Tensor | None, ...]:
        grad = grads[0]
        x, weight, mean, scale, count = ctx.saved_tensors
        shape = [1, -1] + [1] * (x.ndim - 2)
        grad, unit = _wide(grad), (_wide(x) - mean.view(shape)) * scale.view(shape)
        sums = torch.stack([(grad * unit).sum(ctx.dims), grad.sum(ctx.dims)])
        # Those of weight and bias stay this process's: the engine adds them up with all others.
        kind = x.dtype if weight is None else weight.dtype
        own = [
            one.to(kind, copy=True) if needed else None
            for one, needed in zip(sums, ctx.needs_input_grad[1:3], strict=True)
        ]
        if not ctx.needs_input_grad[0]:
            return None, *own, None
        dist.all_reduce(sums)
        slope, shift = sums / count
        if weight is not None:
            scale = scale * weight
        found = (grad - unit * slope.view(shape) - shift.view(shape)) * scale.view(shape)
        return found.to(x.dtype), *own, None


def _wide(x: Tensor) -> Tensor:
    """Return the values in a precision that sums can be taken in."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _over_all(mean: Tensor, var: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean, variance and count over the parts of all processes."""
    mine = torch.cat([mean, var, mean.new_tensor([count])])
    every = mine.new_empty(dist.get_world_size(), len(mine))
    dist.all_gather(list(every.unbind()), mine)
    means, variances, counts = every.split([len(mean), len(var), 1], 1)
    total = counts.sum()
    shares = counts / total
    mean = (shares * means).sum(0)
    return mean, (shares * (variances + (means - mean).square())).sum(0), total
