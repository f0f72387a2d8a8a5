"""The report as one self-contained HTML page, and as a fragment for notebooks."""

from __future__ import annotations

from html import escape

from brickyard.doctor.finding import Finding, Report
from brickyard.reading import Verdict

_MARKS = {"error": "bad", "warning": "warn", "info": "none"}
_STYLE = """
:root { color-scheme: light dark; --paper: #faf8f5; --panel: #fff; --ink: #1e1a16; --soft: #665d53;
  --line: #e4ddd3; --brick: #b5432a; --bad: #b3261e; --warn: #9a5b00; --none: #5c6672;
  --good: #0c7565; }
@media (prefers-color-scheme: dark) { :root { --paper: #131110; --panel: #1c1917; --ink: #f2ede6;
  --soft: #b0a699; --line: #38322d; --brick: #ee8468; --bad: #ff8a80; --warn: #e9b04a;
  --none: #a7b3c0; --good: #4fc9b0; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); overflow-wrap: break-word;
  font: 400 1rem/1.55 Inter, -apple-system, "Segoe UI", Roboto, "Noto Sans", Arial, sans-serif; }
main, header > div, footer { max-width: 960px; margin: 0 auto; padding: 0 2rem; }
header { border-bottom: 1px solid var(--line); }
header > div { display: flex; align-items: center; gap: .6rem; height: 3.5rem; font-weight: 700; }
header svg { fill: var(--brick); }
h1 { font-size: 1.75rem; letter-spacing: -.02em; margin: 2.5rem 0 .25rem; }
main > p { color: var(--soft); margin: 0 0 1.5rem; }
.doctor-list { list-style: none; margin: 0; padding: 0; }
.doctor-list > li { background: var(--panel, #fff); border: 1px solid var(--line, #ddd);
  border-left: 5px solid var(--c); border-radius: 10px; padding: 1rem 1.25rem; margin: 0 0 1rem; }
.doctor-list h2 { font-size: 1.0625rem; margin: 0 0 .5rem; }
.doctor-list h2 span { color: var(--c); text-transform: uppercase; font-size: .8125rem;
  margin-right: .5rem; }
.doctor-list h2 small { font-weight: 400; color: var(--soft, #666); margin-left: .5rem; }
.doctor-list dl { display: grid; grid-template-columns: 4rem minmax(0, 1fr); gap: .3rem .75rem;
  margin: 0; } .doctor-list dt { color: var(--soft, #666); } .doctor-list dd { margin: 0; }
.doctor-list small { white-space: nowrap; }
.doctor-list code { margin-right: .75rem; font: .875rem ui-monospace, Menlo, Consolas, monospace; }
.doctor-list .bad { --c: var(--bad, #b3261e); } .doctor-list .warn { --c: var(--warn, #9a5b00); }
.doctor-list .none { --c: var(--none, #5c6672); } .doctor-list .good { --c: var(--good, #0c7565); }
footer { color: var(--soft); font-size: .8125rem; margin-top: 3rem; padding-bottom: 3rem; }
@media (max-width: 600px) { main, header > div, footer { padding: 0 1rem; }
  .doctor-list dl { grid-template-columns: minmax(0, 1fr); gap: 0; }
  .doctor-list dt { margin-top: .4rem; font-size: .8125rem; } }
@media print { .doctor-list > li { break-inside: avoid; } }
"""
_BRICK = (
    '<svg viewBox="0 0 28 20" width="28" height="20" aria-hidden="true"><path d="M0 0h13v5.6H0z'
    "M15 0h13v5.6H15zM0 7.2h5.5v5.6H0zM7.5 7.2h13v5.6h-13zM22.5 7.2H28v5.6h-5.5zM0 14.4h13V20H0z"
    'M15 14.4h13V20H15z"/></svg>'
)


def page(report: Report) -> str:
    """Return the report as an HTML page that loads nothing."""
    from brickyard.version import __version__

    counts = {s: sum(f.severity == s for f in report.findings) for s in _MARKS}
    said = ", ".join(f"{n} {s}{'s' * (n > 1 and s != 'info')}" for s, n in counts.items() if n)
    name = escape(report.script or "this run")
    watched = (
        f"{report.steps:,} steps watched in {report.seconds:.1f} s, "
        f"overhead {report.overhead:.1%}, " if report.steps else "no training step was seen, "
    )  # fmt: skip
    several = len(report.findings) > 1
    order = "Findings come in the order of how likely each is the cause. " if several else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="Brickyard {__version__}">
<title>Doctor: {name}</title>
<style>{_STYLE}</style>
</head>
<body>
<header><div>{_BRICK}brickyard doctor</div></header>
<main>
<h1>{escape(said[:1].upper() + said[1:]) if said else "Nothing found"}</h1>
<p>{name}: {watched}exit code {report.exit_code}.</p>
{_list(report)}
</main>
<footer>{order}Brickyard {__version__}</footer>
</body>
</html>
"""


def fragment(report: Report) -> str:
    """Return the findings for a notebook's output cell."""
    found = report.findings or report.problems
    body = f"{'' if found else '<p>Nothing found.</p>'}{_list(report)}"
    return f"<style>{_STYLE[_STYLE.index('.doctor-list') :]}</style>{body}"


def _list(report: Report) -> str:
    if not (report.findings or report.problems or report.verdict):
        return ""
    items = [_item(finding) for finding in report.findings]
    if report.verdict is not None:
        items.append(_curve(report.verdict))
    for name, problem in report.problems:
        items.append(
            f'<li class="none"><h2><span>doctor</span>{escape(name)}</h2>'
            f"<p>This check itself failed: {escape(problem)}</p></li>"
        )
    return f'<ul class="doctor-list">\n{"".join(items)}</ul>'


def _curve(verdict: Verdict) -> str:
    seen = [f"{verdict.sentence[:1].upper()}{verdict.sentence[1:]}", *verdict.evidence]
    rows = [("seen", " ".join(seen)), ("try", verdict.advice)]
    body = "".join(f"<dt>{title}</dt><dd>{escape(said)}</dd>" for title, said in rows if said)
    return (
        f'<li class="{verdict.tone}"><h2><span>the curve</span>{escape(verdict.label)}</h2>'
        f"<dl>{body}</dl></li>\n"
    )


def _item(finding: Finding) -> str:
    when = f"step {finding.step}" if finding.step else "before the first step"
    when += f", epoch {finding.epoch}" if finding.epoch else ""
    rows = []
    places = [f"<code>{escape(x)}</code>" for x in (finding.where, finding.place) if x]
    if places:
        rows.append(f"<dt>where</dt><dd>{' '.join(places)}</dd>")
    for title, said in (("seen", finding.evidence), ("why", finding.why), ("try", finding.try_)):
        if said:
            rows.append(f"<dt>{title}</dt><dd>{escape(said)}</dd>")
    return (
        f'<li class="{_MARKS[finding.severity]}"><h2><span>{finding.severity}</span>'
        f"{escape(finding.check)}<small>{when}</small></h2><dl>{''.join(rows)}</dl></li>\n"
    )
