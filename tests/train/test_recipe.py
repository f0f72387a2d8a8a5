"""Recipes: reading, overrides, every mistake as one clear message, origins of every value."""

import textwrap

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from brickyard.errors import RecipeError
from brickyard.train import Component, Recipe, load, resolve
from brickyard.train.recipe.read import apply_overrides, parse

GOOD = """
data: digits
model: {name: mlp, hidden: [32]}
loss: {name: cross_entropy, label_smoothing: 0.1}
optimizer:
  name: adamw
  lr: 3e-3
schedule: [{name: warmup, steps: 5%}, cosine]
clipping: {name: clip_by_global_norm, max_norm: 1}
metrics: accuracy
budget: 3ep
"""


@pytest.fixture
def recipe(tmp_path):
    def write(text=GOOD, name="try.yaml"):
        path = tmp_path / name
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    return write


def test_reads_and_fills_in(recipe):
    resolved = load(recipe())
    got = resolved.recipe
    assert got.name == "try"
    assert got.optimizer.options["lr"] == 3e-3
    assert got.optimizer.options["weight_decay"] == 0.01
    assert [one.name for one in got.schedule] == ["warmup", "cosine"]
    assert got.clipping.options["max_norm"] == 1.0
    assert [one.name for one in got.metrics] == ["accuracy"]
    again = resolve(yaml.safe_load(yaml.safe_dump(got.to_dict())))
    assert again.recipe == got, "a resolved recipe resolves to itself"


def test_every_value_knows_where_it_came_from(recipe):
    rows = {path: (value, origin) for path, value, origin in
            load(recipe(), ["optimizer.lr=1e-2", "seed=7"]).rows()}  # fmt: skip
    assert rows["optimizer.lr"] == (0.01, "override")
    assert rows["seed"] == (7, "override")
    assert rows["optimizer.weight_decay"] == (0.01, "default of adamw")
    assert rows["loss.label_smoothing"] == (0.1, "line 4")
    assert rows["data.name"] == ("digits", "line 2")
    assert rows["schedule.1.name"] == ("cosine", "line 8")
    assert rows["batch_size"] == (64, "default")
    assert rows["name"] == ("try", "file name")


@pytest.mark.parametrize(
    ("override", "path", "want"),
    [("optimizer.lr=1e-2", ("optimizer", "lr"), 0.01), ("budget=5ep", ("budget",), "5ep"),
     ("optimizer=sgd", ("optimizer",), "sgd"),
     ("schedule.0.steps=3%", ("schedule", 0, "steps"), "3%"),
     ("data.val=0.25", ("data", "val"), 0.25), ("metrics=[accuracy, f1]", ("metrics",),
     ["accuracy", "f1"]), ("clipping=null", ("clipping",), None), ("name=yes", ("name",), "yes"),
     ("optimizer.amsgrad=true", ("optimizer", "amsgrad"), True),
     ("precision.name=bf16", ("precision", "name"), "bf16"), ("name=", ("name",), None)],
)  # fmt: skip
def test_overrides(override, path, want):
    raw, _ = parse(GOOD, "text")
    apply_overrides(raw, [override])
    for key in path:
        raw = raw[key]
    assert raw == want


def test_options_of_a_brick_that_goes_without_saying(recipe):
    plain = recipe("data: digits\nmodel: mlp\nloss: cross_entropy\n")
    optimizer = load(plain, ["optimizer.lr=0.5", "precision.name=bf16"]).recipe.optimizer
    assert optimizer.name == "adamw"
    assert optimizer.options["lr"] == 0.5
    with pytest.raises(RecipeError, match=r"optimizer.momentum \(override\): adamw has no option"):
        load(plain, ["optimizer.momentum=0.9"])


@pytest.mark.parametrize(
    ("override", "says"),
    [("optimizer.lr", "path=value"), ("=3", "path=value"), ("schedule.5.steps=1", "list of 2"),
     ("schedule.x=1", "index from 0 to 1"), ("budget.more=1", "no fields|no field"),
     ("optimizer={a", "not readable YAML")],
)  # fmt: skip
def test_wrong_overrides(override, says, recipe):
    with pytest.raises(RecipeError, match=says):
        load(recipe(), [override])


MISTAKES = [
    ("optimiser: adamw", r"optimiser \(line 2\): no field .* did you mean 'optimizer'"),
    ("batch_size: 0", r"batch_size \(line 2\): .*greater than or equal to 1; got 0"),
    ("batch_size: many", r"batch_size \(line 2\): .*valid integer; got 'many' \(str\)"),
    ("batch_size: true", r"batch_size \(line 2\): .*valid integer; got True \(bool\)"),
    ("precision: fp8", r"precision \(line 2\): .*'fp8'; did you mean"),
    ("budget: 5 hours", r"budget \(line 2\): .*got '5 hours'"),
    ("budget: 10%", r"budget \(line 2\): .*epochs"),
    ("checkpoint_every: often", r"checkpoint_every .*'30s'.*got 'often'"),
    ("optimizer: adamx", r"optimizer \(line 2\): no optimizer is called 'adamx'; did you mean"),
    ("optimizer: {name: adamw, learning_rate: 1}", r"optimizer.learning_rate .*no option"),
    ("optimizer: {name: adamw, lr: fast}", r"optimizer.lr \(line 2\): must be float.*got 'fast'"),
    ("optimizer: {name: adamw, betas: [0.9]}", r"optimizer.betas .*tuple\[float, float\]"),
    ("optimizer: 3", r"optimizer \(line 2\): give a brick's name.*got 3"),
    ("optimizer: {lr: 1}", r"optimizer .*give a brick's name"),
    ("optimizer: {name: adamw, target: 'a:b'}", r"optimizer .*both name and target"),
    ("schedule: [{name: warmup}]", r"schedule.0 .*warmup needs steps"),
    ("schedule: [{name: warmup, kind: up, steps: 1}]", r"schedule.0.kind .*'linear' \| 'exp"),
    ("metrics: [accuracy, accurracy]", r"metrics.1 .*'accurracy'; did you mean 'accuracy'"),
    (
        "loss: adamw",
        r"loss \(line 2\): no loss is called 'adamw'.* is a brick of the kind optimizer",
    ),
    ("regularizers: dropout", r"no regularizer is called 'dropout'.* of the kind dropout"),
    ("model: {target: my_model}", r"model.target .*'package.module:object'; got 'my_model'"),
    ("model: {target: 'no.such:thing'}", r"model.target .*cannot import 'no.such'"),
    ("model: {target: 'math:sine'}", r"model.target .*no 'sine'; did you mean"),
    ("model: {target: 'math:pi'}", r"model.target .*is a float, not callable"),
    ("epochs: 5", r"epochs \(line 2\): no field .*said so: budget: 10ep"),
    ("learning_rate: 0.1", r"learning_rate .*said so: optimizer: \{name: adamw, lr: "),
    ("callbacks: []", r"callbacks .*said so: regularizers, .*loggers"),
    ("whatever: 1", r"whatever .*no field.*; a recipe has data, task, model, loss,"),
    ("data: {name: digits, seed: 1}", r"data.seed .*; split_seed decides .*stands beside digits"),
    ("data: {name: digits, batch_size: 1}", r"data.batch_size .*is a field of the recipe itself"),
    ("data: {name: csv, path: a, target: b}", r"csv has no option 'target'; .*'target_column'"),
    ("name: a/b", r"name \(line 2\): .*got 'a/b'"),
    ("name: ..", r"name \(line 2\): .*got '..'"),
    ("seed: -1", r"seed \(line 2\): .*greater than or equal to 0"),
]


@pytest.mark.parametrize(("line", "says"), MISTAKES, ids=[line for line, _ in MISTAKES])
def test_every_mistake_is_one_clear_message(line, says, recipe):
    field = line.partition(":")[0]
    raw, _ = parse(GOOD, "text")
    raw.pop(field, None)
    path = recipe(f"\n{line}\n{yaml.safe_dump(raw)}")
    with pytest.raises(RecipeError, match=says) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert "Traceback" not in str(caught.value)
    assert "pydantic" not in str(caught.value)


def test_all_mistakes_at_once(recipe):
    path = recipe("data: digitz\nmodel: mlp\nloss: cross_entropy\nbatch_size: 0\nfoo: 1\n")
    with pytest.raises(RecipeError, match="3 mistakes") as caught:
        load(path)
    for word in ("digitz", "batch_size", "foo"):
        assert word in str(caught.value)


def test_missing_fields_name_candidates(recipe):
    with pytest.raises(RecipeError, match=r"model: is missing; give one of: .*mlp"):
        load(recipe("data: digits\nloss: mse\n"))


@pytest.mark.parametrize(
    ("text", "says"),
    [("", "is empty"), ("- a\n- b\n", "holds a list"), ("data: [1, 2\n", "not readable YAML"),
     ("data: digits\ndata: mnist5k\n", "line 2: data is given twice"),
     ("data: {name: digits, name: x}\n", "data.name is given twice"),
     ("groups: {no_decay: [*.bias]}", r"stands in quotes: '\*.bias'"),
     ("a: !!python/object:os.system {}\n", "not readable YAML"), ("a: *b\n", "not readable")],
)  # fmt: skip
def test_unreadable_yaml(text, says, recipe):
    with pytest.raises(RecipeError, match=says):
        load(recipe(text))


def test_no_such_file_lists_its_neighbours(recipe):
    path = recipe()
    path.with_name(".hidden.yaml").write_text("data: digits\n", encoding="utf-8")
    path.with_name("workflow.yaml").write_text("on: push\n", encoding="utf-8")
    with pytest.raises(RecipeError, match=r"no recipe at .*other.yaml; there are [^,]*try.yaml$"):
        load(path.with_name("other.yaml"))
    with pytest.raises(RecipeError, match=r"no recipe at .*tri.yaml; did you mean [^,]*try.yaml\?"):
        load(path.with_name("tri.yaml"))
    below = path.parent / "recipes"
    below.mkdir()
    path.rename(below / "try.yaml")
    with pytest.raises(RecipeError, match=r"there are .*recipes/try.yaml$"):
        load(path.with_name("other.yaml"))


@pytest.mark.parametrize(
    ("text", "want"),
    [("1e-3", 1e-3), ("1E5", 1e5), ("3", 3), ("0123", 123), ("-2.5", -2.5), (".5", 0.5),
     ("yes", "yes"), ("on", "on"), ("true", True), ("null", None), ("~", None), ("5%", "5%"),
     ("1:30", "1:30"), ("2026-01-01", "2026-01-01"), ("1_000", "1_000"), (".inf", float("inf"))],
)  # fmt: skip
def test_plain_values_are_yaml_1_2(text, want):
    value, _ = parse(text, "text")
    assert value == want
    assert type(value) is type(want)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_any_float_survives_yaml(value):
    assert parse(repr(value), "text")[0] == value


def test_python_recipes(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("def make(input_shape, outputs, width: int = 3):\n  ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    recipe = Recipe(data="digits", loss="cross_entropy", model={"target": "mine:make"})
    resolved = resolve(recipe)
    assert resolved.recipe.model == Component(target="mine:make", options={"width": 3})
    origins = {path: origin for path, _, origin in resolved.rows()}
    assert origins["model.width"] == "default of mine:make"
    with pytest.raises(RecipeError, match="'widht'; did you mean 'width'"):
        resolve(recipe.model_copy(update={"model": Component.parse(
            {"target": "mine:make", "widht": 4})}))  # fmt: skip


def test_a_target_that_fails_to_import_says_why(tmp_path, monkeypatch):
    (tmp_path / "broken.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RecipeError, match="importing 'broken' failed: ZeroDivisionError"):
        resolve({"data": "digits", "loss": "mse", "model": {"target": "broken:make"}})


def test_a_missing_extra_names_it(monkeypatch):
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "sklearn" else real(name, *a)
    )
    with pytest.raises(RecipeError, match=r"needs sklearn.*pip install 'brickyard\[data\]'"):
        resolve({"data": "digits", "loss": "cross_entropy", "model": "mlp"})
