"""Who is decayed, at which rate, and why: each parameter in exactly one group."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from brickyard import optim
from brickyard.optim import param_groups


class Normed(nn.LayerNorm):
    """Somebody's own norm, by inheritance."""


class Gate(nn.Module):
    """Somebody's own layer: a matrix, a scale per channel, a temperature."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.ones(3, 3))
        self.scale = nn.Parameter(torch.ones(1, 3, 1, 1))
        self.temperature = nn.Parameter(torch.ones(1, 1))
        self.row = nn.Parameter(torch.ones(1, 3))


class Marked(nn.Module):
    no_decay = ("table",)

    def __init__(self) -> None:
        super().__init__()
        self.table, self.other = nn.Parameter(torch.ones(4, 2)), nn.Parameter(torch.ones(4, 2))


class Wholly(nn.Linear):
    no_decay = True


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 3)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(3, 3), Normed(3)) for _ in range(2)])
        self.conv = nn.Conv1d(1, 1, 5)
        self.norms = nn.ModuleList([nn.BatchNorm1d(3), nn.GroupNorm(1, 3), nn.InstanceNorm1d(
            3, affine=True), nn.RMSNorm(3)])  # fmt: skip
        self.gate, self.marked, self.wholly = Gate(), Marked(), Wholly(2, 2)
        self.attention, self.memory = nn.MultiheadAttention(4, 2), nn.GRU(3, 3)
        self.act = nn.PReLU(3)
        self.head = nn.Linear(3, 7)
        self.head.weight = self.embed.weight  # tied
        self.frozen = nn.Parameter(torch.ones(2, 2), requires_grad=False)


#: Every weight that is decayed; all others are not.
DECAYED = {
    "embed.weight", "blocks.0.0.weight", "blocks.1.0.weight", "conv.weight", "gate.mix", "gate.row",
    "marked.other", "attention.in_proj_weight", "attention.out_proj.weight", "memory.weight_ih_l0",
    "memory.weight_hh_l0",
}  # fmt: skip


def spread(groups: Any, key: str) -> dict[str, Any]:
    return {name: group.get(key) for group in groups for name, _ in group["params"]}


def test_auto_leaves_out_what_should_not_be_decayed() -> None:
    model = Model()
    groups = param_groups(model, weight_decay=0.1)
    found = spread(groups, "weight_decay")
    assert {name for name, decay in found.items() if decay == 0.1} == DECAYED
    assert {decay for name, decay in found.items() if name not in DECAYED} == {0.0}
    assert sorted(found) == sorted(n for n, p in model.named_parameters() if p.requires_grad)
    assert len(groups) == 2


def test_a_mark_on_a_parameter_works_without_changing_its_class() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight.no_decay = True  # type: ignore[assignment]
    groups = param_groups(model, weight_decay=0.1)
    assert spread(groups, "weight_decay")["1.weight"] == 0.0
    assert "1.weight" in next(line for line in groups.table().splitlines() if "marked" in line)


def test_none_decays_everything_and_patterns_decide_alone() -> None:
    model = Model()
    everything = spread(param_groups(model, weight_decay=0.1, no_decay="none"), "weight_decay")
    assert set(everything.values()) == {0.1}
    some = spread(param_groups(model, 0.1, no_decay=["*.bias", "blocks.*.1.*"]), "weight_decay")
    assert some["head.bias"] == some["blocks.0.1.weight"] == 0.0
    assert some["norms.0.weight"] == 0.1
    assert some["marked.table"] == 0.0  # marks hold whatever the patterns


def test_a_tied_parameter_is_found_by_each_of_its_names_and_appears_once() -> None:
    model = Model()
    groups = param_groups(model, 0.1, overrides={"head.weight": {"lr": 0.5}})
    rates = spread(groups, "lr")
    assert "head.weight" not in rates
    assert rates["embed.weight"] == 0.5
    held = [p for group in groups for _, p in group["params"]]
    assert len({id(p) for p in held}) == len(held)
    torch.optim.SGD(groups, lr=0.1)  # torch refuses a parameter in two groups


def test_layer_decay_counts_layers_from_the_last() -> None:
    model = nn.Module()
    model.embed = nn.Linear(2, 2)
    model.blocks = nn.ModuleList([nn.Linear(2, 2) for _ in range(3)])
    model.head = nn.Linear(2, 2)
    rates = spread(param_groups(model, 0.1, layer_decay=0.5, lr=1.0), "lr")
    assert rates == {
        "embed.weight": 1 / 16, "embed.bias": 1 / 16, "blocks.0.weight": 1 / 8,
        "blocks.0.bias": 1 / 8, "blocks.1.weight": 1 / 4, "blocks.1.bias": 1 / 4,
        "blocks.2.weight": 1 / 2, "blocks.2.bias": 1 / 2, "head.weight": 1.0, "head.bias": 1.0,
    }  # fmt: skip


def test_overrides_win_in_order_and_reach_the_steps() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    groups = param_groups(model, 0.0, overrides={"*": {"lr": 0.5}, "1.*": {"lr": 0.25},
                                                 "*.bias": {"weight_decay": 0.1}})  # fmt: skip
    assert spread(groups, "lr") == {"0.weight": 0.5, "0.bias": 0.5, "1.weight": 0.25,
                                    "1.bias": 0.25}  # fmt: skip
    assert spread(groups, "weight_decay")["1.bias"] == 0.1
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer = optim.SGD(groups, lr=9.0)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    for name, p in model.named_parameters():
        rate, decay = spread(groups, "lr")[name], 0.1 if "bias" in name else 0.0
        expected = before[name] - rate * (1 + decay * before[name])
        torch.testing.assert_close(p.detach(), expected)


def test_the_table_names_every_parameter_its_options_and_the_reason() -> None:
    table = param_groups(Model(), 0.1, overrides={"gate.mix": {"lr": 1e-4}}).table()
    rows = {line.split()[0]: line for line in table.splitlines()[1:]}
    assert set(rows) == {n for n, p in Model().named_parameters() if p.requires_grad}
    for name, words in {
        "blocks.0.1.weight": ("weight_decay=0 ", "Normed is a normalization"),
        "gate.scale": ("1x3x1x1", "a learned scale"), "head.bias": ("a bias",),
        "gate.mix": ("lr=0.0001", "matches 'gate.mix'"), "act.weight": ("fewer than two",),
        "embed.weight": ("7x3", "weight_decay=0.1", "weights are decayed"),
        "marked.table": ("marked no_decay",), "wholly.bias": ("marked no_decay",),
    }.items():  # fmt: skip
        assert all(word in rows[name] for word in words), rows[name]


@pytest.mark.parametrize(("options", "error", "message"), [
    ({"no_decay": ["head.wieght"]}, ValueError, "matches no parameter; did you mean 'head.weight'"),
    ({"overrides": {"haed.*": {"lr": 1.0}}}, ValueError, r"'haed\.\*' matches no parameter"),
    ({"no_decay": "bias"}, ValueError, "'auto', 'none' or a list of patterns; got 'bias'"),
    ({"layer_decay": 0.5}, ValueError, "give lr too"),
    ({"layer_decay": 1.5, "lr": 0.1}, ValueError, "layer_decay must be more than 0 and at most 1"),
    ({"weight_decay": -1.0}, ValueError, "weight_decay must be 0 or more and finite; got -1"),
    ({"lr": "0.1"}, TypeError, "lr must be a number"),
    ({"overrides": {"head.*": 0.1}}, TypeError, "must be options of an optimizer"),
    ({"overrides": {"head.*": {"params": []}}}, TypeError, "must be options of an optimizer"),
])  # fmt: skip
def test_mistakes_are_refused(options: dict[str, Any], error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        param_groups(Model(), **options)


def test_a_misspelt_override_is_refused_by_the_optimizer() -> None:
    groups = param_groups(Model(), 0.1, overrides={"head.*": {"weight_deca": 0.0}})
    with pytest.raises(TypeError, match="no option 'weight_deca'; did you mean 'weight_decay'"):
        optim.AdamW(groups)
    with pytest.raises(ValueError, match="nothing to train"):
        param_groups(nn.ReLU())


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from([nn.Linear(2, 2), nn.LayerNorm(2), nn.Embedding(2, 2), nn.PReLU(),
                                 nn.Linear(2, 2, bias=False)]), min_size=1, max_size=6),
       st.sampled_from(["auto", "none", ["*weight"]]), st.sampled_from([None, 0.5]))  # fmt: skip
def test_each_parameter_is_in_exactly_one_group(layers: Any, no_decay: Any, factor: Any) -> None:
    model = nn.Sequential(*layers)  # with modules that appear twice
    groups = param_groups(model, 0.1, no_decay, layer_decay=factor, lr=1.0)
    held = [id(p) for group in groups for _, p in group["params"]]
    assert sorted(held) == sorted(map(id, model.parameters()))
    assert [name for group in groups for name, _ in group["params"]] == [
        name for group in groups for name, _ in group["params"]
        if name in dict(model.named_parameters())]  # fmt: skip
    keys = [{k: v for k, v in group.items() if k != "params"} for group in groups]
    assert all(a != b for i, a in enumerate(keys) for b in keys[:i])
