"""Look over what a recipe put together, before the first step.

A loss that does not fit the data or the model's output is refused; known bad pairs are told.

What a loss expects is in its card: ``output`` (logits, values ...) and ``target`` (class indices,
values ...). What the model gives is read off its output on a few samples (``train/probe.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from brickyard import catalog
from brickyard.catalog import Card
from brickyard.catalog.pairs import Made, bad_pairs
from brickyard.errors import RecipeError
from brickyard.train.data import Data
from brickyard.train.probe import Probe, probe
from brickyard.train.tasks.base import inputs_of

if TYPE_CHECKING:
    from brickyard.train.parts import Parts
    from brickyard.train.recipe import Recipe
    from brickyard.train.tasks.base import Task

__all__ = [
    "OUTPUTS",
    "TARGETS",
    "check_output",
    "check_target",
    "in_words",
    "look_over",
    "output_form",
]

#: Why a recipe cannot supply a kind of target. None: it can, for the right task.
TARGETS: dict[str, str | None] = {
    "class indices": None,
    "class indices or probabilities": None,
    "binary": None,
    "values": None,
    "probabilities": "a distribution over the classes for every sample",
    "masks": "a mask for every sample",
    "boxes": "a box for every sample",
    "labels": "embeddings compared by label, from which no prediction can be read",
    "pairs": "pairs of samples",
    "tokens": "a sequence of tokens for every sample, and lengths",
    "none": "no targets but further inputs",
    "other": "targets of a form of its own",
}
#: Kinds of output that cards name.
OUTPUTS = ("logits", "log-probabilities", "values", "scores", "embeddings", "boxes", "other")

_NODES = {
    "Softmax": "softmax", "LogSoftmax": "log_softmax", "Sigmoid": "sigmoid", "Tanh": "tanh",
    "LogSigmoid": "log_sigmoid", "Hardsigmoid": "hard_sigmoid", "Hardtanh": "hard_tanh",
}  # fmt: skip
#: Operations that change no value.
_PASSING = ("View", "UnsafeView", "Squeeze", "Unsqueeze", "Slice", "Select", "Transpose", "T",
            "Permute", "Clone", "ToCopy", "ReshapeAlias", "Alias")  # fmt: skip
#: What autograd says of a loss, and what that means.
_NO_LOSS = {
    "grad can be implicitly created only for scalar": "must return one number for a batch, and "
    "returns several; take their mean",
    "does not require grad and does not have a grad_fn": "does not depend on the weights: there is "
    "no gradient to follow. Leave out detach(), item(), argmax or no_grad on the way to it",
}
_ENDS = {"sigmoid": (0.0, 1.0), "hard_sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0),
         "hard_tanh": (-1.0, 1.0), "softmax": (0.0, 1.0)}  # fmt: skip


def look_over(
    recipe: Recipe, data: Data, parts: Parts, device: torch.device
) -> list[dict[str, str]]:
    """Run the model once; refuse an output that the loss misreads, return known bad pairs.

    Args:
        recipe: the resolved recipe.
        data: what is trained on.
        parts: what was built.
        device: where the model is.

    Raises:
        RecipeError: the model cannot take the data, or the loss not the model's output.
    """
    seen = probe(parts.task.forward, parts.model, data, lambda t: t.to(device), parts.autocast)
    _check_width(seen.output, parts.task, recipe.model.label, data)
    if recipe.loss.name and parts.task.held_out_loss:
        check_output(catalog.get(recipe.loss.name, "loss"), parts.task, parts.loss, seen)
    names = {id(p): name for name, p in parts.model.named_parameters()}
    decayed = {
        names[id(p)] for group in parts.optimizer.param_groups for p in group["params"]
        if group.get("weight_decay") and id(p) in names
    }  # fmt: skip
    made = Made(recipe.to_dict(), seen.layers, decayed)
    return [
        {"severity": "warning", "check": rule.key, "where": where, "evidence": rule.wrong,
         "try": rule.instead, "why": f"Source: {rule.source}."}
        for rule, where in bad_pairs(made)
    ]  # fmt: skip


def in_words(found: dict[str, str]) -> str:
    """Return a finding of :func:`look_over` as one line.

    Example:
        >>> in_words({"where": "body.2", "evidence": "It fades.", "try": "act: relu", "why": "A."})
        'body.2: It fades. Instead: act: relu. A.'
    """
    return f"{found['where']}: {found['evidence']} Instead: {found['try']}. {found['why']}"


# --- Loss and data --------------------------------------------------------------------------------


def check_target(loss: Card, data: Data, task: Task) -> None:
    """Refuse a loss whose targets the data does not have.

    Args:
        loss: the loss's card.
        data: what is trained on.
        task: says what the loss can be given.

    Raises:
        RecipeError: with the reason, and the losses that fit.
    """
    if task.takes(loss):
        return
    wants = str(loss.facts["target"])
    fit = [card.key for card in catalog.shelf("loss") if task.takes(card)]
    if task.wants:
        raise RecipeError(
            f"loss: {loss.key} is not what {task.name} trains on: {task.wants}; take "
            f"{', '.join(fit)}"
        )
    then = f"for {data.name} take {', '.join(fit)}"
    inputs = inputs_of(loss)
    reason = TARGETS.get(wants, f"targets of the kind '{wants}'")
    if len(inputs) != task.loss_inputs:
        given = "the model's output and one target"
        given = given if task.loss_inputs == 2 else f"{task.loss_inputs} tensors"
        why = f"takes ({', '.join(inputs)}), and {task.name} gives it {given}"
        then = f"call it in a loop of your own, or {then}"
    elif reason is not None:
        why = f"needs {reason}, and {task.name} on {data.name} gives none"
        then = f"call it in a loop of your own, or {then}"
    elif data.task == "regression":
        why = (
            f"takes {'targets 0 or 1' if wants == 'binary' else wants}, and {data.name} is a "
            "regression task: its targets are numbers to come near to"
        )
    elif wants == "values":
        why = (
            f"takes values to come near to, and {data.name} has {data.outputs} classes, whose "
            "indices are names: class 2 is not between 1 and 3"
        )
    else:
        why = f"tells two classes apart by one logit, and {data.name} has {data.outputs} classes"
    raise RecipeError(f"loss: {loss.key} {why}; {then}")


# --- Loss and output ------------------------------------------------------------------------------


def check_output(card: Card, task: Task, loss: Callable[..., Tensor], seen: Probe) -> None:
    """Refuse a model's output that the loss would misread.

    Args:
        card: the loss's card.
        task: says what the loss is given.
        loss: the loss.
        seen: what the model gave for a few samples, with its graph; outputs other than tensors
            are left to the loss.

    Raises:
        RecipeError: with the reason and what to do.
    """
    output, what = seen.output, "output"
    if isinstance(output, Tensor):
        what = f"output of shape {tuple(output.shape)}"
        scores = output.movedim(task.axis, 1) if output.ndim > task.axis else output
        reason = _misread(str(card.facts.get("output", "")), scores, task.target(seen.y))
        if reason:
            raise RecipeError(f"loss: {card.key} {reason}")
    try:
        task.loss(loss, output, seen.x, seen.y)
    except (ValueError, TypeError) as error:
        message = f"loss: {card.key} refuses the model's {what}: {error}"
        raise RecipeError(message) from error


def _check_width(output: Any, task: Task, model: str, data: Data) -> None:
    """Refuse a classifier whose number of outputs is not that of the classes.

    Fewer would only be noticed at the first label beyond them, and more not at all.
    """
    told = task.name in ("classification", "multi_label") and isinstance(output, Tensor)
    if told and output.ndim == 2 and output.shape[1] != task.outputs:
        raise RecipeError(
            f"model: {model} gives {output.shape[1]} outputs a sample, and {task.name} on "
            f"{data.name} takes {task.outputs}; build it with the number given as outputs"
        )


@contextmanager
def loss_told(label: str) -> Iterator[None]:
    """Turn what autograd says of a loss that is no loss into a sentence.

    Args:
        label: what the recipe calls the loss.

    Raises:
        RecipeError: it is not one number, or does not depend on the weights.
    """
    try:
        yield
    except RuntimeError as error:
        for sign, rule in _NO_LOSS.items():
            if sign in str(error):
                raise RecipeError(f"loss: {label} {rule}") from error
        raise


def output_form(output: Tensor) -> str:
    """Return what a model's last operation made of its output: ``"softmax"``, ``"tanh"`` ...

    Read off the autograd graph, through views and copies, and off the values: rows that are
    positive and sum to one are a softmax however they were made. Empty for everything else.
    """
    node: Any = output.grad_fn
    while node is not None:
        name = node.name().partition("Backward")[0]
        if name in _NODES:
            return _NODES[name]
        if name not in _PASSING:
            break
        node = next((before for before, _ in node.next_functions if before is not None), None)
    values = output.detach().double()
    if values.ndim < 2 or values.shape[1] < 2 or not bool(values.isfinite().all()):
        return ""
    if bool((values >= 0).all()) and _ones(values.sum(1)):
        return "softmax"
    return "log_softmax" if bool((values <= 0).all()) and _ones(values.exp().sum(1)) else ""


def _ones(sums: Tensor) -> bool:
    return bool((sums - 1).abs().max() < 1e-2)  # of half precision too


def _misread(wants: str, output: Tensor, target: Tensor) -> str:
    """Return why the loss would misread the output, and what to do; empty if it would not."""
    form, several = output_form(output), output.ndim > 1 and output.shape[1] > 1
    rest = "End the model with its linear layer"
    if wants == "log-probabilities" and form != "log_softmax":
        got = f"the output of a {form}" if form else "a plain output"
        return (
            f"takes log-probabilities, and the model ends in {got}; take cross_entropy, which "
            "applies log_softmax itself, or end the model with log_softmax over the classes"
        )
    # log_softmax of log-probabilities is the identity: harmless with several classes.
    fine = ("", "log_softmax") if several else ("",)
    if wants == "logits" and form not in fine:
        inside = "softmax" if several else "sigmoid"
        return (
            f"takes logits and applies the {inside} itself, and the model ends in a {form}: "
            f"squashed twice, no prediction gets sure and gradients fade. {rest}, and apply the "
            f"{form} only where probabilities are read off"
        )
    if wants == "scores" and form not in fine:
        return (
            f"wants scores to differ by a whole margin, and the model ends in a {form}, whose "
            f"values cannot. {rest}"
        )
    if wants == "values" and form in _ENDS:
        low, high = _ENDS[form]
        targets = target.detach().double().flatten().tolist()
        beyond = [v for v in targets if not low <= v <= high]
        if beyond:
            return (
                f"should bring the output near to values such as {beyond[0]:.3g} (targets are "
                f"standardised), and the model ends in a {form}, which stays in [{low:g}, "
                f"{high:g}]. {rest}"
            )
    if wants == "values" and form in ("log_softmax", "log_sigmoid"):
        return f"takes values of either sign, and the model ends in a {form}. {rest}"
    return ""
