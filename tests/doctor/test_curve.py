"""The verdict on a run's losses: a word for each kind of curve, none where none is honest."""

import numpy as np
import pytest
import torch
from doctor_loops import data, epochs, fit, loader, mlp
from torch.nn import functional as F

from brickyard.doctor import watch
from brickyard.doctor.curve import read
from brickyard.doctor.finding import Finding, Report
from brickyard.doctor.observe.record import (
    NOWHERE,
    EvaluationSeen,
    LossSeen,
    OptimizerSeen,
    Round,
    Seen,
    Series,
)

PER = 30  # steps in an epoch


def seen(train, val=None, epochs=20, noise=0.05, constant=True, function="cross_entropy"):
    """Return what a run with ``train(epoch)`` and ``val(epoch)`` as losses would leave."""
    rng = np.random.default_rng(0)
    n = epochs * PER
    values = [float(train(i / PER) * np.exp(noise * rng.standard_normal())) for i in range(n)]
    found = Seen(step=n, epoch=epochs, backwards=n)
    found.series["x"] = Series(NOWHERE, values, list(range(n)))
    found.optimizers = [OptimizerSeen(0, "SGD", steps=n)]
    found.epoch_steps = list(range(0, n, PER)) if epochs > 1 else []
    facts = {"reduction": "mean"}
    if constant:
        facts["labels"] = torch.full((10,), 100)  # ln 10 = 2.303
    found.losses["x"] = LossSeen(function, NOWHERE, facts=facts)
    if val is not None:
        rounds = [
            Round((e + 1) * PER, e + 1, rows=10, total=10 * val(e + 1)) for e in range(epochs)
        ]
        found.evaluations["x"] = EvaluationSeen(function, NOWHERE, 1, rounds)
    return found


def falling(e):
    return 0.02 + 2.3 * np.exp(-0.3 * e)


def test_overfit():
    verdict = read(seen(falling, lambda e: 0.5 + 1.5 * np.exp(-e) + 0.03 * e))
    assert (verdict.kind, verdict.label, verdict.tone) == ("overfit", "Overfits", "warn")
    assert "while the training loss fell to 0.0" in verdict.sentence
    assert "epoch 4" in verdict.sentence
    assert verdict.advice.startswith("Keep the weights of epoch 4 (early stopping)")


@pytest.mark.parametrize("slope", [0.0, 0.001])
def test_a_validation_loss_that_holds_is_no_overfit(slope):
    verdict = read(seen(falling, lambda e: 0.5 + 1.5 * np.exp(-e) + slope * e))
    assert verdict.tone == "good"


def test_a_loss_that_rises_in_both_is_no_overfit():
    verdict = read(seen(lambda e: 0.4 + 0.05 * e, lambda e: 0.5 + 0.05 * e))
    assert verdict.kind != "overfit"


def test_underfit_and_the_ladder():
    verdict = read(seen(lambda e: 1.7 + 0.6 * np.exp(-2 * e)))
    assert verdict.kind == "underfit"
    assert "2.303" in verdict.sentence
    assert "26%" in verdict.evidence[0] or "25%" in verdict.evidence[0]
    assert "one batch" in verdict.advice
    assert "preflight" in verdict.advice


def test_a_low_or_falling_or_incomparable_loss_is_no_underfit():
    assert read(seen(lambda e: 0.9 + 1.4 * np.exp(-2 * e))).kind == "plateau"
    assert read(seen(lambda e: 2.3 - 0.03 * e)).kind == "still_improving"
    assert read(seen(lambda e: 1.7 + 0.6 * np.exp(-2 * e), constant=False)).kind == "plateau"
    weighted = seen(lambda e: 1.7 + 0.6 * np.exp(-2 * e))
    weighted.losses["x"].facts["options"] = ["weight"]
    assert read(weighted).kind == "plateau"


def test_not_learning_is_underfit_whatever_the_rest():
    flat = seen(lambda e: 2.31)
    finding = Finding("not-learning", "warning", try_="Overfit one batch first.")
    verdict = read(flat, [finding])
    assert verdict.kind == "underfit"
    assert verdict.advice.startswith("First mend what was found above, not-learning before all:")


def test_noisy_by_its_evaluations_or_its_epochs():
    jumps = [0.3, -0.3, 0.3, 0.3, -0.3, 0.3, -0.3, -0.3] * 3
    verdict = read(seen(falling, lambda e: 1.0 + jumps[e]))
    assert verdict.kind == "noisy"
    assert "validation loss scatters" in verdict.sentence
    verdict = read(seen(lambda e: 0.6 + np.exp(-e) + jumps[int(e)]))
    assert verdict.kind == "noisy"
    assert "mean training loss scatters" in verdict.sentence
    assert "rate" in verdict.advice
    assert read(seen(lambda e: falling(e) + 0.01 * jumps[int(e)])).kind != "noisy"


def test_noise_of_single_steps_is_no_noise_of_epochs():
    assert read(seen(falling, noise=0.5)).tone == "good"


def test_plateau_needs_two_thirds_at_rest():
    verdict = read(seen(lambda e: 0.3 + 2 * np.exp(-3 * e)))
    assert verdict.kind == "plateau"
    assert "from epoch 3 on" in verdict.sentence or "from epoch 2 on" in verdict.sentence
    assert read(seen(lambda e: 0.3 + 2 * np.exp(-0.5 * e))).kind != "plateau"


def test_a_loss_that_does_not_fall_is_neither_healthy_nor_hidden_by_a_fault():
    flat = read(seen(lambda e: 1.0, constant=False))
    assert (flat.kind, flat.tone) == ("plateau", "warn")
    assert flat.sentence == "the training loss did not fall."
    fault = Finding("probs-into-CE", "error", try_="Give it the raw scores.")
    verdict = read(seen(falling), [fault])
    assert (verdict.kind, verdict.label) == ("unjudged", "Not judged yet")
    assert verdict.advice.endswith("probs-into-CE before all: Give it the raw scores.")
    assert read(seen(falling), [Finding("init-scale", "info")]).tone == "good"


def test_a_note_on_the_evaluations_is_not_talked_over():
    verdict = read(seen(falling), [Finding("generalisation", "info")])
    assert verdict.tone == "good"
    assert verdict.sentence.startswith("in training, the ")
    assert verdict.sentence.endswith("see the note above.")


def test_healthy_and_still_improving():
    verdict = read(seen(lambda e: 0.3 + 2 * np.exp(-0.5 * e), lambda e: 0.5 + np.exp(-0.5 * e)))
    assert (verdict.kind, verdict.tone) == ("healthy", "good")
    assert "Best validation loss: 0.5 (epoch 20)" in verdict.evidence[1]
    verdict = read(seen(lambda e: 2.3 * np.exp(-0.05 * e)))
    assert verdict.kind == "still_improving"
    assert "epochs" in verdict.sentence


def test_diverged():
    broken = seen(falling)
    broken.series["x"].values[300:] = [float("nan")] * 300
    verdict = read(broken)
    assert (verdict.kind, verdict.tone) == ("diverged", "bad")
    assert "backward pass 301" in verdict.sentence
    rising = seen(lambda e: 0.1 * 2.3 ** max(1 - e, e - 10))
    assert read(rising).kind != "diverged", "a loss may rise on purpose: the check must say so"
    assert read(rising, [Finding("divergence", "warning")]).kind == "diverged"


def test_steps_where_there_are_no_epochs():
    one = seen(falling, epochs=1)
    assert read(one).kind == "short"
    one.series["x"].values *= 20
    one.series["x"].steps = list(range(600))
    assert "spans of 30 steps" in read(one).sentence or read(one).kind != "short"


def test_no_verdict_on_games_and_on_nothing():
    assert read(Seen()) is None
    game = seen(falling)
    game.optimizers.append(OptimizerSeen(1, "SGD", steps=3))
    assert read(game) is None
    two = seen(falling)
    two.series["y"] = two.series["x"]
    assert read(two) is None


# -- on real loops ---------------------------------------------------------------------------------
def held_out(model, losses=None):
    x, y = data(seed=9)
    with torch.no_grad():
        F.cross_entropy(model(x), y)


def test_the_report_ends_with_the_verdict():
    torch.manual_seed(0)
    with watch() as doctor:
        epochs(mlp(8, 64), loader(*data()), 12, lr=0.2, evaluate=held_out)
    report = doctor.report()
    assert report.verdict.tone == "good"
    text = str(report)
    assert text.splitlines()[-1 - len(report.verdict.advice) // 80].startswith("  try")
    assert f"CURVE  {report.verdict.label}" in text
    assert report.verdict.label in report.to_html()
    assert report.verdict.label in report._repr_html_()
    assert "verdict" not in report.to_dict()


def test_random_labels_that_are_learned_overfit():
    torch.manual_seed(0)
    x, y = data()
    y = y[torch.randperm(len(y))]

    def evaluate(model):
        model.eval()
        for a, b in loader(*data(seed=9), shuffle=False):
            with torch.no_grad():
                F.cross_entropy(model(a), b)

    with watch() as doctor:
        epochs(mlp(8, 256), loader(x, y), 30, evaluate=evaluate,
               optimizer=None, lr=0.5)  # fmt: skip
    verdict = doctor.report().verdict
    assert verdict.kind == "overfit", verdict


def test_findings_come_first():
    with watch() as doctor:
        fit(mlp(), F.cross_entropy, zero=False, steps=120)
    report = doctor.report()
    assert report.findings[0].check == "stale-grad"
    assert "stale-grad before all" in report.verdict.advice


def test_a_part_of_a_run_gets_no_verdict():
    with watch(steps=40) as doctor:
        fit(mlp(), F.cross_entropy, steps=120)
    assert doctor.report().verdict is None
    assert Report().verdict is None
