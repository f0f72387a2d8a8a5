"""What torch does not offer publicly is guarded: without it less is seen, and a line says so."""

import re
import sys
import types
from pathlib import Path

import pytest
import torch
from doctor_loops import data, epochs, loader, mlp
from torch import nn, overrides
from torch.nn import functional as F
from torch.utils.data import dataloader

from brickyard.doctor import watch
from brickyard.doctor.observe import functions, tensors

DOCTOR = Path(functions.__file__).parents[1]
#: Where each name may stand: the place that guards it.
GUARDED = {
    "overrides._get_current_function_mode_stack": "functions.py",
    "overrides._pop_mode": "functions.py",
    "overrides._push_mode": "functions.py",
    "torch._C": "tensors.py",
    "dataloader._BaseDataLoaderIter": "samples.py",
}


def trained(watched):
    torch.manual_seed(0)
    model = mlp(8, 16, 4, nn.Dropout(0.1))

    def evaluate(model):
        model.eval()
        for x, y in loader(*data(seed=9), shuffle=False):
            with torch.no_grad():
                F.cross_entropy(model(x), y)

    def run():
        epochs(model, loader(*data()), 3, evaluate=evaluate)
        return model.state_dict()

    if not watched:
        return run(), None
    with watch() as doctor:
        found = run()
    return found, doctor.report()


@pytest.mark.parametrize(
    ("owner", "name", "part"),
    [
        (overrides, "_get_current_function_mode_stack", "functions"),
        (overrides, "_pop_mode", "functions"),
        (overrides, "_push_mode", "functions"),
        (dataloader, "_BaseDataLoaderIter", "samples"),
    ],
)
def test_a_torch_without_the_name(owner, name, part, monkeypatch):
    expected, _ = trained(False)
    if owner is overrides:  # torch itself needs it: ours alone goes without
        mine = types.SimpleNamespace(**{k: v for k, v in vars(overrides).items() if k != name})
        monkeypatch.setattr(functions, "overrides", mine)
    else:
        monkeypatch.delattr(owner, name)
    found, report = trained(True)
    assert all(torch.equal(found[k], expected[k]) for k in expected)
    assert [n for n, _ in report.problems] == [part]
    assert name in report.problems[0][1]
    assert [f.check for f in report.findings if f.severity != "info"] == []
    assert [f["severity"] for f in report.to_dict()["findings"]] == ["info"]
    assert report.steps == 24


def test_a_part_that_cannot_be_installed_leaves_the_others(monkeypatch):
    from brickyard.doctor.observe.calls import Calls

    def broken(self, patches):
        raise AttributeError("torch has no lr_scheduler")

    monkeypatch.setattr(Calls, "install", broken)
    _, report = trained(True)
    assert [n for n, _ in report.problems] == ["calls"]
    assert report.steps == 24


def test_a_torch_without_functorchs_stack(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch._C._functorch", types.ModuleType("empty"))
    again = types.ModuleType("again")
    exec(compile(Path(tensors.__file__).read_text(), "again", "exec"), again.__dict__)
    assert again.transformed() is False
    for module in [m for n, m in sys.modules.items() if n.startswith("brickyard.doctor.observe")]:
        if hasattr(module, "transformed"):
            monkeypatch.setattr(module, "transformed", again.transformed)
    x, y = data()
    model = mlp()

    def loss(params, one, label):
        out = torch.func.functional_call(model, params, (one[None],))
        return F.cross_entropy(out, label[None])

    params = {k: p.detach() for k, p in model.named_parameters()}
    with watch():
        found = torch.func.vmap(torch.func.grad(loss), (None, 0, 0))(params, x[:8], y[:8])
    assert found["0.weight"].shape == (8, 16, 8)


def test_nodes_without_a_number():
    assert functions._sequence(object()) == 0
    assert functions._sequence(torch.ones(1, requires_grad=True).exp().grad_fn) > 0


def test_private_names_stand_where_they_are_guarded():
    pattern = re.compile(
        r"\b(?:torch|overrides|dataloader|swa_utils|lr_scheduler)(?:\.[a-z]\w*)*\._[A-Za-z]\w*"
    )
    found = {}
    for path in DOCTOR.rglob("*.py"):
        for name in pattern.findall(path.read_text(encoding="utf-8")):
            found.setdefault(name, set()).add(path.name)
    assert found == {name: {place} for name, place in GUARDED.items()}
