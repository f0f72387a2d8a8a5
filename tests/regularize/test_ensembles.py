"""Ensembles: means of probabilities as logits, snapshots at the ends of cycles, checkpoints."""

import numpy as np
import pytest
import torch
from torch import nn

from brickyard.regularize import Ensemble, SnapshotEnsemble
from brickyard.schedules import cosine_restarts, warmup


def _members(n=3, outputs=4):
    torch.manual_seed(0)
    return [nn.Linear(5, outputs).double() for _ in range(n)]


X = torch.randn(7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def test_probabilities_are_averaged():
    members = _members()
    mean = sum(m(X).softmax(1) for m in members) / 3
    got = Ensemble(members)(X)
    torch.testing.assert_close(got.softmax(1), mean)
    torch.testing.assert_close(got.exp(), mean)
    mean = sum(m(X).sigmoid() for m in members) / 3
    torch.testing.assert_close(Ensemble(members, of="sigmoid")(X).sigmoid(), mean)
    mean = sum(m(X) for m in members) / 3
    torch.testing.assert_close(Ensemble(members, of="values")(X), mean)


def test_sure_members_do_not_overflow():
    for of, low in (("softmax", None), ("sigmoid", -500.0)):
        members = [nn.Linear(1, 2), nn.Linear(1, 2)]
        for member, value in zip(members, (400.0, 600.0), strict=True):
            nn.init.zeros_(member.bias)
            with torch.no_grad():
                member.weight.copy_(torch.tensor([[value], [-value]]))
        got = Ensemble(members, of=of)(torch.ones(1, 1))
        assert got.isfinite().all()
        if low:
            np.testing.assert_allclose(got[0, 0].item(), 400 + np.log(2), rtol=1e-6)


def test_classes_are_on_dimension_1():
    members = [nn.Conv2d(2, 3, 1) for _ in range(2)]
    x = torch.randn(4, 2, 5, 5)
    mean = sum(m(x).softmax(1) for m in members) / 2
    torch.testing.assert_close(Ensemble(members)(x).softmax(1), mean)


def test_snapshots_are_taken_where_cycles_end():
    model = nn.Linear(5, 4).double()
    schedule = (warmup(4) >> cosine_restarts(5)).resolve()
    at = schedule.restarts(20)
    assert at == [9, 14, 19]
    snapshots, kept = SnapshotEnsemble(model, at=at, keep=2), []
    for step in range(1, 21):
        nn.init.normal_(model.weight)
        assert snapshots.update() == (step in at)
        if step in at:
            kept.append({n: t.clone() for n, t in model.state_dict().items()})
    assert snapshots.taken == [14, 19]
    got = snapshots.ensemble()
    assert not got.training
    for member, state in zip(got.members, kept[1:], strict=True):
        assert torch.equal(member.weight, state["weight"])
    assert not torch.equal(model.weight, kept[2]["weight"]), "the model itself goes on"
    again = SnapshotEnsemble(nn.Linear(5, 4).double(), at=at, keep=2)
    again.load_state_dict(snapshots.state_dict())
    torch.testing.assert_close(again.ensemble()(X), got(X), rtol=0, atol=0)
    assert (again.steps, again.taken) == (20, [14, 19])
    with pytest.raises(ValueError, match="another model: they differ in 'bias'"):
        SnapshotEnsemble(nn.Linear(5, 4, bias=False), at=at).load_state_dict(snapshots.state_dict())


def test_snapshots_at_even_distances_and_by_length():
    model = nn.Linear(5, 1)
    snapshots = SnapshotEnsemble(model, at="2ep", of="values")
    with pytest.raises(ValueError, match="in a loop of your own"):
        snapshots.update()
    snapshots.resolve(lambda length: {"2ep": 6}[length], [])
    assert [step for step in range(1, 20) if snapshots.update()] == [6, 12, 18]
    assert snapshots.ensemble().of == "values"


def test_ensembles_of_checkpoints(tmp_path):
    members = _members()
    torch.save(members[0].state_dict(), tmp_path / "plain.pt")
    torch.save({"format": 1, "model": members[1].state_dict()}, tmp_path / "trainer.pt")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    torch.save({"model": members[2].state_dict()}, tmp_path / "run" / "checkpoints" / "best.pt")
    model = nn.Linear(5, 4).double()
    before = model.weight.clone()
    paths = [tmp_path / "plain.pt", tmp_path / "trainer.pt", str(tmp_path / "run")]
    got = Ensemble.from_checkpoints(model, paths)
    torch.testing.assert_close(got(X), Ensemble(members)(X), rtol=0, atol=0)
    assert torch.equal(model.weight, before)
    torch.save({"members": [m.state_dict() for m in members]}, tmp_path / "ensemble.pt")
    got = Ensemble.from_checkpoints(model, [tmp_path / "ensemble.pt"])
    torch.testing.assert_close(got(X), Ensemble(members)(X), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("call", "says"),
    [(lambda: Ensemble([]), "needs members"),
     (lambda: Ensemble(_members(), of="logits"), "of must"),
     (lambda: Ensemble("runs/a", model=nn.Linear(1, 1)), "models must be a list"),
     (lambda: Ensemble(["runs/a"]), "give model="),
     (lambda: Ensemble(["no/such.pt"], model=nn.Linear(1, 1)), "no run folder or checkpoint"),
     (lambda: Ensemble([__file__], model=nn.Linear(1, 1)), "holds no weights of such a model"),
     (lambda: SnapshotEnsemble(nn.Linear(1, 1), keep=0), "keep must be"),
     (lambda: SnapshotEnsemble(nn.Linear(1, 1), at=0), "at must be"),
     (lambda: SnapshotEnsemble(nn.Linear(1, 1), of="no"), "of must be"),
     (lambda: SnapshotEnsemble(nn.Linear(1, 1), at=[3]).ensemble(), "there is no snapshot"),
     (lambda: SnapshotEnsemble(nn.Linear(1, 1)).resolve(int, []), "no cycle that ends")],
)  # fmt: skip
def test_what_is_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()
