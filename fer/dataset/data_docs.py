"""Great Expectations' Data Docs as a site that needs no network.

The pages that Great Expectations renders load Bootstrap, jQuery, Vega and icons from six hosts
and show an empty index without them. Here those references go, a small style and script take
their place, and the index is written by us.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fer.files import write_text

if TYPE_CHECKING:
    from fer.dataset.gate import GateReport

_REMOTE: Final = (
    r"<script\b[^>]*\bsrc=[\"']https?:[^>]*>\s*</script>",
    r"<link\b[^>]*\bhref=[\"']https?:[^>]*>",
    r"<footer>.*?</footer>",
    r"<div class=\"card mb-3\">\s*<div class=\"card-header p-2\">\s*<strong>Actions.*?</div>\s*"
    r"</div>\s*</div>\s*</div>\s*</div>",
)
_URL: Final = re.compile(r"(?:src|href)=[\"']?\s*(?:https?:)?//|url\(\s*[\"']?(?:https?:)?//", re.I)

_STYLE: Final = """
:root { --ink: #1f2933; --soft: #5b6772; --line: #d8dee4; --paper: #fff; --tint: #f3f5f7;
  --good: #2b8a3e; --bad: #c92a2a; --warn: #b35c00; --link: #1864ab; color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ec; --soft: #a3adb7; --line: #3a434c;
  --paper: #14181c; --tint: #1f252b; --good: #69db7c; --bad: #ff8787; --warn: #ffc078;
  --link: #74c0fc; } }
* { box-sizing: border-box; }
body { margin: 0; font: 15px/1.5 system-ui, sans-serif; color: var(--ink);
  background: var(--paper); }
a { color: var(--link); } h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; }
main, .container-fluid .container-fluid { max-width: 72rem; }
main { margin: 2rem auto; padding: 0 1.5rem; }
nav.navbar { height: auto !important; padding: .6rem 1.5rem; background: var(--tint);
  border-bottom: 1px solid var(--line); }
#navigation { background: none !important; border: 0; max-height: none !important; }
ol.breadcrumb, ul.nav { display: flex; flex-wrap: wrap; gap: .3rem .9rem; list-style: none;
  margin: 0; padding: 0; background: none !important; }
ul.nav-pills { flex-direction: column; }
body > .container-fluid { padding: 1.2rem 1.5rem; }
body > .container-fluid > .row { display: grid; grid-template-columns: 13rem minmax(0, 1fr);
  gap: 2rem; }
@media (max-width: 50rem) { body > .container-fluid > .row { display: block; } }
.card { border: 1px solid var(--line); border-radius: 6px; padding: .6rem; margin: .4rem 0; }
.alert { background: var(--tint); border-radius: 6px; padding: .5rem .8rem; margin: .8rem 0 .3rem; }
.alert h5, .alert h6, .m-0 { margin: 0; }
table { border-collapse: collapse; width: 100%; margin: .4rem 0; }
th, td { text-align: left; vertical-align: top; padding: .35rem .6rem;
  border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; }
.badge { background: var(--tint); border: 1px solid var(--line); border-radius: 4px;
  padding: 0 .35rem; color: var(--ink); }
.text-success, .pass { color: var(--good); } .text-danger, .fail { color: var(--bad); }
.text-warning, .warn { color: var(--warn); }
.fas { font-style: normal; font-weight: 700; }
.fa-check-circle::before { content: "\\2713"; } .fa-times::before { content: "\\2717"; }
.fa-exclamation-triangle::before { content: "\\26A0"; }
.collapse:not(.show) { display: none; } .collapse .table { font-size: .9em; }
.cooltip .top { display: none; } .tab-pane { display: block; }
thead[hidden] { display: none; } td > .show-scrollbars { max-height: 40vh; overflow: auto; }
.small { color: var(--soft); font-size: .9em; }
"""

# What Bootstrap did: open and close "Show more info".
_SCRIPT: Final = """
document.addEventListener("click", function (event) {
  var link = event.target.closest('[data-toggle="collapse"]');
  if (!link) { return; }
  event.preventDefault();
  var body = document.querySelector(link.getAttribute("href") || link.dataset.target);
  if (body) { body.classList.toggle("show"); }
});
"""


def localize(site: Path) -> None:
    """Make every page of a Data Docs site work without a network, in place."""
    for page in sorted(site.rglob("*.html")):
        write_text(page, offline(page.read_text(encoding="utf-8")))
    # Their logos, tutorials' animations and fonts, 4 MB, which no page shows any more.
    shutil.rmtree(site / "static", ignore_errors=True)


def offline(page: str) -> str:
    """One page without references to other hosts, with the style that replaces them."""
    for pattern in _REMOTE:
        page = re.sub(pattern, "", page, flags=re.S | re.I)
    page = re.sub(r"<img\b[^>]*\bsrc=[\"']https?:[^>]*>", "Data gate", page, flags=re.I)
    page = re.sub(r"<style>.*?</style>", "", page, flags=re.S)
    page = re.sub(r"<link rel=\"shortcut icon\"[^>]*>", '<link rel="icon" href="data:,">', page)
    page = re.sub(r"<a href=\"https?:[^\"]*\"[^>]*>(.*?)</a>", r"\1", page, flags=re.S)
    # What is left needs jQuery: filters of the sidebar and the opening tutorial.
    page = re.sub(r"<script>(?:(?!</script>).)*\$\(.*?</script>", "", page, flags=re.S)
    head = f"{_policy()}<style>{_STYLE}</style><script>{_SCRIPT}</script>"
    return page.replace("</head>", f"{head}</head>", 1)


def _policy() -> str:
    """Lets a browser load nothing and run our script alone: image names come from strangers."""
    digest = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
    rules = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return f'<meta http-equiv="Content-Security-Policy" content="{rules}; img-src data:">'


def remote_references(site: Path) -> list[str]:
    """Pages and what they would load from another host; empty for a site that works offline."""
    return [
        f"{page.relative_to(site)}: {text[match.start() : match.start() + 90]}"
        for page in sorted(site.rglob("*.html"))
        for text in [page.read_text(encoding="utf-8")]
        for match in _URL.finditer(text)
    ]


def write_index(site: Path, report: GateReport) -> None:
    """Write the first page: the verdict, every expectation, the counts, links to all pages."""
    marks = {"passed": "pass &#10003;", "warned": "warn &#9888;", "failed": "fail &#10007;"}
    rows = []
    for result in report.results:
        kind = "passed" if result.passed else "warned" if result.severity == "warning" else "failed"
        style, mark = marks[kind].split(" ")
        examples = "" if result.passed else ", ".join(result.examples)
        rows.append(
            [
                f'<span class="{style}">{mark} {kind}</span>',
                html.escape(result.words[0].upper() + result.words[1:]),
                html.escape(result.found),
                html.escape(examples),
            ]
        )
    verdict = "passed" if report.passed else "found a breach"
    style = "pass" if report.passed else "fail"
    pages = sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html"))
    links = [
        f'<li><a href="{html.escape(page)}">{html.escape(_title(page))}</a></li>'
        for page in pages
        if page != "index.html"
    ]
    body = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<title>Data gate: {verdict}</title><link rel='icon' href='data:,'>",
        f"{_policy()}<style>{_STYLE}</style></head><body><main>",
        f"<h1>The data gate <span class='{style}'>{verdict}</span></h1>",
        _table(["Result", "Expectation", "Found", "For instance"], rows),
        "<h2>Images</h2>",
        _counts(report),
        "<h2>Great Expectations</h2><ul>",
        *links,
        "</ul></main></body></html>",
    ]
    write_text(site / "index.html", "\n".join(body) + "\n")


def _counts(report: GateReport) -> str:
    rows = report.summary.get("rows", {})
    splits = [name for name in rows if name != "total"]
    labels = sorted({label for split in splits for label in rows[split]} - {"total"})
    lines = [
        [html.escape(split), *(f"{rows[split].get(one, 0):,}" for one in [*labels, "total"])]
        for split in splits
    ]
    return _table(["Split", *labels, "total"], lines)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An HTML table; the cells are HTML already, the header is text."""
    head = "".join(f"<th>{html.escape(one)}</th>" for one in header)
    body = "".join("<tr>" + "".join(f"<td>{one}</td>" for one in row) + "</tr>\n" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table>"


def _title(page: str) -> str:
    kind, _, rest = page.partition("/")
    name = Path(rest).stem
    return f"Expectation suite: {name}" if kind == "expectations" else f"Validation result: {name}"
