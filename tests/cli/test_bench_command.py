"""``brickyard bench optim``: what it measures, what it prints, and how it refuses. Not how fast."""

import json
import os

import pytest

from brickyard.catalog import shelf
from brickyard.cli import main
from brickyard.compiler import command
from brickyard.optim import bench


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """Return a function that runs the command on three small tensors."""
    shapes = tmp_path / "shapes.txt"
    shapes.write_text("8x3x3x3  # a convolution\n\n16, 8\n5\n")

    def call(*arguments, width=80, on=str(shapes)):
        monkeypatch.setenv("COLUMNS", str(width))
        code = main(["bench", "optim", "--shapes", on, *arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_json_holds_every_measure(run):
    code, out, _ = run("--optimizer", "AdamW", "lion", "sgd", "--rounds", "2", "--json",
                       "--backend", "native", "foreach", "torch")  # fmt: skip
    assert code == 0
    found = json.loads(out)
    assert (found["tensors"], found["parameters"], found["rounds"]) == (3, 216 + 128 + 5, 2)
    assert {"processor", "threads", "torch", "brickyard", "compiler"} <= set(found["machine"])
    rows = {(r["optimizer"], r["backend"]): r for r in found["rows"]}
    kinds = ("native", "foreach") if command() else ("foreach",)
    assert set(rows) == {(k, b) for k in ("adamw", "lion", "sgd") for b in kinds} | {
        ("adamw", "torch"), ("sgd", "torch")}  # fmt: skip
    for (key, _), row in rows.items():
        assert row["step"] > 0
        assert row["first"] > 0
        assert row["ratio"] > 0
        assert row["state"] == {"adamw": 8, "lion": 4, "sgd": 0}[key]
    for key, moved in {"adamw": 28, "lion": 20, "sgd": 12}.items() if command() else ():
        row = rows[key, "native"]
        assert row["moved"] == moved
        assert row["rate"] == pytest.approx(moved * 349 / row["step"])
        assert row["cold"] > 0
        assert rows[key, "foreach"]["cold"] is None


@pytest.mark.skipif(not command(), reason="needs a C compiler")
@pytest.mark.parametrize(
    ("key", "moved", "state"),
    [("lookahead", 28 + 16 / 5, 12), ("ranger", 28 + 8 / 6, 12), ("nag", 20 + 28, 4)],
)
def test_bytes_of_what_happens_now_and_then_are_means(key, moved, state):
    runner = bench.Runner(key, "native", [(64, 8)])
    runner.step()
    assert runner.moved() == pytest.approx(moved)
    assert runner.state == state


@pytest.mark.parametrize("width", [80, 160])
def test_the_table_fits_and_names_the_machine(run, width):
    code, out, err = run("--optimizer", "adamw", "sophia_g", "--rounds", "1", width=width)
    assert code == 0
    assert not err
    lines = out.splitlines()
    assert max(map(len, lines)) <= width
    assert "thread" in lines[0]
    assert "torch" in lines[1]
    assert "3 tensors, 349 parameters" in out
    assert sum(line.startswith(("adamw ", "sophia_g ")) for line in lines) == 4
    assert "median" in out
    assert "GB/s" in out


def test_all_optimizers_are_timed_but_those_with_closures():
    keys = {card.key for card in shelf("optimizer")}
    assert set(bench.keys_of([])) == keys - {"lbfgs", "cma_es"}
    assert bench.keys_of(["AdamW", "adamw", "lion"]) == ["adamw", "lion"]


@pytest.mark.parametrize("key", bench.keys_of([]))
def test_every_optimizer_steps(key):
    runner = bench.Runner(key, "foreach", [(6, 5), (7,)])
    before = [p.detach().clone() for p in runner.params]
    assert runner.step() > 0
    assert any((a != b).any() for a, b in zip(before, runner.params, strict=True))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--optimizer", "adamv"], "did you mean 'adam"),
        (["--optimizer", "lbfgs"], "several times per step"),
        (["--backend", "nativ"], "did you mean 'native'?"),
        (["--rounds", "0"], "--rounds must be 1 or more; got 0"),
        (["--round", "1"], "--rounds"),
    ],
)
def test_mistakes_end_in_one_message(run, arguments, says):
    code, out, err = run(*arguments)
    assert code == 2
    assert not out
    assert err.startswith("error: ")
    assert says in err
    assert len(err.splitlines()) == 1


def test_mistaken_shapes_end_in_one_message(run, tmp_path):
    for text, says in (("8x3\n8xa\n", "line 2"), ("8x0\n", "above 0"), ("# none\n", "no shapes")):
        file = tmp_path / "wrong.txt"
        file.write_text(text)
        code, _, err = run(on=str(file))
        assert code == 2
        assert says in err
    code, _, err = run(on="resnet5")
    assert code == 2
    assert "did you mean 'resnet50'?" in err


def test_help_says_what_can_be_asked_for(capsys):
    assert main(["bench", "optim", "--help"]) == 0
    out = capsys.readouterr().out
    for word in ("resnet50", "gpt2", "mlp", "--optimizer", "--backend", "--rounds", "--json"):
        assert word in out


def test_the_cache_of_kernels_is_left_alone(run, tmp_path, monkeypatch):
    monkeypatch.setenv("BRICKYARD_CACHE", str(tmp_path / "mine"))
    assert run("--optimizer", "lion", "--rounds", "1", "--backend", "native")[0] == 0
    assert os.environ["BRICKYARD_CACHE"] == str(tmp_path / "mine")
    assert len(list((tmp_path / "mine").glob("*.so"))) <= 1  # AdamW's, the measure


def test_shapes_are_those_of_the_models():
    sizes = {name: [torch_size(s) for s in made()] for name, made in bench.SHAPES.items()}
    assert {k: (len(v), sum(v)) for k, v in sizes.items()} == {
        "resnet50": (161, 25_557_032), "gpt2": (148, 124_439_808), "mlp": (6, 10_074),
    }  # fmt: skip


def torch_size(shape):
    product = 1
    for n in shape:
        product *= n
    return product
