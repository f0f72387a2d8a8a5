"""The sixty checks, by what they look at; each stands on a card beside its function."""

from __future__ import annotations

from collections.abc import Callable

from brickyard.doctor.checks import (  # noqa: F401  importing a module registers its checks
    batches,
    course,
    evaluations,
    gradients,
    layers,
    loaders,
    losses,
    models,
    parameters,
    process,
    rates,
)
from brickyard.doctor.checks.card import CHECKS, Check
from brickyard.doctor.finding import Finding
from brickyard.doctor.observe.record import Seen

__all__ = ["CHECKS", "Check", "judge"]

#: Findings that follow from another one: said as information when their cause was found.
FOLLOWS = {
    "not-learning": {
        "loss-detached", "step-noop", "opt-missing-params", "opt-orphan-params", "symmetric-init",
        "opt-frozen-params", "nonfinite", "probs-into-CE", "loss-broadcast", "update-ratio",
        "grad-zero-layer", "stale-grad", "clip", "call-order", "lr-trace", "input-raw-range",
    },
    "divergence": {"stale-grad", "nonfinite", "update-ratio", "accum-scale", "call-order"},
    "grad-none-params": {"loss-detached", "opt-frozen-params", "opt-orphan-params"},
    "grad-zero-layer": {"symmetric-init", "dead-units", "input-independence"},
    "input-independence": {
        "symmetric-init", "update-ratio", "dead-units", "nonfinite", "stale-grad", "divergence",
    },
    "step-noop": {"opt-frozen-params", "loss-detached"},
    "train-eval-gap": {"bn-config", "mode-wrong", "stale-grad", "divergence"},
    "update-ratio": {"step-noop", "nonfinite"},
    "collapse": {
        "nonfinite", "divergence", "symmetric-init", "dead-units", "update-ratio", "loss-detached",
        "step-noop", "opt-missing-params", "opt-orphan-params", "opt-frozen-params",
        "unregistered-modules", "probs-into-CE", "probs-into-BCEWithLogits", "logprob-contract",
        "loss-broadcast", "stale-grad", "call-order", "grad-zero-layer", "input-raw-range",
        "train-not-shuffled", "train-eval-gap", "mode-wrong", "lr-trace", "scheduler-horizon",
    },
    "init-loss": {"input-raw-range", "probs-into-CE", "loss-broadcast", "input-nonfinite"},
    "init-scale": {"symmetric-init"},
    "generalisation": {
        "train-eval-gap", "mode-wrong", "train-not-shuffled", "batch-mixing", "collapse",
        "silent-weight-change", "eval-determinism",
    },
    "nonfinite": {"input-nonfinite"},
    "dead-units": {"update-ratio", "symmetric-init", "input-raw-range"},
    "lr-trace": {"scheduler-horizon"},
}  # fmt: skip


def judge(seen: Seen, problem: Callable[[str, BaseException], None]) -> list[Finding]:
    """Return what all checks find.

    Args:
        seen: what was observed.
        problem: gets the name of a check that failed, and its error.
    """
    found: list[Finding] = []
    for one in CHECKS.values():
        try:
            found += one.findings(seen)
        except Exception as error:
            problem(one.name, error)
    grave = {f.check for f in found if f.severity != "info"}
    kept = []
    for finding in found:
        causes = FOLLOWS.get(finding.check, set()) & grave - {finding.check}
        if causes and finding.severity != "info":
            text = f"{finding.evidence} (likely a consequence of {', '.join(sorted(causes))})"
            finding = Finding(**{**vars(finding), "severity": "info", "evidence": text})
        kept.append(finding)
    return kept
