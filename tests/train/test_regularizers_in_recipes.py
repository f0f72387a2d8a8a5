"""Regularizers and waiting schedules in recipes: their place in the loop, resume, and the page."""

import pytest
import torch
from alike import StopAt, read_rows, same, same_runs
from torch import nn

from brickyard.errors import RecipeError
from brickyard.optim import Optimizer
from brickyard.regularize import Ensemble, recalibrate
from brickyard.train import resolve, resume, train
from brickyard.train.checkpoint import Checkpoints
from brickyard.train.loop import Loop
from brickyard.train.setup import build_setup

RECIPE = {
    "data": "digits",
    "model": {
        "name": "mlp",
        "hidden": [24],
        "normalization": "batch_norm",
        "dropout": {"name": "dropout", "p": 0.1},
    },
    "loss": "cross_entropy",
    "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9},
    "metrics": ["accuracy"],
    "budget": "4ep",
    "log_every": 7,
    "checkpoint_every": 11,
    "name": "try",
}
EMA = {"name": "ema", "decay": 0.9}
SWA = {"name": "swa", "start": "30%", "every": 5}
SNAPSHOTS = {"name": "snapshot_ensemble", "keep": 2}
RESTARTS = [{"name": "cosine_restarts", "first": "1ep"}]


@pytest.mark.parametrize(
    "changes",
    [{"regularizers": [EMA]}, {"regularizers": [SWA]},
     {"regularizers": [EMA, SNAPSHOTS], "schedule": RESTARTS},
     {"regularizers": [{"name": "pgd", "eps": 0.1, "steps": 2}, "max_norm", "l1_penalty"]},
     {"schedule": [{"name": "warmup", "steps": 9},
                   {"name": "reduce_on_plateau", "factor": 0.5, "patience": 0, "cooldown": 1,
                    "threshold": 0.02}], "evaluate_every": 8},
     {"schedule": ["one_cycle"]}, {"schedule": ["one_cycle"], "optimizer": {"name": "adamw"}}],
    ids=["ema", "swa", "snapshots", "attack", "plateau", "one_cycle_sgd", "one_cycle_adamw"],
)  # fmt: skip
def test_stopped_and_resumed_is_bit_identical(changes, tmp_path):
    recipe = {**RECIPE, **changes}
    train(recipe, out=tmp_path / "whole")
    train(recipe, out=tmp_path / "parts", progress=StopAt(29))
    resume(tmp_path / "parts", progress=StopAt(52))
    assert resume(tmp_path / "parts").summary["exit_reason"] == "budget"
    same_runs(tmp_path / "whole", tmp_path / "parts")


def _loop(recipe):
    setup = build_setup(resolve(recipe))
    return setup, Loop(setup.parts)


@pytest.mark.parametrize("one", [EMA, SWA])
def test_the_average_is_evaluated_and_kept_as_the_best(one, tmp_path):
    result = train({**RECIPE, "regularizers": [one]}, out=tmp_path / "run")
    rows = read_rows(tmp_path / "run")
    raw = [r for r in rows if r["split"] == "raw"]
    val = [r for r in rows if r["split"] == "val"]
    ready = [r for r in val if r["step"] > (0 if one is EMA else 32)]
    assert [r["step"] for r in raw] == [r["step"] for r in ready]
    assert any(a["loss"] != b["loss"] for a, b in zip(raw, ready, strict=True))
    evaluator = build_setup(resolve(RECIPE)).evaluator
    found = evaluator.run(result.model)
    assert found == pytest.approx(result.summary["best"]["val"]), "the best are averaged weights"
    last = Checkpoints(tmp_path / "run" / "checkpoints").load("last")
    again = build_setup(resolve(RECIPE)).parts.model
    again.load_state_dict(last["model"])
    assert evaluator.run(again) == pytest.approx({k: raw[-1][k] for k in found}), "raw goes on"
    (told,) = result.summary["regularizers"]
    assert told["name"] == one["name"]
    assert told["raw"].keys() == told["averaged"].keys() == {"loss", "accuracy"}
    page = (tmp_path / "run" / "report.html").read_text()
    assert "What the regularizers did" in page
    assert "averaged weights" in page


def test_training_under_an_average_is_training_without():
    ends = []
    for regularizers in ([], [EMA], [SWA]):
        setup, loop = _loop({**RECIPE, "regularizers": regularizers})
        loop.run()
        ends.append({n: t.clone() for n, t in setup.parts.model.state_dict().items()})
    assert same(ends[0], ends[1])
    assert same(ends[0], ends[2])


def test_ema_in_the_loop_is_the_formula():
    setup, loop = _loop({**RECIPE, "regularizers": [EMA], "budget": 15, "evaluate_every": 100})
    model, seen = setup.parts.model, []
    setup.parts.constraints = [lambda m: seen.append(m.state_dict()["head.weight"].clone())]
    mean = model.state_dict()["head.weight"].clone()
    loop.run()
    for n, w in enumerate(seen):
        d = min(0.9, (1 + n) / (10 + n))
        mean = d * mean + (1 - d) * w
    torch.testing.assert_close(setup.parts.average.averaged["head.weight"], mean)


def test_a_skipped_step_is_not_averaged():
    setup, loop = _loop({**RECIPE, "regularizers": [EMA], "budget": 6, "clipping": {
        "name": "clip_by_global_norm", "max_norm": 1.0}})  # fmt: skip
    clip, calls = setup.parts.clip, []

    def sometimes(params):
        calls.append(1)
        return torch.tensor(float("nan")) if len(calls) in (2, 5) else clip(params)

    setup.parts.clip, setup.parts.allowed_skips = sometimes, 1
    loop.run()
    assert loop.state.skipped == 2
    assert len(calls) == 8
    assert setup.parts.average.updates == loop.state.step == 6


def test_swa_measures_statistics_of_its_weights():
    setup, loop = _loop({**RECIPE, "regularizers": [SWA]})
    loop.run()
    swa = setup.parts.average
    got = swa.copy()
    fresh = swa.copy()
    recalibrate(fresh, (x for x, _ in setup.parts.train.epoch(3)))
    raw = setup.parts.model.state_dict()
    for name, t in fresh.state_dict().items():
        if "running" in name:
            torch.testing.assert_close(got.state_dict()[name], t, rtol=1e-5, atol=1e-5)
            assert not torch.equal(t, raw[name])


def test_snapshots_answer_together(tmp_path):
    recipe = {**RECIPE, "regularizers": [SNAPSHOTS], "schedule": RESTARTS}
    result = train(recipe, out=tmp_path / "run")
    (told,) = result.summary["regularizers"]
    assert told["taken"] == [69, 92]
    assert len(told["members"]) == 2
    assert isinstance(result.ensemble, Ensemble)
    evaluator = build_setup(resolve(RECIPE)).evaluator
    assert evaluator.run(result.ensemble) == pytest.approx(told["ensemble"])
    assert told["ensemble"]["loss"] < sum(m["loss"] for m in told["members"]) / 2, "by convexity"
    loaded = Ensemble.from_checkpoints(
        result.model, [tmp_path / "run" / "checkpoints" / "ensemble.pt"]
    ).eval()
    assert evaluator.run(loaded) == pytest.approx(told["ensemble"])
    assert "together" in (tmp_path / "run" / "report.html").read_text()


def test_an_ensemble_of_runs_answers_together(tmp_path):
    """Its members are other runs' best weights and this run's; all are measured and kept.

    Runs of other seeds fit together: what is held out does not depend on the seed.
    """
    plain = {k: v for k, v in RECIPE.items() if k != "schedule"}
    others = [train({**plain, "optimizer": {"name": "sgd", "lr": 0.1}, "budget": "2ep",
                     "seed": seed}, out=tmp_path / f"run{seed}") for seed in (1, 2)]  # fmt: skip
    paths = [str(one.run.path) for one in others]
    recipe = {**plain, "regularizers": [{"name": "ensemble", "models": paths}]}
    train(recipe, out=tmp_path / "cut", progress=StopAt(29))
    result = resume(tmp_path / "cut")
    (told,) = result.summary["regularizers"]
    evaluator = build_setup(resolve(RECIPE)).evaluator
    wanted = [evaluator.run(one.model) for one in (result, *others)]
    assert told["others"] == paths
    assert told["members"] == [pytest.approx(one) for one in wanted]
    assert result.ensemble.of == "softmax"
    assert evaluator.run(result.ensemble) == pytest.approx(told["ensemble"])
    assert told["ensemble"]["loss"] < sum(m["loss"] for m in told["members"]) / 3, "by convexity"
    last = Checkpoints(tmp_path / "cut" / "checkpoints").load("last")
    assert not last["own"], "members stand in their own files"
    kept = Ensemble.from_checkpoints(
        result.model, [tmp_path / "cut" / "checkpoints" / "ensemble.pt"]
    ).eval()
    assert evaluator.run(kept) == pytest.approx(told["ensemble"])
    page = (tmp_path / "cut" / "report.html").read_text()
    assert "The model of this run and 2 others together" in page
    for changes, says in (
        ({"split_seed": 1}, "regularizers.0: the run .* was trained on other samples"),
        ({"model": {"name": "mlp", "hidden": [9]}}, "holds no weights of such a model"),
        ({"regularizers": [{"name": "ensemble", "models": [str(tmp_path / "none")]}]},
         "regularizers.0: no run folder or checkpoint"),
        ({"regularizers": [*recipe["regularizers"], {**SNAPSHOTS, "at": "1ep"}]}, "keep one of"),
    ):  # fmt: skip
        with pytest.raises(RecipeError, match=says):
            build_setup(resolve({**recipe, **changes}))


def test_penalties_and_constraints_are_told(tmp_path):
    regularizers = [{"name": "l1_penalty", "weight": 3e-3}, {"name": "max_norm", "c": 0.8}]
    result = train({**RECIPE, "regularizers": regularizers}, out=tmp_path / "run")
    sparse, bounded = result.summary["regularizers"]
    plain = train(RECIPE, out=tmp_path / "plain")
    weights = [m.weight for m in result.model.modules() if isinstance(m, nn.Linear)]
    assert max(w.norm(dim=1).max().item() for w in weights) <= 0.8 + 1e-5
    assert bounded["largest"] <= 0.8 + 1e-5
    assert sum(bounded["histogram"]) == bounded["units"] == 34
    before = [m.weight for m in plain.model.modules() if isinstance(m, nn.Linear)]
    assert sum(w.abs().sum() for w in weights) < 0.7 * sum(w.abs().sum() for w in before)
    assert 0 <= sparse["near_zero"] <= 1
    page = (tmp_path / "run" / "report.html").read_text()
    assert "near zero" in page
    assert "Norms of the units" in page
    assert "What the regularizers did" not in (tmp_path / "plain" / "report.html").read_text()


def test_adversarial_training_makes_robust(tmp_path):
    # Digits are standardised or not by the reader: eps is in the inputs' units either way.
    metric = {"name": "robust_accuracy", "eps": 0.3, "steps": 5}
    values = []
    for regularizers in ([], [{"name": "pgd", "eps": 0.3, "steps": 3, "weight": 1.0}]):
        recipe = {**RECIPE, "metrics": ["accuracy", metric], "regularizers": regularizers}
        result = train(recipe, out=tmp_path / f"run{len(values)}")
        found = result.summary["final"]["val"]
        assert found["robust_accuracy"] <= found["accuracy"]
        values.append(found["robust_accuracy"])
    assert values[1] > values[0]
    assert "robust_accuracy" not in result.summary["final"]["train"]


def test_decay_of_any_optimizer():
    setup, loop = _loop({**RECIPE, "budget": 3, "optimizer": {"name": "adam", "lr": 1e-3},
                         "regularizers": [{"name": "weight_decay", "rate": 0.5,
                                           "convention": "independent"}]})  # fmt: skip
    loop.run()
    assert setup.parts.model.head.weight.abs().max() < 0.1


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"regularizers": ["ema", "swa"]}, "regularizers.1: an average of the weights is given twice"),
     ({"regularizers": ["fgsm", "pgd"]}, "regularizers.1: adversarial training is given twice"),
     ({"regularizers": ["snapshot_ensemble"]}, "no cycle that ends within the run"),
     ({"regularizers": [{"name": "swa", "start": "99%", "every": "1ep"}]}, "start earlier"),
     ({"regularizers": [{"name": "ema", "decay": 1.5}]}, "regularizers.0: decay must be"),
     ({"regularizers": [{"name": "l1_penalty", "where": "nothing.*"}]}, "matches no trained"),
     ({"regularizers": ["weight_decay"], "optimizer": "adamw"}, "decays already"),
     ({"schedule": [{"name": "reduce_on_plateau", "mode": "min"}]},
      "schedule.0: .*accuracy high values are good"),
     ({"schedule": ["one_cycle"], "optimizer": {"name": "sgd", "lr": 0.1, "momentum": {
         "name": "linear", "base": 0.9}}}, "schedule: it moves momentum too")],
)  # fmt: skip
def test_what_is_refused(changes, says):
    with pytest.raises(RecipeError, match=says):
        build_setup(resolve({**RECIPE, **changes}))


@pytest.mark.parametrize(("monitor", "mode"), [("accuracy", "max"), ("loss", "min")])
def test_a_plateau_waits_for_the_runs_monitor(monitor, mode):
    plateau = {"name": "reduce_on_plateau", "factor": 0.5, "patience": 1}
    setup, loop = _loop({**RECIPE, "schedule": [plateau], "monitor": monitor, "budget": "9ep"})
    good, bad = (0.9, 0.1) if mode == "max" else (0.1, 0.9)
    values = iter([bad, good, bad, bad, bad, bad, good, good, good])
    setup.evaluator.run = lambda model: {"loss": 1.0, "accuracy": 0.5, monitor: next(values)}
    rates = []
    loop.listeners.append(_Listener(lambda: rates.append(loop.rate())))
    loop.run()
    # The rate of the evaluation is the old one; two without improvement halve it.
    assert rates == pytest.approx([0.1, 0.1, 0.1, 0.1, 0.05, 0.05, 0.025, 0.025, 0.0125])


class _Listener:
    def __init__(self, call):
        self.call = call

    def logged(self, loop, values):
        pass

    def evaluated(self, loop, values, best):
        self.call()

    def boundary(self, loop):
        pass


@pytest.mark.parametrize(
    ("optimizer", "read"),
    [({"name": "sgd", "lr": 0.1, "momentum": 0.9}, lambda g: g["momentum"]),
     ({"name": "sgd", "lr": 0.1}, lambda g: g["momentum"]),
     ({"name": "adamw", "lr": 0.01}, lambda g: g["betas"][0]),
     ({"name": "lookahead", "inner": {"name": "adamw", "lr": 0.01}}, lambda g: g["betas"][0])],
    ids=["momentum", "from_nothing", "betas", "lookahead"],
)  # fmt: skip
def test_one_cycle_moves_momentum_the_other_way(optimizer, read):
    setup, loop = _loop({**RECIPE, "optimizer": optimizer, "schedule": ["one_cycle"]})
    group = setup.parts.optimizer.param_groups[0]
    seen, total = [], setup.parts.total
    setup.parts.constraints = [lambda m: seen.append((float(group["lr"]), read(group)))]
    loop.run()
    schedule = setup.parts.scheduler.bound["lr"].schedule
    peak = optimizer.get("lr") or optimizer["inner"]["lr"]
    for step, (rate, momentum) in enumerate(seen):
        assert rate == pytest.approx(peak * schedule(step))
        assert momentum == pytest.approx(schedule.companions["momentum"](step))
    assert len(seen) == total
    low = min(range(total), key=lambda i: seen[i][1])
    high = max(range(total), key=lambda i: seen[i][0])
    assert low == high == 28
    assert seen[low][1] == pytest.approx(0.85, abs=1e-3)


def test_scheduled_momentum_reaches_the_step():
    """A hand-written loop with the same values takes the same steps."""
    ends = []
    recipe = {**RECIPE, "model": {"name": "mlp", "hidden": [8]}, "schedule": ["one_cycle"],
              "budget": 20}  # fmt: skip
    for mine in (True, False):
        setup, loop = _loop(recipe)
        if mine:
            assert isinstance(setup.parts.optimizer, Optimizer)
        else:
            model = setup.parts.model
            setup.parts.optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
            schedule = setup.parts.scheduler.bound["lr"].schedule
            setup.parts.scheduler = schedule.bind(setup.parts.optimizer)
        loop = Loop(setup.parts)
        loop.run()
        ends.append(torch.cat([p.detach().flatten() for p in setup.parts.model.parameters()]))
    torch.testing.assert_close(*ends, rtol=1e-4, atol=1e-5)
