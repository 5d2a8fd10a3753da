"""The page of a report: one HTML file that needs nothing else, put together from sections, tables and figures.

Text is escaped here and nowhere else. Style and script are the files of ``report_assets``; they are copied into the
page, which opens from disk without a network.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files

from bayesbragg.diagnostics.report_numbers import number

__all__ = ["Column", "Figure", "Finding", "Page", "Section", "figure", "render", "table"]

Cell = str | float | int | None
PAGE_ROWS = 50
"""Rows that stand in the page itself; the script shows the others, so many at a time."""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: its head; unit: shown below it.
        kind: ``text``, ``number``, ``status`` or ``long`` (a sentence).
        digits: significant digits of numbers, or with ``fixed`` decimals.
        fixed: whether digits count decimals.
    """

    title: str
    unit: str = ""
    kind: str = "text"
    digits: int = 4
    fixed: bool = False

    def shown(self, value: Cell) -> str:
        """The text of a value."""
        if value is None:
            return ""
        if self.kind != "number":
            return str(value)
        if not math.isfinite(float(value)):
            return "–"
        if self.fixed:
            return f"{float(value):.{self.digits}f}".replace("-", "−")
        return number(float(value), self.digits)


@dataclass(frozen=True)
class Section:
    """A part of the page: its anchor, its title, one sentence that says how to read it, and its HTML."""

    anchor: str
    title: str
    note: str
    html: str


@dataclass(frozen=True)
class Figure:
    """A number at the head of the page.

    Attributes:
        name: what it is; value, unit: the number as text; sub: a remark below it.
    """

    name: str
    value: str
    unit: str = ""
    sub: str = ""


@dataclass(frozen=True)
class Finding:
    """Something that a reader should know first.

    Attributes:
        level: ``good``, ``note``, ``look`` or ``bad``.
        text: a sentence.
        anchor: of the section that shows more.
    """

    level: str
    text: str
    anchor: str = ""


@dataclass(frozen=True)
class Page:
    """Everything that a report says.

    Attributes:
        title: name of the run; kicker: what kind of run, above it; lead: its result in a sentence or two.
        figures, findings, sections: in order.
        foot: the last line.
        live: a sentence about a run that goes on, or an empty text.
        refresh_s: seconds after which the page loads itself again; 0 for never.
    """

    title: str
    kicker: str
    lead: str
    figures: Sequence[Figure]
    findings: Sequence[Finding]
    sections: Sequence[Section]
    foot: str
    live: str = ""
    refresh_s: int = 0


FILTERED = 8
"""Tables of more rows than that have a filter; the script counts the same."""

LEVELS = {"good": "Good", "note": "Note", "look": "Look at", "bad": "Problem"}
STATUS = {"converged": "good", "passed": "good", "existing": "good", "finished": "good"}
STATUS |= {"integrated": "good", "refined": "good", "indexed": "good", "spots found": "good"}
STATUS |= {
    "iteration limit": "look",
    "stalled": "look",
    "no spots": "muted",
    "not a hit": "muted",
    "few spots": "muted",
}


def table(anchor: str, caption: str, columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> str:
    """A table that sorts, filters and turns pages.

    Args:
        anchor: unique in the page.
        caption: what the rows are.
        rows: values; the first column heads its row.
    """
    heads = "".join(
        f'<th scope="col"{_class(c.kind)}><button type="button">{escape(c.title)}</button>'
        + (f'<span class="unit">{escape(c.unit)}</span>' if c.unit else "")
        + "</th>"
        for c in columns
    )
    lines = [_row(columns, row) for row in rows[:PAGE_ROWS]]
    data = {
        "kinds": [c.kind for c in columns],
        "levels": STATUS if any(c.kind == "status" for c in columns) else {},
        "rows": [[_plain(c, value) for c, value in zip(columns, row, strict=True)] for row in rows],
    }
    # Inside a script element only the end of that element has to be hidden.
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    tools = (
        f'<div class="tools" hidden><input type="search" aria-label="Filter: {escape(caption)}" placeholder="Filter">'
        '<span class="count muted" aria-live="polite"></span>'
        '<button type="button">Previous</button><button type="button">Next</button></div>'
    )
    return (
        f'<div class="table" id="{anchor}">{tools}<div class="scroll" tabindex="0" role="region" '
        f'aria-label="{escape(caption)}"><table><caption>{escape(caption)}</caption><thead><tr>{heads}</tr></thead>'
        f'<tbody>{"".join(lines)}</tbody></table></div><script type="application/json">{text}</script></div>'
    )


def _class(kind: str) -> str:
    return ' class="number"' if kind == "number" else ' class="long"' if kind == "long" else ""


def _row(columns: Sequence[Column], row: Sequence[Cell]) -> str:
    cells = []
    for i, (column, value) in enumerate(zip(columns, row, strict=True)):
        text = escape(column.shown(value))
        if column.kind == "status":
            text = f'<span class="status {STATUS.get(text, "bad")}">{text}</span>'
        cells.append(
            f'<th scope="row"{_class(column.kind)}>{text}</th>' if i == 0 else f"<td{_class(column.kind)}>{text}</td>"
        )
    return f"<tr>{''.join(cells)}</tr>"


def _plain(column: Column, value: Cell) -> object:
    """A cell for the script: its text, or the number to sort by with its text."""
    text = column.shown(value)
    if column.kind != "number":
        return text
    known = value is not None and math.isfinite(float(value))
    return [float(value) if known and value is not None else None, text]


def figure(
    html: str, title: str, caption: str = "", *, unit: str = "", key: str = "", zoom: bool = True, level: int = 3
) -> str:
    """A picture with its title above, its caption below and a list ``key`` of what its colours say; with ``zoom`` it
    can be enlarged."""
    if not html:
        return ""
    of = f' <span class="unit">{escape(unit)}</span>' if unit else ""
    button = ""
    if zoom:
        button = f'<button class="zoom" type="button" hidden aria-label="Enlarge: {escape(title)}">Enlarge</button>'
    return (
        f'<figure class="zoomable" data-title="{escape(title)}"><h{level}>{escape(title)}{of}</h{level}>'
        f"{html}<figcaption><span>{escape(caption)}</span>{key}{button}</figcaption></figure>"
    )


def _section(part: Section) -> str:
    note = f'<p class="note">{escape(part.note)}</p>' if part.note else ""
    return (
        f'<section class="part" id="{part.anchor}" aria-labelledby="{part.anchor}-title">'
        f'<h2 id="{part.anchor}-title">{escape(part.title)}</h2>{note}{part.html}</section>'
    )


def _figures(figures: Sequence[Figure]) -> str:
    cells = []
    for item in figures:
        unit = f"<small>{escape(item.unit)}</small>" if item.unit else ""
        cells.append(
            f'<div><dt>{escape(item.name)}</dt><dd class="value">{escape(item.value)}{unit}</dd>'
            + (f'<dd class="sub">{escape(item.sub)}</dd>' if item.sub else "")
            + "</div>"
        )
    return f'<dl class="figures">{"".join(cells)}</dl>' if cells else ""


def _findings(findings: Sequence[Finding]) -> str:
    lines = []
    for item in findings:
        more = f' <a href="#{item.anchor}">See {item.anchor.replace("-", " ")}</a>' if item.anchor else ""
        lines.append(
            f'<li><span class="level {item.level}">{LEVELS[item.level]}</span>'
            f"<span>{escape(item.text)}{more}</span></li>"
        )
    return f'<ul class="findings">{"".join(lines)}</ul>' if lines else ""


def render(page: Page) -> str:
    """The HTML of a page."""
    assets = files("bayesbragg.diagnostics") / "report_assets"
    style = (assets / "style.css").read_text(encoding="utf-8")
    script = (assets / "script.js").read_text(encoding="utf-8")
    links = "".join(f'<li><a href="#{s.anchor}">{escape(s.title)}</a></li>' for s in page.sections)
    live = ""
    if page.live:
        pause = '<button type="button" aria-pressed="false" hidden>Pause</button>' if page.refresh_s else ""
        clock = f' data-refresh="{page.refresh_s}"' if page.refresh_s else ""
        pulse = '<i class="pulse" aria-hidden="true"></i>'
        live = f'<div class="live"{clock}>{pulse}<span>{escape(page.live)}</span>{pause}</div>'
    buttons = "".join(
        f'<button type="button" data-zoom>{text}</button>' for text in ("Closer", "Farther", "Whole picture")
    )
    first = Section("findings", "What stands out", "", _findings(page.findings))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(page.title)}: report</title>
<meta name="generator" content="bayesbragg">
<link rel="icon" href="data:,">
<style>
{style}</style>
</head>
<body>
<a class="skip" href="#content">Skip to the content</a>
<div class="frame">
<nav class="contents" aria-label="Contents"><p class="mark">bayesbragg</p>
<ol><li><a href="#findings">What stands out</a></li>{links}</ol></nav>
<main id="content">
<header class="top"><p class="kicker">{escape(page.kicker)}</p><h1>{escape(page.title)}</h1>
<p class="lead">{escape(page.lead)}</p>{live}{_figures(page.figures)}</header>
{_section(first)}
{"".join(_section(part) for part in page.sections)}
<footer>{escape(page.foot)}</footer>
</main>
</div>
<dialog aria-label="Enlarged picture"><div class="tools"><strong class="title"></strong>{buttons}
<button type="button" data-close>Close</button></div>
<div class="said"></div>
<div class="stage" tabindex="0" role="group"
 aria-label="Picture: wheel or plus and minus to zoom, drag or arrows to move"></div></dialog>
<script>
{script}</script>
</body>
</html>
"""
