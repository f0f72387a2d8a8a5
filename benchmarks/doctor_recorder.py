"""Run a script and record, at every step, what rule sets over signals need.

    python doctor_recorder.py OUT.json SCRIPT [ARGS]

Per optimizer step: the loss that was differentiated, and per parameter the mean and largest
absolute gradient, the spread of its gradient, its norm and variance, the norm of its change, and
whether anything was not finite. Per activation module: share of dead units, of saturated inputs.
Losses computed without gradient are taken for validation.
"""

import json
import runpy
import sys

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from brickyard.doctor.observe.tensors import transformed

LOSSES = (
    "cross_entropy", "mse_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits",
    "nll_loss", "smooth_l1_loss", "l1_loss", "huber_loss", "kl_div", "gaussian_nll_loss",
    "poisson_nll_loss", "triplet_margin_loss",
)  # fmt: skip
#: Steps are recorded one by one up to here, then every fifth; losses always.
DENSE = 100


class Recorder:
    """Collect the signals; everything is read without gradient and nothing is changed."""

    def __init__(self):
        self.steps, self.validation = [], []
        self.loss, self.inputs, self.active, self.units = None, None, {}, {}
        self.before, self.quiet = {}, False

    def open(self):
        """Install hooks and patches; the process ends with them."""
        register_optimizer_step_pre_hook(self.before_step)
        register_optimizer_step_post_hook(self.after_step)
        nn.modules.module.register_module_forward_hook(self.after_forward)
        backward = torch.Tensor.backward

        def watched(tensor, *args, **kwargs):
            if tensor.numel() == 1:
                self.loss = float(tensor.detach())
            return backward(tensor, *args, **kwargs)

        torch.Tensor.backward = watched
        for name in LOSSES:
            setattr(F, name, self.watched_loss(getattr(F, name)))

    def watched_loss(self, function):
        """Return the loss function, reporting its value when no gradient is wanted."""

        def loss(*args, **kwargs):
            value = function(*args, **kwargs)
            if not torch.is_grad_enabled() and value.numel() == 1 and self.steps:
                self.validation.append((len(self.steps), float(value)))
            return value

        return loss

    def after_forward(self, module, args, output):
        """Note activations of ReLU, tanh, sigmoid in training, and the range of first inputs."""
        if torch.compiler.is_compiling() or transformed():
            return  # no values there
        wanted = torch.is_grad_enabled() and self.due() and args
        if not wanted or not isinstance(args[0], torch.Tensor):
            return
        x = args[0].detach()
        if self.inputs is None and x.is_floating_point():
            self.inputs = [float(x.min()), float(x.max())]
        if not isinstance(output, torch.Tensor) or isinstance(module, nn.modules.loss._Loss):
            return
        kind = type(module).__name__
        if kind == "ReLU":
            flat = (output.detach() > 0).flatten(0, -2) if output.dim() > 1 else output[None] > 0
            rate = flat.float().mean(0)
            self.active[id(module)] = [
                kind, float((rate <= 0.01).float().mean()), float(1 - rate.mean())
            ]  # fmt: skip
        elif kind in ("Tanh", "Sigmoid"):
            low, high = (-9.4999, 9.4999) if kind == "Tanh" else (-23, 16.99999)
            out = ((x <= low) | (x >= high)).float().mean()
            five = ((x <= -5) | (x >= 5)).float().mean()
            self.active[id(module)] = [kind, float(out), float(five)]

    @torch.no_grad()
    def before_step(self, optimizer, args, kwargs):
        """Keep the weights, to measure the change."""
        if self.due():
            for group in optimizer.param_groups:
                for p in group["params"]:
                    self.before[id(p)] = p.detach().clone()

    def due(self):
        """Tell whether this step is recorded."""
        return len(self.steps) < DENSE or len(self.steps) % 5 == 0

    @torch.no_grad()
    def after_step(self, optimizer, args, kwargs):
        """Record one step."""
        row = {"loss": self.loss, "lr": float(optimizer.param_groups[0]["lr"]), "params": {}}
        if self.due():
            for group in optimizer.param_groups:
                for p in group["params"]:
                    row["params"][self.units.setdefault(id(p), len(self.units))] = self.facts(p)
            row["active"] = list(self.active.values())
        self.before.clear()
        self.active = {}
        self.steps.append(row)

    def facts(self, p):
        """Return the figures of one parameter, in the order of ``FACTS``."""
        g = p.grad
        change = float((p - self.before[id(p)]).norm()) if id(p) in self.before else 0.0
        scale = float(p.abs().max())
        row = [p.dim(), float(p.norm()), float(p.var()) if p.numel() > 1 else 0.0, change, scale]
        if g is None or g.is_sparse:
            return [*row, None, None, None, bool(p.isfinite().all())]
        flat = g.flatten().float()
        spread = (
            flat.quantile(torch.tensor([0.05, 0.95], dtype=flat.dtype))
            if len(flat) > 1
            else flat.repeat(2)
        )
        finite = bool(p.isfinite().all()) and bool(g.isfinite().all())
        return [
            *row, float(flat.abs().mean()), float(flat.abs().max()),
            float(spread[1] - spread[0]), finite,
        ]  # fmt: skip


def main():
    """Record the script named on the command line."""
    out, script = sys.argv[1:3]
    sys.argv = sys.argv[2:]
    recorder = Recorder()
    recorder.open()
    try:
        runpy.run_path(script, run_name="__main__")
    finally:
        facts = {"steps": recorder.steps, "validation": recorder.validation,
                 "inputs": recorder.inputs}  # fmt: skip
        with open(out, "w", encoding="utf-8") as file:
            json.dump(facts, file)


if __name__ == "__main__":
    main()
