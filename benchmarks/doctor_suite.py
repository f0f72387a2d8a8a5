"""Does the doctor find the bugs, and is it silent on healthy runs?

Runs every script of tests/doctor: 39 real bugs, each with its fix, and healthy scripts in many
idioms; each one as it is, under ``brickyard doctor run``, and under a recorder over which the rules
of other tools are evaluated. Prints detection, first diagnosis, steps to detection, run-level
false alarms, overhead, memory, and whether watching changed a single bit.

    python benchmarks/doctor_suite.py [--kind bug fix healthy] [--only PART ...] [--jobs 2]
        [--ways plain doctor record] [--warm] [--save FILE] [--read FILE ...] [--table FILE]

Nothing is kept between runs unless --save says so; --read makes the tables from saved runs.
``--warm`` forks from one process that has imported torch: same scripts, a third of the time.
"""

import argparse
import json
import statistics
import sys
from dataclasses import asdict
from pathlib import Path

import doctor_baselines
from doctor_runs import Outcome, Script, run_all, scripts
from scipy.stats import beta

LOUD = ("error", "warning")


def upper_bound(hits, runs, confidence=0.95):
    """Return the one-sided Clopper-Pearson bound of a rate."""
    return 1.0 if hits >= runs else float(beta.ppf(confidence, hits + 1, runs - hits))


def alarms(outcome):
    """Return the findings that would alarm somebody, in the report's order."""
    return [f for f in outcome.data.get("findings", []) if f["severity"] in LOUD]


class Diagnosis:
    """Judge the report on one bug."""

    def __init__(self, script, outcome):
        found = outcome.data.get("findings", [])
        loud = [f for f in found if f["severity"] in LOUD or script.level == "info"]
        right = [f for f in loud if f["check"] in script.checks]
        self.first = loud[0]["check"] if loud else ""
        self.found = bool(right) if script.level == "info" else bool(loud)
        self.named = bool(right)
        self.top = self.first in script.checks
        steps = [(f["step"], f["epoch"]) for f in (right or loud)]
        self.step, self.epoch = min(steps) if steps else (None, None)


def collect(options):
    """Return outcomes by (kind, name) and way: run now, or read from files."""
    picked = {(s.kind, s.name): s for s in scripts(options.kind, options.only)}
    results = {}
    for path in options.read:
        for row in json.loads(Path(path).read_text(encoding="utf-8")):
            key = row["kind"], row["name"]
            if key in picked:
                results.setdefault(key, {})[row["way"]] = Outcome(**row["outcome"])
    if options.read:
        return picked, results
    tasks = [(s, way) for s in picked.values() for way in options.ways]
    for script, way, outcome in run_all(tasks, options.jobs, options.warm):
        results.setdefault((script.kind, script.name), {})[way] = outcome
        print(line(script, way, outcome), flush=True)
        if options.save:
            rows = [
                {"kind": k, "name": n, "way": w, "outcome": asdict(o)}
                for (k, n), ways in results.items()
                for w, o in ways.items()
            ]
            Path(options.save).write_text(json.dumps(rows), encoding="utf-8")
    return picked, results


def line(script, way, outcome):
    """Return one line of progress."""
    text = f"{script.kind:7} {script.name:32} {way:6} {outcome.cpu:5.1f} s"
    if outcome.code:
        return f"{text}  exit code {outcome.code}: {outcome.tail.splitlines()[-1:]}"
    if way != "doctor":
        return text
    said = ", ".join(f"{f['severity'][0].upper()} {f['check']}" for f in alarms(outcome))
    return f"{text}  {said or 'silent'}"


def print_bugs(picked, results, out):
    """Print what was said of each bug, and the rates."""
    judged = {
        s: Diagnosis(s, results[key]["doctor"])
        for key, s in picked.items()
        if s.kind == "bug" and "doctor" in results.get(key, {})
    }
    if not judged:
        return
    out("## Bugs\n")
    out("| bug | signal | found | first finding | right first | step | epoch |")
    out("|---|---|---|---|---|---|---|")
    for s, d in judged.items():
        signal = "exact" if s.exact else "statistical"
        first, yes = d.first or "none", {True: "yes", False: "**no**"}
        out(
            f"| {s.name} | {signal} | {yes[d.found]} | {first} | {yes[d.top]} | "
            f"{'' if d.step is None else d.step} | {'' if d.epoch is None else d.epoch} |"
        )
    out("")
    for title, some in (
        ("all bugs", list(judged)),
        ("bugs with an exact signal", [s for s in judged if s.exact]),
    ):
        ds = [judged[s] for s in some]
        steps = [d.step for d in ds if d.found and d.step is not None]
        soon = sum(d.found and (d.epoch or 0) <= 1 for d in ds)
        out(
            f"- {title}: {sum(d.found for d in ds)} of {len(ds)} found ({soon} within the first "
            f"epoch), {sum(d.top for d in ds)} with the right diagnosis first, "
            f"{sum(d.named for d in ds)} with it anywhere; median step of detection "
            f"{statistics.median(steps) if steps else '-'}"
        )
    missed = [s.name for s, d in judged.items() if not d.found]
    out(f"- missed: {', '.join(missed) or 'none'}\n")


def print_silence(picked, results, out):
    """Print run-level false alarms over healthy scripts and fixes."""
    for kind in ("healthy", "fix"):
        runs = {
            key[1]: results[key]["doctor"]
            for key, s in picked.items()
            if s.kind == kind and "doctor" in results.get(key, {})
        }
        if not runs:
            continue
        loud = {name: alarms(o) for name, o in runs.items() if alarms(o)}
        bound = upper_bound(len(loud), len(runs))
        out(
            f"- {kind}: {len(loud)} of {len(runs)} runs with an error or a warning "
            f"(at most {bound:.1%} with 95 % confidence, Clopper-Pearson, one-sided)"
        )
        for name, found in loud.items():
            out(f"    - {name}: {', '.join(f['check'] for f in found)}")
    out("")


def print_costs(results, out):
    """Print what watching cost, and whether it changed anything."""
    pairs = {k: w for k, w in results.items() if {"plain", "doctor"} <= set(w)}
    if not pairs:
        return
    changed = [f"{k[0]} {k[1]}" for k, w in pairs.items() if w["plain"].final != w["doctor"].final]
    codes = [f"{k[0]} {k[1]}" for k, w in pairs.items() if w["plain"].code != w["doctor"].code]
    ratios = [w["doctor"].cpu / w["plain"].cpu for w in pairs.values()]
    wall = [w["doctor"].wall / w["plain"].wall for w in pairs.values()]
    memory = [w["doctor"].megabytes - w["plain"].megabytes for w in pairs.values()]
    out(
        f"- final loss and weights, watched and not: {len(pairs) - len(changed)} of {len(pairs)} "
        f"bit-identical{': not ' + ', '.join(changed) if changed else ''}"
    )
    out(f"- exit codes that differ: {', '.join(codes) or 'none'}")
    out(
        f"- whole process, start and report included: median ratio {statistics.median(ratios):.2f} "
        f"of processor time, {statistics.median(wall):.2f} of wall time; memory "
        f"{statistics.median(memory):+.0f} MB (most {max(memory):+.0f} MB)\n"
    )


def print_baselines(picked, results, out):
    """Print the same figures for the rules of other tools."""
    recorded = {
        picked[key]: ways["record"]
        for key, ways in results.items()
        if key in picked and ways.get("record") and ways["record"].data
    }
    if not recorded:
        return
    out("## Rules of other tools on the same runs\n")
    out("| rules | bugs with an alarm | healthy runs with an alarm | fixes with an alarm |")
    out("|---|---|---|---|")
    for title, rules in doctor_baselines.SETS.items():
        cells = []
        for kind in ("bug", "healthy", "fix"):
            runs = [o.data for s, o in recorded.items() if s.kind == kind]
            hits = sum(bool(doctor_baselines.apply(rules, data)) for data in runs)
            cells.append(f"{hits} of {len(runs)}" if runs else "-")
        out(f"| {title} | {' | '.join(cells)} |")
    out("")
    out("| rule | bugs | healthy | fixes |")
    out("|---|---|---|---|")
    for title, rules in doctor_baselines.SETS.items():
        for rule in rules:
            cells = []
            for kind in ("bug", "healthy", "fix"):
                runs = [o.data for s, o in recorded.items() if s.kind == kind]
                cells.append(str(sum(bool(rule(data)) for data in runs)))
            out(f"| {title}: {rule.__name__} | {' | '.join(cells)} |")
    out("")


def main():
    """Run, print, and write the table when asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    kinds, ways = ["bug", "fix", "healthy"], ["plain", "doctor", "record"]
    parser.add_argument("--kind", nargs="+", default=kinds, choices=kinds)
    parser.add_argument("--only", nargs="+", default=[], help="parts of names")
    parser.add_argument("--ways", nargs="+", default=ways, choices=ways)
    parser.add_argument("--jobs", type=int, default=2, choices=(1, 2))
    parser.add_argument("--warm", action="store_true", help="fork instead of starting Python")
    parser.add_argument("--save", help="write the raw outcomes as JSON")
    parser.add_argument("--read", nargs="+", default=[], help="use saved outcomes")
    parser.add_argument("--table", help="write the tables as Markdown")
    options = parser.parse_args()
    picked, results = collect(options)
    text = []

    def out(row):
        print(row)
        text.append(row)

    print_bugs(picked, results, out)
    out("## False alarms and costs\n")
    print_silence(picked, results, out)
    print_costs(results, out)
    print_baselines(picked, results, out)
    failed = [k for k, w in results.items() for o in w.values() if o.code]
    print(f"{len(results)} scripts, {len(failed)} processes failed: {failed}")
    if options.table:
        command = "python benchmarks/doctor_suite.py"
        head = f"# The doctor on its test bed\n\nWritten by `{command} --table FILE`.\n\n"
        Path(options.table).write_text(head + "\n".join(text) + "\n", encoding="utf-8")
    return 1 if failed else 0


__all__ = ["Script"]

if __name__ == "__main__":
    sys.exit(main())
