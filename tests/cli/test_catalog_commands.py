"""The catalog's commands: what they print, at which width, and how they end."""

import json
import os
import re
import subprocess
import sys

import pytest

from brickyard.catalog import KINDS, get, guide, shelf
from brickyard.catalog.pages import option_list, recipe_line
from brickyard.cli import main

ESCAPE = re.compile(r"\x1b\[")
WIDTHS = [60, 80, 120, 200]


@pytest.fixture
def run(capsys, monkeypatch):
    """Return a function that runs the command line in a terminal of a given width."""

    def call(*arguments, width=80):
        monkeypatch.setenv("COLUMNS", str(width))
        code = main(list(arguments))
        out, err = capsys.readouterr()
        assert not ESCAPE.search(out + err), "colour codes in piped output"
        return code, out, err

    return call


def words(text):
    return " ".join(text.split())


def brickyard(*arguments, stdin=None, **settings):
    return subprocess.run(
        [sys.executable, "-m", "brickyard", *arguments], capture_output=True, text=True,
        input=stdin, **settings,
    )  # fmt: skip


# --- What they print ------------------------------------------------------------------------------


@pytest.mark.parametrize("width", WIDTHS)
def test_the_overview_lists_every_category(run, width):
    code, out, _ = run("catalog", width=width)
    assert code == 0
    for kind in KINDS.values():
        count = len(shelf(kind.name))
        assert bool(re.search(rf"^{kind.category} +{count} ", out, re.M)) == (count > 0)
    assert f"{len(shelf())} bricks" in out
    assert "brickyard guide" in out
    assert max(map(len, out.splitlines())) <= width


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", [k for k in KINDS if shelf(k)])
def test_a_category_lists_every_brick(run, kind, width):
    for arguments in (["catalog", kind], ["catalog", kind, "--compare"]):
        code, out, _ = run(*arguments, width=width)
        assert code == 0
        assert max(map(len, out.splitlines())) <= width
        for card in shelf(kind):
            assert re.search(rf"^{card.key}\b", out, re.M), f"{card.key} is cut or missing"


def test_a_category_says_what_each_brick_is(run):
    _, out, _ = run("catalog", "losses", width=200)
    for card in shelf("losses"):
        assert words(card.summary) in words(out) or card.summary[:30] in out


@pytest.mark.parametrize("width", WIDTHS)
def test_comparing_optimizers_shows_rule_state_options_and_issues(run, width):
    _, out, _ = run("catalog", "optimizers", "--compare", width=width)
    head = out.replace("\n", " ")
    for heading in ("Bytes/param", "Options", "Best for", "Known issue"):
        assert heading in head
    assert "betas=(0.9," in out


@pytest.mark.parametrize("card", shelf(), ids=lambda card: card.key)
def test_every_card_prints_whole_at_every_width(run, card):
    for width in WIDTHS:
        code, out, _ = run("show", card.key, width=width)
        assert code == 0
        assert max(map(len, out.splitlines())) <= width
    flat = words(out)
    for text in (card.summary, card.use_when, card.avoid_when, card.best_for, card.tune_first,
                 card.cost, card.paper, *map(str, card.facts.values()), *card.aliases,
                 *card.pairs_with):  # fmt: skip
        assert words(text)[:40] in flat
    for option in card.options:
        assert option.name in out
    assert re.search(rf"from brickyard\S* import {card.name}$", out.rstrip(), re.M | re.S) or (
        f"import {card.name}" in out
    )


def test_a_card_by_alias_and_class_name(run):
    assert run("show", "L1")[1] == run("show", "mae")[1] == run("show", "L1Loss")[1]


def test_the_import_line_of_a_card_works(run):
    for card in shelf():
        line = re.search(r"from (\S+) import (\S+)", run("show", card.key)[1])
        assert line
        module, name = line.groups()
        code = f"import {module} as m; m.{name}"
        exec(compile(code, card.key, "exec"), {})


def test_recipe_lines_name_what_to_tune_first():
    assert recipe_line(get("adamw")).startswith("optimizer: {name: adamw, lr: 0.001")
    assert recipe_line(get("relu")) == "model: {name: mlp, activation: relu}"
    assert recipe_line(get("early_stopping")).startswith("regularizers: [{name: early_stopping, pa")


def test_options_of_a_brick_in_one_line():
    assert option_list(get("huber")) == "delta=1.0"
    assert option_list(get("adam"), most=2) == "lr=0.001, betas=(0.9, 0.999), ..."
    assert "foreach" not in option_list(get("adam"), most=20)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_search_prints_what_fits(run, width):
    code, out, _ = run("catalog", "--search", "outliers", width=width)
    assert code == 0
    assert re.search(r"^huber\b", out, re.M)
    assert max(map(len, out.splitlines())) <= width
    assert run("catalog", "losses", "-s", "outliers", "--limit", "1")[1].count("huber") == 1


def test_guides_are_listed_and_printed_as_markdown(run):
    _, out, _ = run("guide")
    assert re.search(r"^losses\b", out, re.M)
    assert run("guide", "losses")[1] == guide("losses")
    assert run("guide", "loss")[1] == guide("losses")
    assert re.search(r"^doctor\b", out, re.M)
    assert run("guide", "doctor")[1] == guide("doctor")
    assert run("guide", "doctor", "--compare")[2].startswith("error: doctor is no category")
    assert run("guide", "losses", "--compare") == run("catalog", "losses", "--compare")


def test_json_is_whole(run):
    assert json.loads(run("show", "adamw", "--json")[1])["key"] == "adamw"
    every = json.loads(run("catalog", "--json", width=60)[1])
    assert [row["key"] for row in every] == [card.key for card in shelf()]
    assert {row["kind"] for row in json.loads(run("catalog", "loss", "--json")[1])} == {"loss"}
    hits = json.loads(run("catalog", "-s", "outliers", "--json")[1])
    assert hits[0]["score"] >= hits[1]["score"]
    assert json.loads(run("catalog", "-s", "qqqqzzzz", "--json")[1]) == []


def test_json_is_standard_json(run):
    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    json.loads(run("catalog", "--json")[1], parse_constant=refuse)


# --- How they end ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["show", "adamz"], r"no brick is called 'adamz'; did you mean 'adam'"),
        (["show", "qqqq"], r"no brick is called 'qqqq'.*--search \"qqqq\""),
        (["show", "losses"], r"'losses' is a category; see: brickyard catalog losses"),
        (["show"], r"required: key; see: brickyard show --help"),
        (["catalog", "lossy"], r"no category is called 'lossy'; did you mean 'losses'"),
        (["catalog", "adamw"], r"'adamw' is a brick, not a category; see: brickyard show adamw"),
        (["catalog", "--serch", "x"], r"does not take '--serch'; did you mean '--search'\? See: "),
        (["catalog", "losses", "x"], r"does not take 'x'; see: brickyard catalog --help"),
        (["catalog", "--sear", "x"], r"does not take '--sear'"),
        (["catalog", "--limit", "many"], r"invalid int value: 'many'"),
        (["catalog", "-s", "x", "--limit", "0"], r"--limit must be 1 or more; got 0"),
        (["catalog", "--compare"], r"--compare takes a category"),
        (["catalog", "losses", "--compare", "-s", "x"], r"--compare takes a category"),
        (["guide", "--compare"], r"--compare takes a category"),
        (["guide", "nothing"], r"no category is called 'nothing'"),
        (["guide", "trainin"], r"no guide is called 'trainin'; did you mean 'training'"),
        (["catalgo"], r"no command is called 'catalgo'; did you mean 'catalog'"),
    ],
)
def test_a_mistake_is_one_message_and_code_two(run, arguments, says):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert re.fullmatch(rf"error: .*{says}.*\n", err)


def test_a_search_without_results_says_so(run):
    code, out, err = run("catalog", "--search", "qqqqzzzz")
    assert (code, out) == (1, "")
    assert err == "nothing fits 'qqqqzzzz'; try other words, or: brickyard catalog\n"


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_help_lists_the_commands(run, arguments):
    code, out, err = run(*arguments)
    assert (code, err) == (0, "")
    for name in ("catalog", "show", "guide"):
        assert re.search(rf"^  {name} ", out, re.M)


def test_help_of_a_command(run):
    code, out, _ = run("catalog", "--help")
    assert code == 0
    assert "--compare" in out


def test_version(run):
    assert re.fullmatch(r"brickyard \d+\.\d+\.\d+\S*\n", run("--version")[1])


def test_commands_of_two_words(run, monkeypatch):
    from brickyard.cli import frame

    monkeypatch.setattr(frame, "COMMANDS", dict(frame.COMMANDS))

    @frame.command("thing check", frame.argument("file"), frame.argument("more", nargs="*"),
                   frame.argument("--out"))  # fmt: skip
    def check(file, more, out):
        """Check."""
        print(file, more, out)
        return 7

    assert run("thing", "check", "a", "x=1", "--out", "d", "y=2")[:2] == (7, "a ['x=1', 'y=2'] d\n")
    assert "needs one of: check" in run("thing")[2]
    assert "needs one of: check; got 'chek'" in run("thing", "chek")[2]
    code, out, error = run("thing", "--help")
    assert (code, error) == (0, "")
    assert "thing check" in out


def test_ctrl_c_ends_quietly(run, monkeypatch):
    from brickyard.cli import frame

    def interrupt(**_):
        raise KeyboardInterrupt

    monkeypatch.setitem(frame.COMMANDS, "show", frame.Command("show", interrupt, ()))
    assert run("show") == (130, "", "interrupted\n")


def test_other_errors_keep_their_traceback(monkeypatch):
    from brickyard.cli import frame

    def fail(**_):
        raise ZeroDivisionError

    monkeypatch.setitem(frame.COMMANDS, "show", frame.Command("show", fail, ()))
    with pytest.raises(ZeroDivisionError):
        main(["show"])


# --- In a shell -----------------------------------------------------------------------------------


def test_a_reader_that_leaves_is_no_error():
    for what in (["catalog", "losses"], ["catalog", "--json"], ["show", "adamw"]):
        shell = f"{sys.executable} -m brickyard {' '.join(what)} | head -n 1"
        done = subprocess.run(shell, shell=True, capture_output=True, text=True)
        assert done.stderr == ""
        assert done.stdout.count("\n") == 1


@pytest.mark.parametrize(
    ("extra", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_colours_only_where_they_are_wanted(extra, coloured):
    import pty

    owner, terminal = pty.openpty()
    environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
    environment |= {"TERM": "xterm-256color", "COLUMNS": "80", **extra}
    process = subprocess.Popen(
        [sys.executable, "-m", "brickyard", "show", "adamw"], stdout=terminal, env=environment
    )
    os.close(terminal)
    chunks = []
    try:
        while chunk := os.read(owner, 65536):
            chunks.append(chunk)
    except OSError:  # the terminal's end on Linux
        pass
    os.close(owner)
    assert process.wait() == 0
    codes = set(re.findall(rb"\x1b\[([0-9;]*)m", b"".join(chunks)))
    has_colour = any(re.search(rb"(^|;)3[0-9]", code) for code in codes)
    assert has_colour is coloured


@pytest.mark.parametrize(
    "arguments", [["catalog"], ["catalog", "-s", "outliers"], ["show", "adamw"], ["--help"]]
)
def test_the_catalog_s_commands_import_no_torch(arguments):
    code = f"import sys; from brickyard.cli import main; main({arguments}); "
    code += "print({'torch', 'numpy', 'pydantic', 'yaml'} & {*sys.modules}, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip() == "set()"


def test_importing_the_package_is_light():
    code = "import sys; before = {*sys.modules}; import brickyard; "
    code += "print(*sorted(m for m in {*sys.modules} - before if not m.startswith('brickyard')))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-S", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    heavy = {"torch", "numpy", "typing", "inspect", "dataclasses", "pkgutil", "rich"}
    assert not heavy & {*done.stdout.split()}


@pytest.mark.parametrize("arguments", [["catalog"], ["show", "adamw"], ["catalog", "--json"]])
def test_an_ascii_terminal_gets_ascii(arguments):
    done = brickyard(*arguments, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()
