"""Switches of a recipe: each does what it says, and nothing else."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from brickyard.errors import RecipeError
from brickyard.losses import DistillationLoss
from brickyard.nn.models import CNN
from brickyard.regularize import EMA
from brickyard.train import export_run, load_exported, resolve, train
from brickyard.train.distillation import Teacher
from brickyard.train.setup import build_setup
from brickyard.train.switches import recompute_layers

BASE = {"data": "digits", "model": {"name": "mlp", "hidden": [16, 16]}, "loss": "cross_entropy",
        "metrics": ["accuracy"], "budget": 6, "device": "cpu", "threads": 1,
        "log_every": 1, "eval_batch_size": 512}  # fmt: skip


def _net():
    torch.manual_seed(0)
    block = lambda: nn.Sequential(  # noqa: E731
        nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3)
    )
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Sequential(block(), block()), nn.Flatten(),
                         nn.LazyLinear(3))  # fmt: skip


@pytest.mark.parametrize("patterns", ["auto", "1.*", ["1.0", "1.1"], ["1"]])
def test_recomputed_layers_give_the_same_bits_and_count_a_batch_once(patterns):
    x, results = torch.randn(8, 1, 8, 8), []
    for recompute in (False, True):
        model = _net()
        model(x)
        if recompute:
            keys = list(model.state_dict())
            names = recompute_layers(model, patterns)
            assert names == ([""] if patterns == "auto" else ["1"] if patterns == ["1"] else
                             ["1.0", "1.1"])  # fmt: skip
            assert list(model.state_dict()) == keys
        copied = copy.deepcopy(model)
        assert [n for n, m in copied.named_modules() if "forward" in vars(m)] == (
            names if recompute else [])  # fmt: skip
        torch.manual_seed(1)
        model(x).square().sum().backward()
        before = copied.state_dict()["0.weight"].clone()
        model.zero_grad(set_to_none=False)
        torch.manual_seed(1)
        model(x).square().sum().backward()
        grads = [p.grad.clone() for p in model.parameters()]
        state = [t.clone() for t in model.state_dict().values()]
        assert torch.equal(copied.state_dict()["0.weight"], before)
        torch.manual_seed(1)
        copied(x).sum().backward()
        assert all(p.grad is not None for p in copied.parameters()), "copies have weights of theirs"
        model.eval()
        results.append([*grads, *state, model(x)])
    for plain, again in zip(*results, strict=True):
        assert torch.equal(plain, again)


def test_recomputed_layers_keep_less():
    """What autograd keeps for the backward pass, in bytes."""

    def kept(patterns):
        torch.manual_seed(0)
        model = CNN(input_shape=(1, 16, 16), outputs=3)
        if patterns:
            recompute_layers(model, patterns)
        seen = {}

        def pack(t):
            seen[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
            return t

        weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            output = model(torch.randn(64, 1, 16, 16))
        del output
        return sum(size for place, size in seen.items() if place not in weights)

    assert kept("auto") < 0.7 * kept(None)


def test_layers_are_recomputed_in_training_only():
    calls = []

    class Counted(nn.Linear):
        def forward(self, x):
            calls.append(torch.is_grad_enabled())
            return super().forward(x)

    model = nn.Sequential(*(nn.Sequential(Counted(2, 2)) for _ in range(2)))
    assert recompute_layers(model, "auto") == ["0", "1"]
    model(torch.ones(1, 2, requires_grad=True)).sum().backward()
    assert len(calls) == 4
    calls.clear()
    with torch.no_grad():
        model(torch.ones(1, 2))
    model.eval()
    model(torch.ones(1, 2)).sum().backward()
    assert len(calls) == 4


def test_patterns_of_layers_must_match():
    with pytest.raises(ValueError, match=r"'bdoy.0' matches no layer; did you mean 'body.0'"):
        recompute_layers(build_setup(resolve(BASE)).parts.model, ["bdoy.0"])
    with pytest.raises(ValueError, match="Linear has no chain of layers"):
        recompute_layers(nn.Linear(1, 1), "auto")
    with pytest.raises(RecipeError, match="checkpoint_layers: 'nose' matches no layer"):
        build_setup(resolve({**BASE, "checkpoint_layers": ["nose"]}))


def test_recipes_recompute_layers_bit_by_bit(tmp_path):
    ran = {}
    for name, given in (("plain", None), ("again", "auto")):
        recipe = {**BASE, "checkpoint_layers": given, "precision": "bf16",
                  "regularizers": [{"name": "ema", "decay": 0.5}]}  # fmt: skip
        ran[name] = train(recipe, out=tmp_path / name)
    forwards = [m for m in ran["again"].model.modules() if "forward" in vars(m)]
    assert forwards
    assert not [m for m in ran["plain"].model.modules() if "forward" in vars(m)]
    for name, value in ran["plain"].model.state_dict().items():
        assert torch.equal(value, ran["again"].model.state_dict()[name]), name


def test_recipes_compile(tmp_path):
    from torch._dynamo.utils import counters

    plain = train(BASE, out=tmp_path / "plain")
    counters.clear()
    recipe = {**BASE, "compile": {"backend": "aot_eager"},
              "regularizers": [{"name": "ema", "decay": 0.5}]}  # fmt: skip
    result = train(recipe, out=tmp_path / "run")
    assert counters["stats"]["unique_graphs"] > 0
    best = torch.load(tmp_path / "run/checkpoints/best.pt", weights_only=True)
    assert list(best["model"]) == list(plain.model.state_dict())
    export_run(tmp_path / "run", formats=("safetensors",))
    loaded = load_exported(tmp_path / "run/export")
    x = torch.randn(4, 64)
    torch.testing.assert_close(loaded(x), result.model.eval()(x))
    losses = [[r["loss"] for r in one.run.metrics() if r["split"] == "train" and "loss" in r]
              for one in (plain, result)]  # fmt: skip
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_what_cannot_be_compiled_is_told_at_the_door():
    with pytest.raises(RecipeError, match=r"cannot compile this model here \(backend nosuch\)"):
        build_setup(resolve({**BASE, "compile": {"backend": "nosuch"}}))
    with pytest.raises(RecipeError, match=r"compile: give true, false, or any of backend, mode"):
        resolve({**BASE, "compile": {"backnd": "eager"}})


def test_a_teacher_counts_by_its_weight():
    torch.manual_seed(0)
    x, y = torch.randn(8, 4), torch.randint(0, 3, (8,))
    student, teacher = nn.Linear(4, 3), nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 3))
    made = Teacher(teacher, lambda model, x: model(x), temperature=3.0, weight=0.25)
    found = made(x, student(x), F.cross_entropy(student(x), y))
    want = DistillationLoss(temperature=3.0, alpha=0.25)(student(x), teacher[1](x), y)
    torch.testing.assert_close(found, want)
    found.backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert student.weight.grad is not None


@pytest.mark.parametrize("form", ["run", "export", "target"])
def test_recipes_learn_from_a_teacher(tmp_path, form):
    """With all the weight on the teacher, the student comes nearer to it than without."""
    fast = {**BASE, "budget": "6ep", "optimizer": {"name": "adamw", "lr": 1e-2}}
    taught = train(fast, out=tmp_path / "teacher")
    if form == "export":
        export_run(tmp_path / "teacher", tmp_path / "exported", formats=("safetensors",))
    given = {"run": str(tmp_path / "teacher"), "export": str(tmp_path / "exported"),
             "target": {"target": f"{__name__}:zero"}}[form]  # fmt: skip
    recipe = {**fast, "seed": 7, "distillation":
              {"teacher": given, "temperature": 2.0, "weight": 1.0}}  # fmt: skip
    setup = build_setup(resolve(recipe))
    assert not setup.parts.teacher.model.training
    model = train(recipe, out=tmp_path / "student").model.eval()
    x = setup.data.val.x
    with torch.no_grad():
        if form == "target":
            assert model(x).softmax(1).max() < 0.3, "it has learnt to be unsure"
        else:
            assert torch.equal(setup.parts.teacher.model(x), taught.model.eval()(x))
            agreed = (model(x).argmax(1) == taught.model(x).argmax(1)).float().mean()
            assert agreed > 0.8


def zero(input_shape, outputs):
    """Make a teacher that knows nothing."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, outputs))
    nn.init.zeros_(net[1].weight)
    nn.init.zeros_(net[1].bias)
    return net


def seven(input_shape):
    """Make a teacher of other classes."""
    return nn.Linear(64, 7)


@pytest.mark.parametrize(
    ("distillation", "says"),
    [({"teacher": {"target": f"{__name__}:seven"}},
      r"the teacher answers with shape \(32, 7\) and the student with \(32, 10\)"),
     ({"teacher": "nowhere"}, "distillation.teacher: no folder at nowhere; give a run folder"),
     ({"teacher": {"target": f"{__name__}:zero"}, "weight": 2.0}, "distillation: .*alpha"),
     ({"teacher": {"target": f"{__name__}:zero"}, "temperature": 0.0}, "temperature"),
     ({"temperature": 2.0}, r"give \{teacher: RUN_FOLDER")],
)  # fmt: skip
def test_teachers_that_cannot_teach_are_refused(distillation, says):
    with pytest.raises(RecipeError, match=says):
        build_setup(resolve({**BASE, "distillation": distillation}))


def test_teachers_of_numbers_are_refused():
    recipe = {**BASE, "data": "diabetes", "loss": "mse", "metrics": ["r2"],
              "distillation": {"teacher": "nowhere"}}  # fmt: skip
    with pytest.raises(RecipeError, match="distillation: a teacher's distribution over classes"):
        build_setup(resolve(recipe))


def test_averages_of_a_recomputed_model_stand_for_themselves():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    recompute_layers(model, "auto")
    average = EMA(model, decay=0.5)
    average.update()
    with torch.no_grad():
        model[0].weight.add_(1.0)
    average.update()
    x = torch.ones(1, 2)
    plain = model(x)
    with average.applied():
        assert not torch.equal(model(x), plain)
    assert torch.equal(model(x), plain)
