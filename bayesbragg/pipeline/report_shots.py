"""The sections of a report about single shots: how many ended how and why, and the table of all."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from html import escape

import numpy as np

from bayesbragg.diagnostics.report_charts import curves
from bayesbragg.diagnostics.report_page import FILTERED, STATUS, Column, Section, figure, table
from bayesbragg.pipeline.report_data import RunData, column
from bayesbragg.pipeline.report_sections import Results

__all__ = ["outcome", "shots"]

_CELL = ("a", "b", "c", "al", "be", "ga")
_NUMBERS = ("sigmaZ", "n_boxes", "spot_scales", "rotX", "rotY", "rotZ", "target_init", "target", "nfev", "seconds")


def outcome(run: RunData) -> Section:
    """How many shots ended how, and why the failed ones failed."""
    counts = Counter(o.status for o in run.outcomes)
    waiting = run.n_shots - len(run.outcomes)
    parts = [(status, n, STATUS.get(status, "bad")) for status, n in counts.most_common()]
    if waiting > 0:
        parts.append(("waiting", waiting, "muted"))
    bar = "".join(f'<span class="bg-{level}" style="flex:{n}"></span>' for _, n, level in parts)
    key = "".join(
        f'<li><i class="block bg-{level}"></i>{escape(status)} {n} ({100 * n / max(run.n_shots, 1):.0f} %)</li>'
        for status, n, level in parts
    )
    html = f'<div class="stack" aria-hidden="true">{bar}</div><ul class="key">{key}</ul>' if parts else ""
    causes: dict[tuple[str, str], list[str]] = defaultdict(list)
    examples: dict[tuple[str, str], str] = {}
    for item in run.outcomes:
        if item.failed or item.empty or item.status in ("iteration limit", "stalled"):
            cause = item.status, _cause(item.reason, item.tag)
            causes[cause].append(item.tag)
            examples.setdefault(cause, item.reason)
    rows = sorted(causes.items(), key=lambda pair: -len(pair[1]))
    if rows:
        columns = [Column("Status", kind="status"), Column("Cause", kind="long"), Column("Shots", kind="number")]
        columns += [Column("Which", kind="long"), Column("Example", kind="long")]
        lines: list[list[str | float | int | None]] = [
            [status, cause, len(tags), ", ".join(tags[:8]) + (" …" if len(tags) > 8 else ""), examples[status, cause]]
            for (status, cause), tags in rows
        ]
        html += "<h3>Causes</h3>" + table("causes", "Why shots failed or did not converge", columns, lines)
    html = _funnel(run) + html + _pace(run)
    return Section("outcome", "Outcome", "Every shot has a status; a failed one never stops the run.", html)


def _funnel(run: RunData) -> str:
    """How many stills came how far, from images to integrated reflections."""
    if not run.stills:
        return ""
    n = len(run.stills)
    hits = sum(not o.empty and o.status not in ("bad input", "error", "saturated") for o in run.outcomes)
    indexed = sum(bool(r.get("n_lattices")) for r in run.stills)
    steps = [
        ("images", n, ""),
        ("hits", hits, _rate(hits, n, "images")),
        ("indexed", indexed, _rate(indexed, hits, "hits")),
        ("refined", sum(r.get("fit") is not None for r in run.stills), ""),
        ("integrated", sum(r.get("n_integrated") is not None for r in run.stills), ""),
    ]
    lines = "".join(
        f'<span>{name}</span><div style="width:{100 * count / n:.1f}%"></div><span>{count}{escape(rate)}</span>'
        for name, count, rate in steps
    )
    return f'<div class="funnel">{lines}</div>'


def _rate(count: int, of: int, what: str) -> str:
    return f" ({100 * count / of:.0f} % of {what})" if of else ""


def _cause(reason: str, tag: str) -> str:
    """A reason without the names and numbers that differ from shot to shot."""
    text = re.sub(r"\S*/\S*", "FILE", reason).replace(tag, "SHOT")
    text = re.sub(r"(?<![A-Za-z_])[-+]?\d[\d.,e+-]*", "#", text)
    return text.removeprefix("FILE").lstrip(": ")


def _pace(run: RunData) -> str:
    """Shots done against time, and how the figures of the run settle."""
    times = run.finished_at
    if run.state == "finished" or len(times) < 3 or times[-1] <= times[0]:
        return ""
    minutes = (times - times[0]) / 60.0
    keep = np.unique(np.linspace(0, len(times) - 1, 200).astype(int))
    chart = curves(
        minutes[keep].tolist(),
        [("shots done", (keep + 1.0).tolist())],
        "shots done against time",
        x_title="minutes since the first shot was done",
        y_title="shots done",
        height=230,
    )
    return f'<div class="wide">{figure(chart, "Shots done", zoom=False)}</div>'


def shots(run: RunData, results: Results | None) -> Section | None:
    """The table of shots with the columns that readers look at; the files have all."""
    if not run.outcomes:
        return None
    columns = [
        Column("Shot"), Column("Status", kind="status"), Column("sigma-Z", kind="number", digits=3, fixed=True),
        Column("Median offset", "µm", "number", 1, True), Column("Boxes", "", "number"),
        Column("a", "Å", "number", 3, True), Column("b", "Å", "number", 3, True), Column("c", "Å", "number", 3, True),
        Column("α", "degree", "number", 2, True), Column("β", "degree", "number", 2, True),
        Column("γ", "degree", "number", 2, True),
        Column("Na", "cells", "number", 2, True), Column("Nb", "cells", "number", 2, True),
        Column("Nc", "cells", "number", 2, True), Column("G", "", "number"), Column("Turned", "degree", "number", 3),
        Column("Target gain", "", "number"), Column("Evaluations", "", "number"), Column("Time", "s", "number", 2),
        Column("At bound"), Column("Reason", kind="long"),
    ]  # fmt: skip
    of_tag: dict[str, list[int]] = defaultdict(list)
    for i, row in enumerate(run.rows):
        of_tag[str(row.get("tag"))].append(i)
    numbers = {name: column(run.rows, name) for name in (*_CELL, *_NUMBERS)}
    blocks = [column(run.rows, "ncells", i) for i in range(3)]
    lines: list[list[str | float | None]] = []
    for item in run.outcomes:
        offset = results.of_shot.get(item.tag) if results is not None else None
        median = offset.median_um if offset is not None else None
        places = of_tag.get(item.tag, [])
        if not places:
            blank: list[str | float | None] = [None] * (len(columns) - 4)
            lines.append([item.tag, item.status, None, median, *blank[:-1], item.reason])
        for number_, i in enumerate(places):
            n = {name: float(values[i]) for name, values in numbers.items()}
            name = item.tag if len(places) == 1 else f"{item.tag}, lattice {number_}"
            turned = float(np.degrees(np.sqrt(n["rotX"] ** 2 + n["rotY"] ** 2 + n["rotZ"] ** 2)))
            lines.append([
                name, item.status, n["sigmaZ"], median, n["n_boxes"], *(n[edge] for edge in _CELL),
                *(float(block[i]) for block in blocks), n["spot_scales"], turned, n["target_init"] - n["target"],
                n["nfev"], item.seconds or n["seconds"], str(run.rows[i].get("at_bound") or ""), item.reason,
            ])  # fmt: skip
    # Angles that symmetry fixes, the same in every shot, say nothing here.
    fixed = {title for title, name in zip("αβγ", _CELL[3:], strict=True) if len(set(numbers[name].round(6))) <= 1}
    kept = [i for i, c in enumerate(columns) if c.title not in fixed and any(_known(line[i]) for line in lines)]
    caption = "Shots; click a head to sort" + (", type to filter" if len(lines) > FILTERED else "")
    html = table("shot-table", caption, [columns[i] for i in kept], [[line[i] for i in kept] for line in lines])
    return Section("shots", "Shots", "", html)


def _known(value: str | float | None) -> bool:
    return bool(value) if isinstance(value, str) else value is not None and bool(np.isfinite(value))
