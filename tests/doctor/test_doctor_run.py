"""A script runs as itself; nothing changes, nothing stays behind, errors stay inside."""

import json
import subprocess
import sys
import textwrap

import pytest
import torch
from doctor_loops import data, epochs, fit, loader, mlp
from torch import nn, overrides
from torch.nn import functional as F
from torch.nn.modules import module as torch_module
from torch.optim.lr_scheduler import LRScheduler

import brickyard.doctor.run as running
from brickyard.cli import main
from brickyard.doctor import watch
from brickyard.doctor.checks import CHECKS
from brickyard.doctor.finding import Finding, Report, ordered
from brickyard.doctor.observe.watcher import _ACTIVE

KEYS = {"script", "exit_code", "steps", "overhead", "findings"}
FINDING = {"check", "severity", "step", "epoch", "where", "file", "line", "evidence", "why", "try"}

TRAIN = """
import sys, torch
from torch import nn
torch.manual_seed(0)
model = nn.Linear(6, 3)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(6):
    {zero}
    loss = nn.functional.cross_entropy(model(torch.randn(16, 6)), torch.randint(3, (16,)))
    loss.backward()
    optimizer.step()
"""
GOOD, BAD = TRAIN.format(zero="optimizer.zero_grad()"), TRAIN.format(zero="pass")


def run(tmp_path, text, *options, arguments=(), fresh=False):
    """Run a script, in this process unless ``fresh``; returns exit code, report and output."""
    script = tmp_path / "train.py"
    script.write_text(textwrap.dedent(text))
    out = tmp_path / "report.json"
    command = [*options, "--json", str(out), str(script), *arguments]
    done = subprocess.run(
        [sys.executable, "-m", "brickyard", "doctor", "run", *command], cwd=tmp_path,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    return done.returncode, json.loads(out.read_text()), done


def here(tmp_path, text, arguments=(), **options):
    script = tmp_path / "train.py"
    script.write_text(textwrap.dedent(text))
    out = tmp_path / "report.json"
    code = running.run_script(str(script), list(arguments), json=str(out), **options)
    return code, json.loads(out.read_text())


def checks(report):
    return [f["check"] for f in report["findings"]]


def test_script_runs_as_itself(tmp_path):
    code, report, done = run(tmp_path, """
        import os, sys
        assert "torch" not in sys.modules
        os.environ["SEEN"] = "1"
        import torch
        import __main__
        assert __main__.value if hasattr(__main__, "value") else True
        value = 3
        assert __main__.value == 3 and __file__ == sys.argv[0] and __name__ == "__main__"
        assert os.path.dirname(os.path.abspath(__file__)) == sys.path[0]
        print("args", sys.argv[1:])
        if __name__ == "__main__":
            sys.exit(7)
    """, arguments=["--lr", "1", "-x", "--json", "y"])  # fmt: skip
    assert code == 7, done.stderr
    assert report["exit_code"] == 7
    assert done.stdout == "args ['--lr', '1', '-x', '--json', 'y']\n"


def test_json_has_exactly_the_documented_keys(tmp_path):
    code, report = here(tmp_path, BAD)
    assert code == 0
    assert set(report) == KEYS
    assert report["steps"] == 6
    assert report["overhead"] > 0
    assert checks(report)[0] == "stale-grad"
    for finding in report["findings"]:
        assert set(finding) == FINDING
    first = report["findings"][0]
    assert first["severity"] == "error"
    assert first["file"].endswith("train.py")
    assert first["line"] == 10
    assert first["step"] <= 4


def test_strict(tmp_path):
    assert here(tmp_path, BAD, strict=True)[0] == 3
    assert here(tmp_path, GOOD, strict=True)[0] == 0
    assert here(tmp_path, GOOD + "sys.exit(5)\n", strict=True)[0] == 5


def test_failure_is_reported_with_the_users_frames_only(tmp_path, capsys):
    code, report = here(tmp_path, BAD + "def broken():\n    raise KeyError('mine')\nbroken()\n")
    assert code == 1
    assert report["exit_code"] == 1
    assert checks(report)[0] == "stale-grad"
    text = capsys.readouterr().err
    assert "KeyError: 'mine'" in text
    assert "brickyard" not in text.partition("brickyard doctor:")[0]


def test_interrupt(tmp_path):
    code, report = here(tmp_path, BAD + "raise KeyboardInterrupt\n")
    assert code == 130
    assert checks(report)[0] == "stale-grad"


@pytest.mark.parametrize(("text", "code"), [("sys.exit()", 0), ("sys.exit('no')", 1), ("1/0", 1)])
def test_exit_codes(tmp_path, text, code):
    assert here(tmp_path, "import sys\n" + text)[0] == code


def test_limit_of_steps(tmp_path):
    code, report = here(tmp_path, BAD + "print('end')\nsys.exit(4)\n", steps=3)
    assert code == 4
    assert report["steps"] == 3
    assert report["exit_code"] == 4


def test_reports_are_written_where_the_command_was_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text("import os; os.mkdir('away'); os.chdir('away')" + GOOD)
    assert running.run_script("train.py", [], json="a.json", html="a.html") == 0
    assert (tmp_path / "a.json").exists()
    assert (tmp_path / "a.html").exists()


def test_page_is_self_contained(tmp_path):
    page = tmp_path / "page.html"
    here(tmp_path, BAD, html=str(page))
    text = page.read_text()
    assert "stale-grad" in text
    assert "http" not in text.replace("http-equiv", "")
    assert "<script" not in text


def test_children_are_watched(tmp_path):
    text = f"""
    import torch.multiprocessing as mp
    def work(rank):
        exec({BAD!r}, {{}})
    if __name__ == "__main__":
        mp.start_processes(work, nprocs=2, start_method="fork")
    """
    code, report, done = run(tmp_path, text)
    assert code == 0, done.stderr
    assert checks(report).count("stale-grad") == 1
    assert report["steps"] == 6


# -- nothing changes -----------------------------------------------------------------------------
def weights(watched):
    torch.manual_seed(3)
    model = mlp(8, 16, 4, nn.BatchNorm1d(16), nn.Dropout(0.2))
    if not watched:
        epochs(model, loader(*data()), 4, evaluate=lambda m: m.eval()(data()[0]))
        return [p.clone() for p in model.state_dict().values()], torch.get_rng_state()
    with watch():
        epochs(model, loader(*data()), 4, evaluate=lambda m: m.eval()(data()[0]))
    return [p.clone() for p in model.state_dict().values()], torch.get_rng_state()


def test_bit_identical():
    (one, state), (two, other) = weights(False), weights(True)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert torch.equal(state, other)


def fingerprint():
    owners = [
        torch.autograd, nn.Module, torch.optim.Optimizer, torch.optim.SGD, nn.utils,
        nn.utils.clip_grad, torch.amp.GradScaler, LRScheduler, torch.optim.swa_utils.AveragedModel,
        torch.utils.data.DataLoader, torch.utils.data.dataloader._BaseDataLoaderIter,
    ]  # fmt: skip
    import multiprocessing.process

    owners.append(multiprocessing.process.BaseProcess)
    hooks = [
        len(v) for k, v in sorted(vars(torch_module).items()) if k.startswith("_global_")
        and hasattr(v, "__len__")
    ]  # fmt: skip
    from torch.optim import optimizer

    hooks += [
        len(optimizer._global_optimizer_pre_hooks),
        len(optimizer._global_optimizer_post_hooks),
    ]
    return [dict(vars(o)) for o in owners], hooks, overrides._len_torch_function_stack()


def test_nothing_is_left_behind():
    before = fingerprint()
    for error in (None, ValueError):
        try:
            with watch() as doctor:
                fit(mlp(), F.cross_entropy, steps=3)
                if error:
                    raise error("mine")
        except ValueError:
            pass
        after = fingerprint()
        for one, two in zip(before[0], after[0], strict=True):
            assert {k: v for k, v in one.items() if v is not two.get(k)} == {}
            assert set(one) == set(two)
        assert before[1:] == after[1:]
        assert doctor.report().steps == 3
        assert not _ACTIVE


def test_modes_of_the_user_survive():
    with watch():
        with torch.device("meta"):
            assert torch.ones(1).is_meta
        fit(mlp(), F.cross_entropy, steps=6)
        with torch.device("cpu"):
            fit(mlp(), F.cross_entropy, steps=10)
        assert not torch.ones(1).is_meta
    assert overrides._len_torch_function_stack() == 0


def test_blocks_can_be_nested_and_repeated():
    with watch() as outer:
        fit(mlp(), F.cross_entropy, zero=False)
        with watch() as inner:
            fit(mlp(), F.cross_entropy, zero=False)
        fit(mlp(), F.cross_entropy)
    assert "stale-grad" in [f.check for f in inner.report().findings]
    assert "stale-grad" in [f.check for f in outer.report().findings]
    with watch() as again:
        fit(mlp(), F.cross_entropy)
    assert again.report().findings == []
    assert not _ACTIVE


# -- errors stay inside --------------------------------------------------------------------------
def test_an_error_in_a_check_is_reported(monkeypatch):
    from dataclasses import replace

    def broken(seen):
        raise RuntimeError("of ours")

    name = "stale-grad"
    monkeypatch.setitem(CHECKS, name, replace(CHECKS[name], judge=broken))
    with watch() as doctor:
        fit(mlp(), F.cross_entropy, zero=False)
    report = doctor.report()
    assert [n for n, _ in report.problems] == [name]
    assert "of ours" in report.to_json()
    assert "of ours" in str(report)
    assert json.loads(report.to_json())["findings"][-1]["severity"] == "info"


def test_an_error_in_observation_is_reported(monkeypatch):
    from brickyard.doctor.observe.optimizers import Optimizers

    def broken(*_):
        raise RuntimeError("of ours")

    monkeypatch.setattr(Optimizers, "_look_before", broken)
    with watch() as doctor:
        fit(mlp(), F.cross_entropy)
    report = doctor.report()
    assert report.steps == 8
    assert "of ours" in report.to_json()


def test_order_of_findings():
    found = ordered([
        Finding("c", "info", weight=1.0), Finding("b", "error", weight=0.5),
        Finding("a", "error", weight=0.9), Finding("d", "warning"),
    ])  # fmt: skip
    assert [f.check for f in found] == ["a", "b", "d", "c"]
    assert Finding.from_dict(found[0].to_dict()) == Finding("a", "error")


def test_text_of_a_report():
    text = str(Report("train.py", steps=3, findings=[Finding("x", "error", try_="do")]))
    assert "ERROR  x" in text
    assert "do" in text
    assert "nothing found" in str(Report())


def test_a_model_can_be_introduced():
    model = mlp(8, 16, 4, nn.Dropout(0.9))
    with watch(model) as doctor:
        pass
    assert [(f.check, f.where) for f in doctor.report().findings] == [("dropout-p", "model.1")]
    with pytest.raises(ValueError, match=r"steps must be 1 or more, or None for all; got 0"):
        watch(steps=0).__enter__()
    with pytest.raises(TypeError, match=r"torch.nn.Module or None; got int"):
        watch(3).__enter__()


def test_transforms_are_left_alone():
    x, y = data()
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def loss(params, one, label):
        out = torch.func.functional_call(model, params, (one[None],))
        return F.cross_entropy(out, label[None])

    with watch() as doctor:
        for _ in range(6):
            params = {k: p.detach() for k, p in model.named_parameters()}
            found = torch.func.vmap(torch.func.grad(loss), (None, 0, 0))(params, x[:32], y[:32])
            for name, p in model.named_parameters():
                p.grad = found[name].mean(0)
            optimizer.step()
    report = doctor.report()
    assert report.problems == []
    assert report.steps == 6
    assert [f for f in report.findings if f.severity != "info"] == []


def test_checks_can_be_left_out(tmp_path, capsys):
    code, report = here(tmp_path, BAD, ignore=["stale-grad"], strict=True)
    assert code == 0
    assert "stale-grad" not in checks(report)
    with watch(ignore="stale-grad") as doctor:
        fit(mlp(), F.cross_entropy, zero=False)
    assert "stale-grad" not in [f.check for f in doctor.report().findings]
    with pytest.raises(ValueError, match=r"no check 'stale-gard' to ignore; did you mean 'stale-"):
        watch(ignore=["stale-gard"]).__enter__()
    assert not _ACTIVE
    script = str(tmp_path / "train.py")
    assert main(["doctor", "run", "--ignore", "stale", script]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: --ignore: there is no check")


def test_checks_are_listed_and_shown(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    assert main(["doctor", "checks"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if not line.startswith(" ")]) == len(CHECKS)
    assert max(map(len, lines)) <= 60
    assert main(["doctor", "checks", "stale-grad"]) == 0
    assert "allows" in capsys.readouterr().out
    assert main(["doctor", "checks", "stale-gard"]) == 2
    assert "did you mean 'stale-grad'?" in capsys.readouterr().err
