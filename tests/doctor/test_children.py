"""Processes that a watched script starts are watched, named, and otherwise left as they are."""

import json
import os
import subprocess
import sys
import textwrap

import pytest

from brickyard.doctor.children import Children, Merged
from brickyard.doctor.hook import brickyard_hook as hook

WORKER = """
import os, sys
import torch
from torch import nn
torch.manual_seed(0)
model = nn.Linear(6, 3)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(6):
    loss = nn.functional.cross_entropy(model(torch.randn(16, 6)), torch.randint(3, (16,)))
    loss.backward()
    optimizer.step()
print("worker", sys.argv[1:], __name__, sorted(os.environ.items()) == sorted(
    (k, v) for k, v in os.environ.items() if k != "BRICKYARD_DOCTOR" and "hook" not in v),
    [p for p in sys.path if "hook" in p], flush=True)
sys.exit(4)
"""


def run(folder, script, *options, env=None):
    out = folder / "report.json"
    done = subprocess.run(
        [sys.executable, "-m", "brickyard", "doctor", "run", "--json", str(out), *options, script],
        cwd=folder, capture_output=True, text=True, timeout=240, check=False,
        env={**os.environ, "TMPDIR": str(folder / "tmp"), **(env or {})},
    )  # fmt: skip
    assert out.exists(), done.stderr
    assert not list((folder / "tmp").glob("brickyard*")), "something was left behind"
    return done, json.loads(out.read_text())


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "tmp").mkdir()
    (tmp_path / "worker.py").write_text(WORKER)
    return tmp_path


def test_a_python_below_a_launcher_below_a_script_is_watched(folder):
    """The launchers know nothing of torch; one hands on an environment of its own."""
    (folder / "middle.py").write_text(
        textwrap.dedent("""
        import os, subprocess, sys
        code = subprocess.call([sys.executable, "worker.py", "--a"], env=dict(os.environ, RANK="1"))
        assert "torch" not in sys.modules and "json" not in sys.modules
        sys.exit(code)
    """)
    )
    (folder / "train.py").write_text(
        textwrap.dedent("""
        import os, subprocess, sys
        before = dict(os.environ)
        print(subprocess.run([sys.executable, "middle.py"]).returncode)
        assert dict(os.environ) == before
    """)
    )
    done, report = run(folder, "train.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "worker ['--a'] __main__ True []\n4\n"
    (found,) = report["findings"]
    assert (found["check"], found["file"], found["line"]) == ("stale-grad", "worker.py", 10)
    assert "process" in found["evidence"]
    assert report["steps"] == 6
    assert 0 < report["overhead"] < 10
    assert "Traceback" not in done.stderr


def test_ranks_of_a_launcher_are_named(folder):
    (folder / "ranks.py").write_text(textwrap.dedent("""
        import os, torch, torch.distributed as dist
        dist.init_process_group("gloo", init_method=os.environ["MEET"], world_size=2,
                                rank=int(os.environ["RANK"]))
        dist.barrier()
        dist.destroy_process_group()
    """) + WORKER)  # fmt: skip
    (folder / "train.py").write_text(
        textwrap.dedent("""
        import os, subprocess, sys
        both = [subprocess.Popen([sys.executable, "ranks.py"],
                                 env={**os.environ, "RANK": str(i)}) for i in range(2)]
        print([one.wait() for one in both])
    """)
    )
    done, report = run(folder, "train.py", env={"MEET": f"file://{folder}/meet"})
    assert "[4, 4]" in done.stdout
    (found,) = report["findings"]
    assert "(ranks 0, 1: processes " in found["evidence"]


def test_a_killed_child_leaves_what_it_found(folder):
    """The hook of os.system reaches it; it ends by a signal that nobody can handle."""
    killed = WORKER.replace("sys.exit(4)", "os.kill(os.getpid(), 9)")
    (folder / "worker.py").write_text(killed)
    (folder / "train.py").write_text(
        "import os, sys\nos.putenv('MINE', '1')\nos.system(sys.executable + ' worker.py x')\n"
    )
    done, report = run(folder, "train.py")
    assert "worker ['x']" in done.stdout
    assert [f["check"] for f in report["findings"]] == ["stale-grad"]


def test_steps_limit_children_too(folder):
    (folder / "train.py").write_text(
        "import subprocess, sys\nsubprocess.run([sys.executable, 'worker.py'])\n"
    )
    assert run(folder, "train.py", "--steps", "2")[1]["steps"] == 2


def test_the_users_sitecustomize_runs_and_a_python_without_us_is_told_of(folder):
    """An interpreter that cannot import the doctor runs on, and the report says so."""
    site = folder / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text("import sys\nsys.mine = 1\n")
    (folder / "torch.py").write_text("")  # stands for another one, in a place without brickyard
    (folder / "other.py").write_text(
        "import sys\nsys.modules['brickyard'] = None\nimport sitecustomize, torch\n"
        "print(sys.mine, sitecustomize.__file__)\n"
    )
    (folder / "train.py").write_text(
        "import subprocess, sys\nprint(subprocess.run([sys.executable, 'other.py']).returncode)\n"
    )
    done, report = run(folder, "train.py", env={"PYTHONPATH": str(site)})
    assert done.stdout == f"1 {site}/sitecustomize.py\n0\n", done.stderr
    (found,) = report["findings"]
    assert found["severity"] == "info"
    assert "was not watched" in found["evidence"]


def test_pythons_without_torch_import_nothing_of_ours(folder, monkeypatch):
    children = Children()
    children.open()
    try:
        code = (
            "import sys; print([m for m in sys.modules if 'brick' in m or m in ('json', 'typing')])"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                              check=True, env={"PYTHONPATH": ""})  # fmt: skip
        assert done.stdout == "['brickyard_hook']\n"
        assert os.path.isdir(children.folder)
    finally:
        children.close()
        children.remove()
    assert not children.folder


def test_everything_is_put_back():
    before = dict(vars(subprocess.Popen)), os.system, dict(os.environ)
    children = Children()
    children.open()
    assert vars(subprocess.Popen)["__init__"] is not before[0]["__init__"]
    assert subprocess.Popen.__init__.__wrapped__ is before[0]["__init__"]
    children.close()
    assert (dict(vars(subprocess.Popen)), os.system, dict(os.environ)) == before
    assert not children.folder, "no folder without children"


def test_environments_are_lent_once_and_given_back(monkeypatch):
    assert hook.lent({}, "0:x") == {"PYTHONPATH": hook.HERE, "BRICKYARD_DOCTOR": "0:x"}
    twice = hook.lent(hook.lent({"PYTHONPATH": "a"}, "0:x"), "0:x")
    assert twice["PYTHONPATH"] == hook.HERE + os.pathsep + "a"
    assert hook.lent({b"PYTHONPATH": b"a"}, "0:x")[b"PYTHONPATH"].endswith("a")
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setattr(os, "environ", {**twice})
    hook.arrive()
    assert os.environ == {"PYTHONPATH": "a"}
    monkeypatch.setattr(os, "environ", hook.lent({}, "0:x"))
    hook.arrive()
    assert os.environ == {}


def test_asking_whether_there_is_a_package_is_no_import(monkeypatch, tmp_path):
    (tmp_path / "asked_for.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    from importlib.util import find_spec

    heard = []
    undo = hook.when_imported("asked_for", lambda: heard.append(1))
    assert find_spec("asked_for") is not None
    assert heard == []
    import asked_for  # noqa: F401

    assert heard == [1]
    undo()


def test_findings_of_several_processes_are_one():
    def report(pid, rank, checks):
        found = [{"check": c, "severity": "error", "evidence": "seen."} for c in checks]
        return {"pid": pid, "rank": rank, "steps": pid, "findings": found, "problems": []}

    merged = Merged([report(7, None, "a"), report(5, 1, "ab"), report(6, 0, "b")])
    told = {f.check: f.evidence for f in merged.findings}
    assert told == {"a": "seen. (processes 5, 7)", "b": "seen. (ranks 0, 1: processes 6, 5)"}
    assert merged.steps == 7
    many = Merged([report(i, None, "a") for i in range(6)])
    assert many.findings[0].evidence.endswith("(processes 0, 1, 2, 3, ...)")


def test_modules_run_by_name(tmp_path):
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").write_text("")
    (tmp_path / "pack" / "part.py").write_text("X = 1\n")
    body = "import sys\nfrom .part import X\nprint(sys.argv[1:], __name__, __spec__.name, X)\n"
    (tmp_path / "pack" / "__main__.py").write_text(body + "assert sys.path[0] == sys.argv[1]\n")
    command = [sys.executable, "-m", "brickyard", "doctor", "run", "-m"]
    done = subprocess.run([*command, "pack", str(tmp_path), "-m"], cwd=tmp_path, timeout=60,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.stdout == f"['{tmp_path}', '-m'] __main__ pack.__main__ 1\n", done.stderr
    assert done.returncode == 0
    done = subprocess.run([*command, "nowhere"], cwd=tmp_path, timeout=60, check=False,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "error: there is no module 'nowhere' that can be run, as for python -m\n"
