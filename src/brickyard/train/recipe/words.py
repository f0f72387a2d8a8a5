"""Words that other libraries use for what a recipe says in another way."""

from __future__ import annotations

from collections.abc import Iterable

from brickyard.errors import near
from brickyard.train.recipe.model import Recipe

__all__ = ["elsewhere", "said_here"]

_BUDGET = "budget: 10ep, or a number of steps"
_RATE = "optimizer: {name: adamw, lr: 1.0e-3}"
_CLIPPING = "clipping: {name: clip_by_global_norm, max_norm: 1.0}"
_PRECISION = "precision: bf16, or fp16"
_STOPPING = "regularizers: [{name: early_stopping, patience: 5}]"
_AVERAGE = "regularizers: [ema]"
_VAL = "data: {name: ..., val: 0.2}"
_EVERY = "keep: {last: 2, best: 3} and checkpoint_every: 30s"

#: Fields as Lightning, Keras, transformers, timm, skorch and scripts call them, and ours.
FOREIGN = {
    **dict.fromkeys(
        ("epoch", "epochs", "max_epochs", "n_epochs", "num_epochs", "num_train_epochs", "steps",
         "max_steps", "iterations", "num_steps"), _BUDGET),
    **dict.fromkeys(("lr", "learning_rate", "betas", "momentum", "weight_decay"), _RATE),
    **dict.fromkeys(
        ("clip", "clip_grad", "clip_norm", "grad_clip", "gradient_clip_val", "max_grad_norm",
         "max_norm"), _CLIPPING),
    **dict.fromkeys(("amp", "autocast", "bf16", "dtype", "fp16", "mixed_precision"), _PRECISION),
    **dict.fromkeys(("early_stopping", "patience"), _STOPPING),
    **dict.fromkeys(("averaging", "ema", "model_ema", "swa"), _AVERAGE),
    **dict.fromkeys(
        ("test_size", "val", "val_size", "val_split", "validation", "validation_split",
         "valid_size"), _VAL),
    **dict.fromkeys(
        ("checkpoint", "checkpoints", "save_every", "save_steps", "save_top_k",
         "save_total_limit"), _EVERY),
    **dict.fromkeys(
        ("accumulate_grad_batches", "accumulation_steps", "grad_accum", "grad_accumulation",
         "gradient_accumulation_steps"), "accumulate: 4"),
    **dict.fromkeys(("batch", "bs", "per_device_train_batch_size"), "batch_size: 64"),
    **dict.fromkeys(("arch", "net", "network", "module"), "model: {name: mlp}"),
    **dict.fromkeys(("criterion", "objective", "loss_fn"), "loss: cross_entropy"),
    **dict.fromkeys(("dataset", "train_data", "datamodule"), "data: {name: csv, path: ...}"),
    **dict.fromkeys(("opt",), _RATE),
    **dict.fromkeys(("sched", "warmup", "warmup_steps", "warmup_ratio"),
                    "schedule: [{name: warmup, steps: 5%}, cosine]"),
    **dict.fromkeys(("callback", "callbacks"),
                    "regularizers, for what acts (early_stopping, ema), and loggers, for what "
                    "watches"),
    **dict.fromkeys(("logger", "logging", "report_to"), "loggers: [tensorboard]"),
    **dict.fromkeys(("num_workers", "n_workers"), "workers: 2"),
    **dict.fromkeys(("random_seed", "random_state", "manual_seed"), "seed: 0, and split_seed: 0"),
    **dict.fromkeys(("accelerator", "gpu", "gpus", "devices", "use_cuda"),
                    "device: cuda; several processes are started by torchrun"),
    **dict.fromkeys(("strategy", "ddp", "fsdp"), "distributed: ddp, or fsdp, under torchrun"),
    **dict.fromkeys(("sync_batchnorm", "sync_bn", "syncbn", "SyncBatchNorm"),
                    "sync_batch_norm: true"),
    **dict.fromkeys(("output_dir", "out", "save_dir", "log_dir"), "brickyard train ... --out DIR"),
    **dict.fromkeys(("gradient_checkpointing", "activation_checkpointing"),
                    "checkpoint_layers: auto"),
    **dict.fromkeys(("torch_compile", "jit"), "compile: true"),
    **dict.fromkeys(("transforms", "augment", "mixup", "cutmix"), "augmentation: [mixup]"),
    **dict.fromkeys(("dropout",), "model: {name: mlp, dropout: {name: dropout, p: 0.1}}"),
}  # fmt: skip


def said_here(word: str, known: Iterable[str]) -> str:
    """Return what to say about a field of a recipe that there is not.

    Args:
        word: the field as it was given.
        known: the fields that there are.

    Example:
        >>> said_here("epochs", ["budget"])
        '; here it is said so: budget: 10ep, or a number of steps'
        >>> said_here("optimiser", ["optimizer"])
        "; did you mean 'optimizer'?"
    """
    ours = FOREIGN.get(word.lower())
    if ours:
        return f"; here it is said so: {ours}"
    names = list(known)
    return near(word, names) or f"; a recipe has {', '.join(names)}"


def elsewhere(option: str, label: str) -> str:
    """Return where a recipe says what was given as an option of a brick; empty if nowhere.

    Args:
        option: what was given.
        label: the brick.

    Example:
        >>> elsewhere("batch_size", "digits")
        '; batch_size is a field of the recipe itself and stands beside digits, not inside of it'
    """
    if option not in Recipe.model_fields:
        return ""
    beside = f"stands beside {label}, not inside of it"
    if option == "seed":
        return f"; split_seed decides what is held out, and {beside}"
    return f"; {option} is a field of the recipe itself and {beside}"
