"""Telemetry: the ratio of steps to weights at logged steps, from the optimizer's own pass."""

import json
from typing import ClassVar

import pytest
import torch
from alike import StopAt

from brickyard.errors import RecipeError
from brickyard.optim import AdamW
from brickyard.train import Recipe, resolve, resume, train
from brickyard.train.loggers import Logger
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


class Kept(Logger):
    """Keep the rows on layers."""

    rows: ClassVar[list[tuple[int, dict[str, float]]]] = []

    def row(self, step, epoch, split, values):
        if split == "layers":
            self.rows.append((step, dict(values)))


def test_every_layer_is_written_and_logged_at_the_chosen_interval(tmp_path):
    """Also after a resume: every row once, and the same ones."""
    Kept.rows.clear()
    recipe = {**RECIPE, "budget": "2ep", "telemetry": 12, "checkpoint_every": 7,
              "loggers": [{"target": f"{__name__}:Kept"}]}  # fmt: skip
    run = train(recipe, out=tmp_path / "whole").run
    rows, names = run.telemetry(), dict(build_setup(resolve(RECIPE)).parts.model.named_parameters())
    assert [row["step"] for row in rows] == [15, 30, 45, 46], "at rows, which come every 5 steps"
    for asked, every in ((True, 5), ("1ep", 25), (5, 5), (6, 10)):
        setup = build_setup(resolve({**RECIPE, "telemetry": asked}))
        assert setup.parts.telemetry.every == every
    for row, (step, flat) in zip(rows, Kept.rows, strict=True):
        assert row.pop("split") == "layers"
        assert row.pop("step") == step
        assert row.pop("epoch") > 0
        assert set(row) == set(names)
        for name, one in row.items():
            assert set(one) == {"grad_norm", "update_norm", "param_norm", "update_ratio"}
            assert one["update_ratio"] == pytest.approx(one["update_norm"] / one["param_norm"])
            assert flat[f"grad_norm/{name}"] == pytest.approx(one["grad_norm"])
            assert flat[f"update_ratio/{name}"] == pytest.approx(one["update_ratio"])
        ratios = [one["update_ratio"] for name, one in row.items() if names[name].ndim > 1]
        (told,) = (r for r in run.metrics() if r["step"] == step and "update_ratio" in r)
        assert told["update_ratio_high"] == pytest.approx(max(ratios))
        whole = sum(one["grad_norm"] ** 2 for one in row.values()) ** 0.5
        assert whole == pytest.approx(told["grad_norm"], rel=1e-5)
    train(recipe, out=tmp_path / "cut", progress=StopAt(31))
    resume(tmp_path / "cut")
    assert (tmp_path / "cut" / "telemetry.jsonl").read_text() == (
        tmp_path / "whole" / "telemetry.jsonl").read_text()  # fmt: skip


def test_norms_are_of_gradients_without_a_scale_and_after_clipping(tmp_path):
    recipe = {**RECIPE, "telemetry": True, "log_every": 1, "budget": 3,
              "clipping": {"name": "clip_by_global_norm", "max_norm": 0.1}}  # fmt: skip
    for precision in ("fp32", "fp16"):
        run = train({**recipe, "precision": precision}, out=tmp_path / precision).run
        for row in run.telemetry():
            norms = [one["grad_norm"] for one in row.values() if isinstance(one, dict)]
            assert sum(n**2 for n in norms) ** 0.5 == pytest.approx(0.1, rel=1e-2)


def test_without_telemetry_there_is_no_file(tmp_path):
    assert train(RECIPE, out=tmp_path / "run").run.telemetry() == []
    assert not (tmp_path / "run" / "telemetry.jsonl").exists()
    for wrong in ("often", 0, "10%", None):
        with pytest.raises(RecipeError, match="telemetry: give true, false, or a distance"):
            resolve({**RECIPE, "telemetry": wrong})
