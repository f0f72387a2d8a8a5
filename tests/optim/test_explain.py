"""What explain() says is what a step does."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from brickyard import compiler, optim
from brickyard.optim import Optimizer, chain, clip_by_global_norm, decay, param_groups


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3))


def step(optimizer: Optimizer) -> str:
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = torch.ones_like(p)
    optimizer.step()
    return optimizer.explain()


def test_groups_show_their_own_values_before_and_after_the_first_step() -> None:
    optimizer = optim.AdamW(param_groups(model(), 0.25), lr=lambda k: 0.5 / (k + 1))
    optimizer.param_groups[1].update(betas=(0.8, 0.99), maximize=True)
    before = optimizer.explain()
    assert before.startswith("group 0: 1 tensor, 12 elements\n  pieces   scale_by_adam > decay\n")
    assert "lr=0.5, beta1=0.9, beta2=0.999, eps=1e-08, weight_decay=0.25" in before
    assert "lr=0.5, beta1=0.8, beta2=0.99, eps=1e-08, maximize" in before
    assert before.endswith("known after the first step.")
    after = step(optimizer)
    assert "lr=0.25, beta1=0.9" in after  # of the coming step
    assert "group 1: 3 tensors, 9 elements, torch.float32, step 1" in after


def test_pieces_show_where_when_and_how_they_act() -> None:
    pieces = chain(clip_by_global_norm(1.0), optim.scale_by_adam(amsgrad=True),
                   decay(0.1, where="matrices"), optim.lookahead(every=5))  # fmt: skip
    text = step(Optimizer(model(), pieces, lr=0.1))
    assert "scale_by_adam(amsgrad=True) > decay(where='matrices') > lookahead(every=5)" in text
    vectors = text.split("\n\n")[1]
    assert "decay" not in vectors
    assert "max_norm=1" in vectors
    assert "the gradient itself" in optim.SGD(model()).explain()


@pytest.mark.skipif(not compiler.command(), reason="no C compiler")
def test_passes_count_bytes() -> None:
    text = step(Optimizer(model(), chain(clip_by_global_norm(1.0), optim.scale_by_adam()), lr=0.1))
    assert "pass 0   reads grad; writes -; 1 sum; 4 bytes/parameter" in text
    assert "writes param, exp_avg, exp_avg_sq; 28 bytes/parameter" in text
    assert "8 bytes of state, 32 bytes moved per parameter" in text
    assert "then matrix operations, not counted" in step(optim.Muon(model()))
    text = step(Optimizer(model(), chain(decay(0.1)), lr=0.1, backend="foreach"))
    assert "backend  foreach" in text
    assert "others make more" in text
