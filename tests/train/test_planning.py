"""What a recipe needs: bytes that can be counted by hand, and what is said of them."""

import json

import pytest
import torch

from brickyard.cli import main
from brickyard.errors import UserError
from brickyard.train import resolve
from brickyard.train.planning import Need, _row, measure, parse_bytes, plan

RECIPE = {
    "data": "digits", "model": {"name": "mlp", "hidden": 200, "depth": 2},
    "loss": "cross_entropy", "batch_size": 64, "threads": 1,
}  # fmt: skip
#: Weights and biases of 64 -> 200 -> 200 -> 10.
COUNT = 64 * 200 + 200 + 200 * 200 + 200 + 200 * 10 + 10


@pytest.mark.parametrize(
    ("optimizer", "slots"),
    [("adamw", 2), ("sgd", 0), ({"name": "sgd", "momentum": 0.9}, 1), ("lion", 1)],
)
def test_weights_gradients_and_state_are_what_they_are(optimizer, slots):
    need = measure(resolve({**RECIPE, "optimizer": optimizer}))
    assert need.weights == need.gradients == 4 * COUNT
    assert need.state == pytest.approx(4 * COUNT * slots, abs=100)


def test_averages_count_as_state():
    plain = measure(resolve(RECIPE))
    averaged = measure(resolve({**RECIPE, "regularizers": ["ema"]}))
    assert averaged.state - plain.state == 4 * COUNT


def test_activations_grow_with_the_batch():
    need = measure(resolve(RECIPE))
    # Kept for the backward pass of each sample: its input, two hidden layers before and after
    # their activation, logits.
    kept = 4 * (64 + 200 + 10)
    assert kept < need.sample < 12 * kept
    assert need.fixed >= 0


def test_planning_leaves_random_numbers_of_the_caller_and_no_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan(resolve(RECIPE), 1, 1 << 30)
    assert not list(tmp_path.iterdir())
    assert not any(p for p in torch.utils._python_dispatch._get_current_dispatch_mode_stack())


@pytest.mark.parametrize("devices", [2, 8])
def test_fsdp_divides_what_ddp_repeats(devices):
    need = Need(weights=800, gradients=800, state=1600, fixed=100, sample=10, block=80)
    ddp, fsdp = (_row(how, need, devices, 64, 10_000) for how in ("ddp", "fsdp"))
    assert (ddp.weights, ddp.state) == (800, 1600)
    assert ddp.gradients == 1600  # and the buckets that are sent
    assert fsdp.weights == 800 / devices + 160
    assert (fsdp.gradients, fsdp.state) == (800 / devices, 1600 / devices)
    assert fsdp.total < ddp.total
    assert fsdp.samples == ddp.samples == 64 // devices
    assert fsdp.most >= ddp.most > 0


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ([], 0, "take one device"),
        (["--gpus", "4"], 0, "take distributed: ddp"),
        (["--memory", "500KB"], 1, "accumulate: "),
        (["--memory", "100KB"], 1, "nothing fits, not even one sample"),
        (["--gpus", "8", "--memory", "600KB"], 0, "take distributed: fsdp"),
    ],
)
def test_says_what_fits(tmp_path, capsys, arguments, code, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps({**RECIPE, "optimizer": "sgd"}))
    assert main(["plan", str(path), *arguments]) == code
    assert text in capsys.readouterr().out


def test_json_has_the_same_numbers(tmp_path, capsys):
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(RECIPE))
    main(["plan", str(path), "--json", "--memory", "1GB"])
    found = json.loads(capsys.readouterr().out)
    assert found["need"]["weights"] == 4 * COUNT
    assert found["memory"] == 1024**3
    row = found["rows"][0]
    parts = (row["weights"], row["gradients"], row["state"], row["activations"])
    assert found["totals"] == [pytest.approx(sum(parts))]


@pytest.mark.parametrize("text", ["lots", "0GB", "-3GB", "3 XB", ""])
def test_sizes_are_checked(text):
    with pytest.raises(UserError, match="80GB"):
        parse_bytes(text)


def test_no_devices_are_refused():
    with pytest.raises(UserError, match="one device at least"):
        plan(resolve(RECIPE), 0, 1)
