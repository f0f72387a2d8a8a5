"""Checks of the process: graphs that stay alive, replicas that differ, weights that move alone."""

from __future__ import annotations

from collections.abc import Iterable

from brickyard.doctor import thresholds as T
from brickyard.doctor.checks.card import Say, check, some
from brickyard.doctor.observe.record import Place, Seen


@check(
    55, "graph-leak", "error", weight=0.9,
    sees="autograd graphs of finished steps that are still alive, step after step",
    why="Memory grows with every step, until the process is killed.",
    try_="Add up numbers, not tensors: total += loss.item(), or loss.detach().",
    allows="graphs alive for a few steps, losses kept before their backward pass",
    source="google/brax#152, BatsResearch/labelmodels#4",
)  # fmt: skip
def graph_leak(seen: Seen) -> Iterable[Say]:
    """Report graphs that are kept alive."""
    for note in seen.of("graphs-alive"):
        alive, of = note.values["alive"], note.values["of"]
        if alive >= 0.9 * of:
            place = note.values.get("line", Place())
            yield Say(
                f"{alive} of the graphs of {of} successive losses are still alive after their "
                "backward pass: something holds the losses with their history.",
                "loss", place if place.file else note.place, step=note.step,
            )  # fmt: skip


@check(
    56, "replica-divergence", "error", weight=0.95,
    sees="parameters that differ between processes that train under DistributedDataParallel",
    why="Gradients are not averaged: each process trains a model of its own.",
    try_="Call the wrapped model (ddp(x)), not ddp.module(x); start all ranks alike.",
    allows="processes without DistributedDataParallel, local SGD under no_sync()",
    source="x.com/jxmnop/status/1778520637193240892",
)  # fmt: skip
def replica_divergence(seen: Seen) -> Iterable[Say]:
    """Report replicas that came apart."""
    for note in seen.of("replicas-differ"):
        v = note.values
        yield Say(
            f"After step {v['at']}, {v['differ']} of {v['params']} sampled parameters differ "
            f"between the {v['ranks']} processes, such as {v['name']}.",
            note.where, note.place, step=v["at"],
        )  # fmt: skip


@check(
    58, "frozen-buffers-moved", "warning", weight=0.8,
    sees="batch norms with frozen parameters that are in training mode while others train",
    why="Their running statistics move: frozen features drift away from what the weights were "
    "trained with, and other heads on them suffer.",
    try_="Put frozen norms into evaluation mode after every model.train().",
    allows="batch norms that train, models in evaluation mode, norms frozen for a moment "
    "(adversarial turns)",
    source="lightly-ai/lightly#1438, pytorch/pytorch#86590",
)  # fmt: skip
def frozen_buffers(seen: Seen) -> Iterable[Say]:
    """Report frozen statistics that move."""
    frozen = [
        m
        for m in seen.modules.values()
        if len(at := list(m.facts.get("frozen", {}).values())) >= T.LOOKS and all(at[-T.LOOKS :])
    ]
    if frozen:
        yield Say(
            f"{len(frozen)} batch norms with frozen parameters are in training mode and update "
            f"their running statistics: {some(m.name for m in frozen)}.",
            frozen[0].name,
        )  # fmt: skip


@check(
    58, "silent-weight-change", "warning", weight=0.9,
    sees="weights that were swapped for an evaluation and not put back",
    why="Training goes on from other weights than its last step left, with an optimizer state "
    "that belongs to those.",
    try_="Restore the weights after evaluating an average (EMA, SWA).",
    allows="averages that are put back, weights restored from a checkpoint after an evaluation, "
    "pruning and clamping, models that act after every step",
    source="PKU-YuanGroup/Open-Sora-Plan#186",
)  # fmt: skip
def silent_change(seen: Seen) -> Iterable[Say]:
    """Report weights that an evaluation left behind."""
    for note in seen.of("not-restored"):
        if note.count < T.IN_ROW:
            continue
        yield Say(
            f"After an evaluation the weights of {note.where} were others than after the last "
            f"step before it ({note.count} times): those of the evaluation were kept.",
            note.where, note.place, step=note.step,
        )  # fmt: skip
