"""Every optimizer of the shelf trains from YAML and resumes bit by bit, or is refused with why."""

import copy
import json
import math

import pytest
import torch
import torch.nn.functional as F
import yaml
from alike import StopAt, same
from torch import nn

from brickyard import catalog
from brickyard.errors import RecipeError
from brickyard.optim import NAG, SophiaG, param_groups
from brickyard.schedules import cosine, one_cycle
from brickyard.train import load, resume, train
from brickyard.train.checkpoint import Checkpoints
from brickyard.train.loop import Loop, Parts
from brickyard.train.progress import ProgressLines
from brickyard.train.setup import build_setup

RECIPE = """
data: digits
model: {name: mlp, hidden: [12], normalization: layer_norm, dropout: {name: dropout, p: 0.2}}
loss: cross_entropy
metrics: [accuracy]
budget: 6
batch_size: 32
accumulate: 2
log_every: 2
checkpoint_every: 1
threads: 1
"""
#: What an optimizer needs; few evaluations for each step of L-BFGS, which are 20 by themselves.
GIVEN = {"lookahead": {"inner": {"name": "adamw", "lr": 0.01}, "k": 2}, "lbfgs": {"max_iter": 4}}
#: Documented in ``train.recipe.model.REFUSED``.
REFUSED = {"cma_es": "searches without gradients.*brickyard.optim.CMAES"}


@pytest.fixture
def recipe(tmp_path):
    def write(**changes):
        content = {**yaml.safe_load(RECIPE), **changes}
        path = tmp_path / "try.yaml"
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        return path

    return write


def _last(run):
    state = Checkpoints(run.checkpoints).load("last")
    state["state"].pop("seconds")
    return state


@pytest.mark.parametrize("card", catalog.shelf("optimizer"), ids=lambda card: card.key)
def test_every_optimizer_trains_and_resumes_bit_by_bit(card, recipe, tmp_path):
    path = recipe(optimizer={"name": card.key, **GIVEN.get(card.key, {})})
    if card.key in REFUSED:
        with pytest.raises(RecipeError, match=REFUSED[card.key]):
            load(path)
        return
    whole = train(path, out=tmp_path / "whole")
    start = build_setup(load(path)).parts.model.state_dict()
    moved = [not torch.equal(v, start[k]) for k, v in _last(whole.run)["model"].items()]
    assert all(moved), "every parameter learns"
    train(path, out=tmp_path / "run", progress=StopAt(3))
    again = resume(tmp_path / "run")
    assert same(_last(whole.run), _last(again.run))
    assert whole.run.metrics() == again.run.metrics()


@pytest.mark.parametrize(
    ("target", "options"), [("torch.optim:AdamW", {}), ("torch.optim:LBFGS", {"max_iter": 4})]
)
def test_torchs_own_too(target, options, recipe, tmp_path):
    path = recipe(optimizer={"target": target, "lr": 0.1, **options})
    whole = train(path, out=tmp_path / "whole")
    train(path, out=tmp_path / "run", progress=StopAt(3))
    assert same(_last(whole.run), _last(resume(tmp_path / "run").run))
    sizes = [len(group["parameters"]) for group in whole.summary["groups"]]
    assert sizes == ([2, 3] if "AdamW" in target else [5]), "groups where there is decay"


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"optimizer": "lbfgs", "clipping": "clip_by_global_norm"}, "clipping: not with lbfgs"),
     ({"optimizer": "lbfgs", "precision": "bf16"}, "precision: lbfgs needs fp32"),
     ({"optimizer": "lbfgs", "groups": {"overrides": {"*": {"lr": 1.0}, "*bias": {"lr": 2.0}}}},
      "groups: lbfgs takes one group only"),
     ({"optimizer": "lbfgs", "groups": {"no_decay": "none"}}, "lbfgs has no weight_decay"),
     ({"optimizer": "sophia_g", "loss": "focal"}, "focal stands for none; take .* or sophia_h"),
     ({"optimizer": "sophia_g", "accumulate": 1,
       "loss": {"name": "cross_entropy", "weight": [1.0] * 10}}, "cross_entropy with weight"),
     ({"optimizer": "lookahead"}, "lookahead needs inner, an optimizer, such as inner"),
     ({"groups": "auto"}, "groups .*: give any of no_decay, layer_decay, overrides, such as"),
     ({"optimizer": {"name": "lookahead", "inner": "adamx"}}, "optimizer.inner.*'adamx'; did you"),
     ({"optimizer": {"name": "lookahead", "inner": {"name": "adamw", "lrr": 1}}},
      "optimizer.inner.lrr.*no option 'lrr'; did you mean 'lr'"),
     ({"optimizer": {"name": "lookahead", "inner": "cma_es"}}, "optimizer.inner.*cma_es searches"),
     ({"optimizer": {"target": "brickyard.optim:CMAES", "sigma": 1.0}}, "cma_es searches"),
     ({"optimizer": {"target": "collections:deque"}}, "made a deque; the loop takes a torch"),
     ({"groups": {"overrides": {"haed.*": {"lr": 1.0}}}}, "groups: .*'haed.*' matches no param"),
     ({"groups": {"overrides": {"*": {"lrr": 1.0}}}}, "no option 'lrr'; did you mean 'lr'"),
     ({"groups": {"overrides": {"*": {"lrr": 1.0}}}, "optimizer": {"target": "torch.optim:SGD"}},
      r"groups.overrides.\*: .* no option 'lrr'; did you mean 'lr'"),
     ({"groups": {"overrides": {"*": 3}}}, "groups.overrides .*: give name patterns and options"),
     ({"groups": {"no_decay": "biases"}}, "groups.no_decay .*: give auto, none, or a list"),
     ({"groups": {"layer_decay": 0}}, "groups.layer_decay .*greater than 0; got 0"),
     ({"groups": {"layerdecay": 0.5}}, "no field is called 'layerdecay'; did you mean 'layer_d"),
     ({"groups": {"layer_decay": 0.5}, "optimizer": {"target": "torch.optim:Adam", "lr": -1.0}},
      "optimizer: .*-1"),
     ({"optimizer": {"name": "adamw", "lr": {"base": 0.1}}}, r"optimizer.lr .*one piece"),
     ({"optimizer": {"name": "adamw", "lr": {"name": "cosin"}}}, "optimizer.lr .*'cosin'; did"),
     ({"optimizer": {"name": "adamw", "lr": {"name": "cosine", "base": "x"}}},
      "optimizer.lr.base .*: must be float; got 'x'"),
     ({"optimizer": {"name": "adamw", "lr": {"name": "cosine"}}, "schedule": "cosine"},
      "schedule: optimizer.lr has a schedule of its own"),
     ({"optimizer": {"name": "sgd", "momentum": {"name": "cosine"}}},
      "optimizer.momentum: .*base value of momentum is 0; give base"),
     ({"optimizer": {"name": "lookahead", "inner": "sgd", "alpha": {"name": "cosine"}}},
      "optimizer.alpha: no group has 'alpha' to schedule")],
)  # fmt: skip
def test_what_cannot_be_driven_is_refused_at_the_door(changes, says, recipe):
    with pytest.raises(RecipeError, match=says):
        build_setup(load(recipe(**changes)))


def _net():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 3))


class _Fixed:
    """Give out the same batches of other sizes every epoch."""

    def __init__(self, *sizes):
        torch.manual_seed(1)
        self.batches = [(torch.randn(n, 6), torch.randint(3, (n,))) for n in sizes]

    def __len__(self):
        return len(self.batches)

    def epoch(self, number, start=0):
        yield from self.batches[start:]


def test_accumulated_steps_equal_those_of_the_large_batch():
    """Also with batches of unequal size, and a last step of the epoch with fewer of them."""
    many = _Fixed(8, 8, 3, 5, 2)
    joined = _Fixed(1)
    joined.batches = [tuple(map(torch.cat, zip(*many.batches[a:b], strict=True)))
                      for a, b in ((0, 2), (2, 4), (4, 5))]  # fmt: skip
    models = []
    for train_batches, accumulate in ((many, 2), (joined, 1)):
        model = _net().double()
        for batches in (train_batches,):
            batches.batches = [(x.double(), y) for x, y in batches.batches]
        parts = Parts(model, F.cross_entropy, torch.optim.SGD(model.parameters(), lr=0.5),
                      train_batches, total=7, accumulate=accumulate,
                      penalties=[lambda m: 0.1 * m[0].weight.square().sum()])  # fmt: skip
        loop = Loop(parts)
        assert loop.run() == "budget"
        assert loop.state.epoch == 2
        models.append((model, loop))
    for a, b in zip(*(m.parameters() for m, _ in models), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    losses = [[float(v) for v in loop.state.window] for _, loop in models]
    assert losses[0] == pytest.approx(losses[1])


def test_nag_clips_the_gradient_ahead_and_skips_what_is_not_finite():
    batches, calls = _Fixed(8, 8), []

    def clip(params):
        calls.append([p.detach().clone() for p in params])
        factor = 0.5
        for p in params:
            p.grad.mul_(factor)
        return torch.tensor(math.inf if len(calls) == 3 else 1.0)

    model = _net()
    parts = Parts(model, F.cross_entropy, NAG(model, lr=0.1), batches, total=3, clip=clip)
    parts.allowed_skips = 1
    loop = Loop(parts)
    loop.run()
    assert loop.state.skipped == 1
    hand = _net()
    optimizer = NAG(hand, lr=0.1)
    for step in (0, 1, 3):
        x, y = batches.batches[step % 2]

        def closure(x=x, y=y):
            optimizer.zero_grad()
            loss = F.cross_entropy(hand(x), y)
            loss.backward()
            for p in hand.parameters():
                p.grad.mul_(0.5)
            return loss

        optimizer.step(closure)
    for a, b in zip(model.parameters(), hand.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_line_search_sees_one_function_in_spite_of_dropout():
    """The same random numbers in every closure of a step, others in the next step."""
    masks = []

    class Noise(nn.Module):
        def forward(self, x):
            masks.append(torch.rand(()).item())
            return x * (1 + 0.1 * masks[-1])

    model = nn.Sequential(Noise(), nn.Linear(6, 3))
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=4, line_search_fn="strong_wolfe")
    Loop(Parts(model, F.cross_entropy, optimizer, _Fixed(8), total=2)).run()
    assert len(masks) > 4
    assert len(set(masks)) == 2, "one draw a step"


def test_the_curvature_that_sophia_gets_is_that_of_the_loss(recipe):
    """On average over its draws, the diagonal of the loss's Gauss-Newton matrix."""
    for loss, factor in (("cross_entropy", 1.0), ("mse", 2.0)):
        data = {"mse": "diabetes"}.get(loss, "digits")
        optimizer = {"name": "sophia_g", "betas": [0.9, 0.0], "update_interval": 1}
        path = recipe(loss=loss, data=data, optimizer=optimizer, accumulate=1,
                      metrics=[], model={"name": "mlp", "hidden": [6]})  # fmt: skip
        parts = build_setup(load(path)).parts
        model, sophia = parts.model, parts.optimizer
        assert isinstance(sophia, SophiaG)
        x, y = next(iter(parts.train.epoch(0)))
        found = []
        for _ in range(400):
            sophia.param_groups[0]["hessian_step"] = -1  # due again
            parts.curvature(x, y)
            found.append(sophia.state[sophia.param_groups[1]["params"][-1]]["hessian"].clone())
        out = model(x).detach()
        p = out.softmax(-1)  # d2/db2 of the mean loss, b the bias of the last layer
        want = (p * (1 - p)).mean(0) if loss == "cross_entropy" else factor * torch.ones(1)
        torch.testing.assert_close(torch.stack(found).mean(0), want, rtol=0.25, atol=0.0)


def test_groups_do_what_they_say(recipe, tmp_path):
    groups = {"layer_decay": 0.5, "overrides": {"*.bias": {"lr": 0.5}}}
    path = recipe(optimizer={"name": "adamw", "lr": 0.1, "weight_decay": 0.3}, groups=groups)
    run = train(path, ["budget=2"], out=tmp_path / "run")
    made = build_setup(load(path)).parts.optimizer.param_groups
    of = {name: group for group in made for name in group["param_names"]}
    model = build_setup(load(path)).parts.model
    names = [name for name, _ in model.named_parameters()]
    first, last = (next(n for n in order if n.endswith("weight")) for order in (names, names[::-1]))
    assert of[last]["lr"] == 0.1
    assert of[first]["lr"] < of[last]["lr"]
    assert all(of[n]["lr"] == 0.5 for n in names if n.endswith(".bias"))
    want = param_groups(model, weight_decay=0.3, layer_decay=0.5, lr=0.1,
                        overrides=groups["overrides"])  # fmt: skip
    for group in want:
        for name, _ in group["params"]:
            assert of[name]["weight_decay"] == group["weight_decay"]
    table = (tmp_path / "run" / "groups.txt").read_text().splitlines()
    assert len(table) == 1 + len(names)
    assert sum("matches '*.bias'" in line for line in table) == len(names) // 2
    told = json.loads((tmp_path / "run" / "summary.json").read_text())["groups"]
    assert sum(g["weights"] for g in told) == run.summary["model"]["parameters"]
    none = build_setup(load(recipe(groups={"no_decay": "none"}))).parts.optimizer.param_groups
    assert {g["weight_decay"] for g in none} == {0.01}


def test_muon_leaves_embeddings_to_adamw(tmp_path, monkeypatch, recipe):
    (tmp_path / "tables.py").write_text(
        "from torch import nn\n"
        "def net(input_shape, outputs):\n"
        "    return nn.Sequential(nn.Linear(64, 12), nn.Flatten(), nn.Linear(12, outputs),\n"
        "                         nn.ModuleDict({'e': nn.Embedding(5, 4)}))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    path = recipe(model={"target": "tables:net"}, optimizer="muon",
                  groups={"overrides": {"2.weight": {"use_muon": False}}})  # fmt: skip
    from brickyard.train.make import make
    from brickyard.train.optimization import build_optimizer

    done = load(path).recipe
    model = make(done.model, "model", input_shape=(64,), outputs=10)
    built = build_optimizer(done, model)
    use = {name: g["use_muon"] for g in built.optimizer.param_groups for name in g["param_names"]}
    assert use == {"0.weight": True, "0.bias": True, "2.weight": False, "2.bias": True,
                   "3.e.weight": False}  # fmt: skip
    assert "an embedding is left to AdamW" in built.table()


@pytest.mark.parametrize("kind", ["adamw", "torch.optim:AdamW"])
def test_any_number_of_an_optimizer_may_have_a_schedule(kind, recipe, tmp_path):
    head = {"target": kind} if ":" in kind else {"name": kind}
    path = recipe(optimizer={
        **head, "lr": {"base": 0.02, "schedule": [{"name": "warmup", "steps": 2}, "cosine"]},
        "weight_decay": {"name": "cosine", "base": 0.4}})  # fmt: skip
    again = load(path).recipe.optimizer.options
    assert again["weight_decay"]["base"] == 0.4
    setup = build_setup(load(path))
    seen = []

    class Ear(ProgressLines):
        def boundary(self, loop):
            group = loop.parts.optimizer.param_groups[0]
            decay = group["weight_decay"]
            step = loop.state.step
            seen.append((group["lr"], decay(step) if callable(decay) else decay))

    setup.parts.log_every = 1
    Loop(setup.parts, [Ear()]).run()
    factors = cosine().resolve(total=6)
    assert [w for _, w in seen] == pytest.approx([0.4 * factors(t) for t in range(1, 7)])
    assert [r for r, _ in seen[:2]] == pytest.approx([0.01, 0.02])
    assert seen[-1][0] < 0.02
    assert setup.built.told[1]["options"]["weight_decay"] == 0.0, "what is spared stays spared"
    whole = train(path, out=tmp_path / "whole")
    train(path, out=tmp_path / "run", progress=StopAt(3))
    assert same(_last(whole.run), _last(resume(tmp_path / "run").run))
    plain = {**head, "lr": {"base": 0.02, "schedule": [{"name": "warmup", "steps": 2}, "cosine"]},
             "weight_decay": 0.4}  # fmt: skip
    other = train(recipe(optimizer=plain), out=tmp_path / "plain")
    assert not same(_last(whole.run)["model"], _last(other.run)["model"])


def test_what_is_scheduled_beside_the_rate_is_in_the_rows(recipe, tmp_path):
    """Also by one_cycle, which moves momentum; rows tell the value after their step."""
    path = recipe(
        optimizer={"name": "adamw", "lr": 0.02, "weight_decay": {"name": "cosine", "base": 0.4}},
        schedule=["one_cycle"], log_every=1,
    )  # fmt: skip
    rows = [r for r in train(path, out=tmp_path / "run").run.metrics() if r["split"] == "train"]
    rows = [r for r in rows if "lr" in r]
    factors, cycle = cosine().resolve(total=6), one_cycle(6)
    momentum = cycle.companions["momentum"]
    assert len(rows) == 6
    for r in rows:
        assert r["weight_decay"] == pytest.approx(0.4 * factors(r["step"]))
        assert r["momentum"] == pytest.approx(momentum(r["step"]))
        assert r["lr"] == pytest.approx(0.02 * cycle(r["step"]))
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Weight decay" in page
    assert "Momentum" in page


@pytest.mark.parametrize("kind", ["adamw", "torch.optim:AdamW"])
def test_a_plateau_may_lower_any_number(kind, recipe, tmp_path):
    head = {"target": kind} if ":" in kind else {"name": kind}
    path = recipe(
        optimizer={**head, "lr": 0.02, "weight_decay": {"base": 0.4, "schedule": [
            {"name": "warmup", "steps": 1},
            {"name": "reduce_on_plateau", "factor": 0.5, "patience": 0, "threshold": 9.0,
             "threshold_mode": "abs"}]}},
        evaluate_every=1, log_every=1,
    )  # fmt: skip
    whole = train(path, out=tmp_path / "whole")
    rows = [r for r in whole.run.metrics() if r["split"] == "train" and "lr" in r]
    # Nothing improves by 9: the first evaluation is the best, each later one halves the decay,
    # and a row is written before the evaluation of its step.
    assert [r["weight_decay"] for r in rows] == pytest.approx([0.4, 0.4, 0.2, 0.1, 0.05, 0.025])
    train(path, out=tmp_path / "run", progress=StopAt(3))
    assert same(_last(whole.run), _last(resume(tmp_path / "run").run))
    plain = train(recipe(optimizer={**head, "lr": 0.02, "weight_decay": 0.4}, evaluate_every=1,
                         log_every=1), out=tmp_path / "plain")  # fmt: skip
    assert not same(_last(whole.run)["model"], _last(plain.run)["model"])


def test_training_metrics_are_those_of_the_outputs_that_training_made(recipe, tmp_path):
    """By hand: the same batches through a copy of the model before each of its steps."""
    path = recipe(optimizer={"name": "sgd", "lr": 0.5}, evaluate_every=3,
                  model={"name": "mlp", "hidden": [12]})  # fmt: skip
    setup, hits, count = build_setup(load(path)), 0, 0
    hand = copy.deepcopy(setup.parts)
    step_rows = []
    for i, (x, y) in enumerate(hand.train.epoch(0)):
        out = hand.model(x)
        hits, count = hits + int((out.argmax(1) == y).sum()), count + len(y)
        if i % 2 == 0:
            hand.optimizer.zero_grad()
        (F.cross_entropy(out, y) / 2).backward()
        if i % 2:
            hand.optimizer.step()
        if i % 6 == 5:
            step_rows.append(hits / count)
            hits = count = 0
        if i == 11:
            break
    rows = train(path, out=tmp_path / "run").run.metrics()
    found = [r["accuracy"] for r in rows if r["split"] == "train" and "accuracy" in r]
    assert found == pytest.approx(step_rows)
