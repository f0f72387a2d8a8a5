"""Write the card of an exported model: what it is, how to load it, how good it is, its limits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from brickyard import yamls
from brickyard.runs import to_json
from brickyard.train.tasks import Task
from brickyard.version import __version__

if TYPE_CHECKING:
    from brickyard.train.export import Exported

__all__ = ["write_card"]

#: Tasks whose outputs stand for the data's classes.
_NAMED = ("classification", "multi_label", "segmentation", "transcription", "language_model")
_SHOWN = 1500  # characters of what preprocessing was fitted; the rest is in summary.json


def write_card(path: Path, made: Exported) -> None:
    """Write the model card of an export.

    Args:
        path: the file.
        made: what was exported, checked and found wanting.
    """
    parts = [_head, _use, _quality, _data, _training, _checks, _limits, _files]
    path.write_text("\n\n".join(part(made) for part in parts) + "\n", encoding="utf-8")


def _head(made: Exported) -> str:
    recipe, data, model = (made.facts[k] for k in ("recipe", "data", "model"))
    about, count = made.facts["about"], sum(p.numel() for p in model.parameters())
    when = f"after step {about['step']:,}"
    if "epoch" in about:
        when += f" (epoch {about['epoch']:.4g})"
    front = yamls.dump({
        "library_name": "brickyard", "tags": [made.facts["task"].name, recipe.model.label],
        "model_name": recipe.name,
    })  # fmt: skip
    return (
        f"---\n{front}---\n\n# {recipe.name}\n\n`{recipe.model.label}` with {count:,} parameters "
        f"for {made.facts['task'].name}, trained on `{data.name}` with Brickyard {__version__}. "
        f"These are the weights {when} of the run `{made.facts['run'].path.resolve().name}`."
    )


def _use(made: Exported) -> str:
    data, x = made.facts["data"], made.facts["input"]
    ours = "model.safetensors" in made.files
    lines = ["## Use it"]
    if ours:
        own = ", trust_code=True" if _own_code(made) else ""
        call = f'model = load_exported("FOLDER"{own})  # this folder; on the CPU, in eval mode'
        lines += ["With Brickyard, as an `nn.Module` that can be trained on:",
                  _code(f"from brickyard.train import load_exported\n\n{call}"),
                  "Other readers of safetensors get its tensors by the names of the module's "
                  "`state_dict`."]  # fmt: skip
    if "model.pt2" in made.files:
        call = 'model = torch.export.load("FOLDER/model.pt2").module()'
        lines += ["With torch alone, and no code of the model, as a program for any batch size:",
                  _code(f"import torch\n\n{call}")]  # fmt: skip
    if isinstance(x, Tensor):
        shape = ", ".join(["N", *map(str, x.shape[1:])])
        lines.append(
            f"It takes a tensor of shape ({shape}) and dtype {x.dtype}: {made.facts['task'].given}."
        )
    else:
        lines.append("It takes what the run's task gives it.")
    if made.facts["task"].given == Task.given:
        lines += ["How samples were prepared:", _prepared(data.facts)]
    lines.append(_meaning(made))
    return "\n\n".join(lines)


def _own_code(made: Exported) -> bool:
    recipe = made.facts["recipe"]
    parts = (recipe.model, recipe.task, recipe.loss)
    return any(part is not None and bool(part.target) for part in parts)


def _prepared(facts: Mapping[str, Any]) -> str:
    lines = []
    if "scaling" in facts:
        lines.append(f"- scaling: {facts['scaling']}")
    if facts.get("features"):
        lines.append(f"- columns, in this order: {', '.join(map(str, facts['features']))}")
    if facts.get("preprocessing"):
        text = json.dumps(to_json(facts["preprocessing"]))
        cut = text if len(text) <= _SHOWN else f"{text[:_SHOWN]} ... (whole in summary.json)"
        lines.append(f"- fitted or applied when the data was read: `{cut}`")
    return "\n".join(lines) or "- nothing: the samples as they were"


def _meaning(made: Exported) -> str:
    data, task = made.facts["data"], made.facts["task"]
    rule = task.meaning
    if task.name == "classification":
        rule = (
            "It returns logits: `logits.softmax(1)` are probabilities, `logits.argmax(1)` classes."
        )
        if task.outputs == 1:
            rule = "It returns one logit: `logit.sigmoid()` is the probability of class 1."
    if task.name in _NAMED and data.classes:
        names = ", ".join(f"{i} = {_shown(name)}" for i, name in enumerate(data.classes[:20]))
        more = ""
        if len(data.classes) > 20:
            more = f", ... ({len(data.classes)} in all, in the metadata of model.safetensors)"
        if list(data.classes) == [str(i) for i in range(len(data.classes))]:
            names, more = f"0 to {len(data.classes) - 1}", ""
        return f"{rule}\nClasses: {names}{more}."
    if task.name == "regression":
        mean, std = to_json(_plain(data.target_mean)), to_json(_plain(data.target_std))
        if mean == 0 and std == 1:
            return "It returns the values themselves."
        return (
            "It returns standardised values; in the target's own units they are "
            f"`output * {std} + {mean}`."
        )
    return rule


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, Tensor) else value


def _shown(name: str) -> str:
    """Return a class's name; blanks and signs that cannot be printed, as tokens are, in quotes."""
    return name if name.strip() == name and name.isprintable() else repr(name)


def _quality(made: Exported) -> str:
    about, data = made.facts["about"], made.facts["data"]
    if not about.get("val"):
        return "## How good it is\n\nNot evaluated: the run has no evaluation of these weights."
    rows = "\n".join(f"| {name} | {value:.6g} |" for name, value in about["val"].items())
    chosen = made.facts["summary"].get("monitor", {}).get("name", about.get("metric", "the metric"))
    return (
        f"## How good it is\n\nOn the {len(data.val):,} validation samples:\n\n"
        f"| metric | value |\n|---|---|\n{rows}\n\n"
        f"Of all evaluations of the run this one had the best {chosen}, so the figures are "
        "somewhat too good; only data that no decision was based on tells how good it really is."
    )


def _data(made: Exported) -> str:
    data = made.facts["data"]
    known = ("source", "split", "class_counts") if data.outputs <= 20 else ("source", "split")
    facts = {k: data.facts[k] for k in known if k in data.facts}
    lines = [
        "## Data",
        f"`{data.name}`: {len(data.train):,} samples for training, {len(data.val):,} for "
        f"validation. Fingerprint of the samples: `{data.facts.get('fingerprint', 'none')}`.",
    ]
    if facts:
        lines.append(_code(yamls.dump(to_json(facts)).rstrip(), "yaml"))
    lines += [f"- {one}" for one in data.warnings]
    return "\n\n".join(lines)


def _training(made: Exported) -> str:
    summary, environment = made.facts["summary"], made.facts["environment"]
    known = ("brickyard", "torch", "python", "system", "processor", "accelerator", "git_commit")
    rows = "\n".join(f"| {k} | {environment[k]} |" for k in known if environment.get(k))
    lines = ["## Training"]
    if summary:
        lines.append(
            f"{summary['steps']:,} steps ({summary['epochs']:.4g} epochs) in "
            f"{summary['seconds']['total']:,.0f} s; it ended by: {summary['exit_reason']}."
        )
    else:
        lines.append("The run has not ended.")
    recipe = yamls.dump(made.facts["recipe"].to_dict()).rstrip()
    lines += [f"| environment | |\n|---|---|\n{rows}", "The whole recipe:", _code(recipe, "yaml")]
    return "\n\n".join(lines)


def _checks(made: Exported) -> str:
    lines = "\n".join(f"- {one}" for one in made.checks) or "- nothing"
    return f"## What was checked when this was written\n\n{lines}"


def _limits(made: Exported) -> str:
    data = made.facts["data"]
    known = [
        f"It has seen {len(data.train):,} samples of `{data.name}`; on samples of another origin "
        "nothing is known.",
        "Preparing samples is not part of the files; see above.",
        "Its probabilities were not checked for calibration, nor its errors for groups of samples.",
    ]
    if made.facts["task"].name not in ("classification", "multi_label", "segmentation"):
        known.pop()
    if _own_code(made):
        known.append("The recipe names code by `target:`, which is not part of the files.")
    ended = made.facts["summary"].get("exit_reason", "")
    if ended not in ("budget", "early_stop"):
        known.append("The run had not ended when this was exported.")
    lines = "\n".join(f"- {one}" for one in [*known, *made.warnings])
    return f"## Limits\n\n{lines}"


def _files(made: Exported) -> str:
    rows = "\n".join(f"| `{name}` | `{digest}` |" for name, digest in made.files.items())
    return f"## Files\n\n| file | SHA-256 |\n|---|---|\n{rows}"


def _code(text: str, language: str = "python") -> str:
    return f"```{language}\n{text}\n```"
