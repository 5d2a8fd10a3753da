"""The report of a run: one HTML page from the folder of a run, finished or under way."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from html import escape
from pathlib import Path

import numpy as np

from bayesbragg.diagnostics.offsets import summary
from bayesbragg.diagnostics.report_numbers import number
from bayesbragg.diagnostics.report_page import Column, Figure, Page, Section, render, table
from bayesbragg.io.phil import load_phil
from bayesbragg.model.errors import InputError
from bayesbragg.pipeline.report_data import RunData, column
from bayesbragg.pipeline.report_errors import error_bars, geometry_progress, panels
from bayesbragg.pipeline.report_findings import findings
from bayesbragg.pipeline.report_sections import Results, distributions, offsets_section, spots
from bayesbragg.pipeline.report_shots import outcome, shots
from bayesbragg.pipeline.summary import phil_of, summarize

__all__ = ["report_html", "suggestions"]

_PROGRAMS: Mapping[str, str] = {
    "refine": "refine",
    "stills-process": "stills_process",
    "geometry-refine": "geometry",
}
WITHOUT_ERRORS = "The spread over shots contains the error bars of the fits: bayesbragg posterior tells them apart."
WITH_ERRORS = "The error bars of the single shots are taken out of the spread."


def report_html(run: RunData, results: Results | None, *, refresh_s: int = 0) -> str:
    """The page.

    Args:
        run: what the folder holds.
        results: offsets of its refined reflections, where there are any.
        refresh_s: seconds after which the page loads itself again; 0 for never.
    """
    after = results.after if results is not None else None
    by_d = results.by_resolution(after) if results is not None and after is not None else None
    parts: list[Section | None] = [outcome(run) if run.outcomes else None, geometry_progress(run), panels(run)]
    parts.append(distributions(run, *suggestions(run)))
    parts.append(offsets_section(results) if results is not None and len(results.after) else None)
    if not run.panels:
        parts += [spots(run), error_bars(run)]
    parts += [shots(run, results), _settings(run)]
    page = Page(
        title=run.folder.resolve().name,
        kicker=f"{run.kind} · {_when(run)}",
        lead=_lead(run, results),
        figures=_figures(run, results),
        findings=findings(run, after, by_d, results.before if results is not None else None),
        sections=[part for part in parts if part is not None],
        foot=f"Made by bayesbragg report on {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())} from {run.folder}.",
        live=_live(run, refresh_s),
        refresh_s=refresh_s if run.state != "finished" else 0,
    )
    return render(page)


def suggestions(run: RunData) -> tuple[Mapping[tuple[str, int | None], tuple[float, float]], str, str]:
    """Priors that the run's population suggests: mean and standard deviation by column and place in it, the same as
    PHIL, and a sentence on how they were made. Empty where too few shots converged."""
    try:
        summary_of_run = summarize(run.posterior or run.rows)
    except InputError:
        return {}, "", ""
    found: dict[tuple[str, int | None], tuple[float, float]] = {}
    for line in summary_of_run.lines:
        if line.phil != "G":
            name = line.name.split("[")[0]
            found[name, line.component] = line.population.mean, float(np.sqrt(line.population.variance))
    source = WITH_ERRORS if summary_of_run.has_errors else WITHOUT_ERRORS
    return found, phil_of(summary_of_run) if found else "", source


def _when(run: RunData) -> str:
    written = str(run.record.get("written", "")).replace("T", " ").replace("Z", " UTC")
    return {"finished": f"finished {written}".strip(), "running": "running", "stopped": "not finished"}[run.state]


def _lead(run: RunData, results: Results | None) -> str:
    """The result in a sentence or two."""
    converged = sum(o.status == "converged" for o in run.outcomes)
    failed = sum(o.failed for o in run.outcomes)
    text = []
    fit = run.record.get("fit")
    if run.panels and isinstance(fit, dict):
        n = len({str(row.get("tag")) for row in run.rows})
        text.append(f"{len(run.panels)} panel groups were refined against {n} shots: {fit.get('status')}.")
    elif run.stills:
        empty = sum(o.empty for o in run.outcomes)
        good = sum(not o.failed and not o.empty for o in run.outcomes)
        text.append(f"{good} of {run.n_shots} images were processed; {empty} show no crystal, {failed} failed.")
    elif run.outcomes:
        done = len(run.outcomes) - failed
        text.append(f"{done} of {run.n_shots} shots are refined, {converged} of them converged.")
    if results is not None and len(results.after):
        after = summary(results.after).median_um
        if results.before is not None and len(results.before):
            before = summary(results.before).median_um
            text.append(
                "The median offset between observed and predicted spots went from "
                f"{before:.1f} µm as indexed to {after:.1f} µm."
            )
        else:
            text.append(f"The median offset between observed and predicted spots is {after:.1f} µm.")
    return " ".join(text) or "Nothing is finished yet."


def _figures(run: RunData, results: Results | None) -> list[Figure]:
    found = []
    if run.stills:
        n, empty = len(run.stills), sum(o.empty for o in run.outcomes)
        lattices = sum(int(r.get("n_lattices") or 0) > 0 for r in run.stills)
        found.append(
            Figure("Images", str(n), f"of {run.n_shots}" if run.n_shots > n else "", sub=f"{empty} without a crystal")
        )
        found.append(Figure("Indexed", str(lattices), sub=f"{100 * lattices / max(n - empty, 1):.0f} % of the others"))
    elif run.outcomes:
        done = sum(not o.failed for o in run.outcomes)
        rate = f"{100 * done / max(len(run.outcomes), 1):.0f} % of those tried"
        found.append(Figure("Shots refined", str(done), f"of {run.n_shots}", rate))
    if run.panels:
        found.append(Figure("Panel groups", str(len(run.panels))))
    fit = run.record.get("fit")
    sigma = column(run.rows, "sigmaZ")
    if isinstance(fit, dict) and fit.get("sigma_z") is not None:
        found.append(Figure("sigma-Z", f"{float(fit['sigma_z']):.3f}", sub="1 is noise alone"))
    elif np.isfinite(sigma).any():
        found.append(Figure("sigma-Z, median", f"{float(np.nanmedian(sigma)):.3f}", sub="1 is noise alone"))
    if results is not None and len(results.after):
        s = summary(results.after)
        pixels = s.median_um / float(np.median(results.after.pixel_um))
        found.append(Figure("Median offset", f"{s.median_um:.1f}", "µm", f"{pixels:.2f} pixel"))
        found.append(Figure("RMSD", f"{s.rmsd_um:.1f}", "µm", f"{s.n_reflections} reflections"))
    for name in () if run.panels else ("a", "c"):
        values = column(run.rows, name)
        if np.isfinite(values).sum() > 1:
            sd = 1.4826 * float(np.nanmedian(np.abs(values - np.nanmedian(values))))
            found.append(
                Figure(f"Cell edge {name}", f"{float(np.nanmedian(values)):.3f}", "Å", f"robust sd {number(sd, 2)} Å")
            )
    return found


def _live(run: RunData, refresh_s: int) -> str:
    if run.state != "running":
        return ""
    times = run.finished_at
    text = f"Under way at {time.strftime('%H:%M:%S UTC', time.gmtime())}"
    recent = times[-50:]
    if len(recent) > 2 and recent[-1] > recent[0]:
        rate = 60 * (len(recent) - 1) / (recent[-1] - recent[0])
        text += f", {number(rate, 2)} shots a minute"
        left = run.n_shots - len(run.outcomes)
        if left > 0:
            text += f", about {number(left / rate, 2)} minutes to go"
    return f"{text}." + (f" This page loads itself again every {refresh_s} s." if refresh_s else "")


def _settings(run: RunData) -> Section:
    """What determines the result: command, versions, device, seed, settings and inputs."""
    record = run.record
    facts = [("Command", run.command), ("Device", run.device), ("Seed", str(record.get("seed", "")))]
    facts += [("Platform", str(record.get("platform", ""))), ("Folder", str(run.folder.resolve()))]
    versions = record.get("versions", {})
    facts.append(("Versions", ", ".join(f"{name} {version}" for name, version in versions.items())))
    lines = [[name, value] for name, value in facts if value and value != "None"]
    html = table("facts", "What was run", [Column("What"), Column("Value", kind="long")], lines)
    phil = str(record.get("configuration", {}).get("phil", ""))
    if phil:
        changed = _changed(phil, run.kind)
        if changed:
            html += f'<h3>Parameters that differ from their defaults</h3><pre tabindex="0">{escape(changed)}</pre>'
        html += f'<details><summary>All parameters</summary><pre tabindex="0">{escape(phil)}</pre></details>'
    hashes = record.get("inputs_sha256", {})
    if hashes:
        columns = [Column("File", kind="long"), Column("SHA-256", kind="long")]
        html += "<h3>Inputs</h3>" + table(
            "inputs", "Files that were read", columns, [[k, v] for k, v in hashes.items()]
        )
    note = "Together these determine the result." if record else "The record is written at the end of a run."
    return Section("settings", "Settings and provenance", note, html)


def _changed(phil: str, kind: str) -> str:
    """The parameters of a record that are not at their defaults."""
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "run.phil"
        path.write_text(phil, encoding="utf-8")
        try:
            return load_phil([path], program=_PROGRAMS[kind], warn=False).changed_text()
        except InputError:
            return ""
