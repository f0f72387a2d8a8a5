"""Telemetry: the ratio of steps to weights at logged steps, from the optimizer's own pass."""

import json

import pytest
import torch

from brickyard.errors import RecipeError
from brickyard.optim import AdamW
from brickyard.train import Recipe, resolve, train
from brickyard.train.loop import Loop
from brickyard.train.setup import build_setup
from brickyard.train.telemetry import Telemetry

RECIPE = {
    "data": "digits", "model": {"name": "mlp", "hidden": [8, 8]}, "loss": "cross_entropy",
    "budget": 12, "log_every": 5, "name": "try", "evaluate_every": 12,
}  # fmt: skip


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "lion", "muon", "lamb"])
def test_ratios_are_those_of_the_weights_before_and_after(optimizer):
    setup = build_setup(resolve({**RECIPE, "optimizer": {"name": optimizer, "lr": 1e-2},
                                 "telemetry": True}))  # fmt: skip
    model, wanted, found = setup.parts.model, [], []

    class Listen:
        def logged(self, loop, values):
            found.append((values, wanted[-1]))

        def evaluated(self, *_):
            pass

        def boundary(self, loop):
            pass

    optim = setup.parts.optimizer
    step = type(optim).step

    def watched(closure=None):
        layers = [p.detach() for p in model.parameters() if p.ndim > 1]
        before = [p.double() for p in layers]
        step(optim, closure)
        pairs = zip(layers, before, strict=True)
        wanted.append([float((p - b).norm() / p.norm()) for p, b in pairs])

    optim.step = watched
    Loop(setup.parts, [Listen()]).run()
    assert [values.get("update_ratio") is not None for values, _ in found] == [True] * 3
    for values, ratios in found:
        assert values["update_ratio_low"] == pytest.approx(min(ratios), rel=1e-3)
        assert values["update_ratio"] == pytest.approx(sorted(ratios)[1], rel=1e-3)
        assert values["update_ratio_high"] == pytest.approx(max(ratios), rel=1e-3)


def test_only_logged_steps_make_norms():
    p = torch.nn.Parameter(torch.ones(2, 2))
    watch = Telemetry(AdamW([p], lr=0.1), every=3, total=7)
    asked = []
    for step in range(1, 8):
        watch.before(step)
        asked.append(watch.optimizer.telemetry)
        p.grad = torch.ones(2, 2)
        watch.optimizer.step()
        if asked[-1]:
            assert watch.values()
            assert watch.values() == {}, "they are told once"
    assert asked == [False, False, True, False, False, True, True]


def test_rows_have_ratios_only_when_asked_for(tmp_path):
    for on in (True, False):
        train({**RECIPE, "telemetry": on, "budget": 60}, out=tmp_path / str(on))
        rows = (tmp_path / str(on) / "metrics.jsonl").read_text().splitlines()
        named = [json.loads(row) for row in rows if '"lr"' in row]
        assert all(("update_ratio" in row) == on for row in named)
    assert "Update ratio" in (tmp_path / "True" / "report.html").read_text()


def test_optimizers_without_norms_are_refused():
    given = {**RECIPE, "optimizer": {"target": "torch.optim:SGD", "lr": 0.1}, "telemetry": True}
    with pytest.raises(RecipeError, match="telemetry: telemetry needs an optimizer that makes"):
        build_setup(resolve(Recipe.model_validate(given)))
