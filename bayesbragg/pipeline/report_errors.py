"""The sections of a report about error bars: posteriors of shots, and the panels of a joint geometry fit.

Between shots the scatter is compared with the error bars: chi = root of the mean of ((value - weighted mean)/sd)^2,
times n/(n - 1). Near 1 the shots differ by their errors only; above, the crystals differ, or the model leaves something
out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bayesbragg.diagnostics.arviz_container import groups_of, read_netcdf
from bayesbragg.diagnostics.report_charts import curves, whiskers
from bayesbragg.diagnostics.report_numbers import number, with_error
from bayesbragg.diagnostics.report_page import Column, Section, figure, table
from bayesbragg.model.errors import InputError
from bayesbragg.pipeline.report_data import Row, RunData, column

__all__ = ["error_bars", "geometry_progress", "panels"]

FloatArray = npt.NDArray[np.float64]
Groups = Mapping[str, Any]
"""Data sets of a posterior file by name."""

MOST_POSTERIORS = 25
STRONG = 0.9

# title, unit, column of the value and place, column of its standard deviation and place
PARAMETERS: tuple[tuple[str, str, str, int | None, str, int | None], ...] = (
    ("Cell edge a", "Å", "a", None, "a_sd", None),
    ("Cell edge b", "Å", "b", None, "b_sd", None),
    ("Cell edge c", "Å", "c", None, "c_sd", None),
    ("Cell angle α", "degree", "al", None, "al_sd", None),
    ("Cell angle β", "degree", "be", None, "be_sd", None),
    ("Cell angle γ", "degree", "ga", None, "ga_sd", None),
    ("Block size Na", "cells", "ncells", 0, "ncells_sd", 0),
    ("Block size Nb", "cells", "ncells", 1, "ncells_sd", 1),
    ("Block size Nc", "cells", "ncells", 2, "ncells_sd", 2),
    ("Mosaic spread", "degree", "eta_abc", 0, "eta_abc_sd", 0),
    ("Scale G", "", "spot_scales", None, "spot_scales_sd", None),
    ("B factor", "Å²", "B", None, "B_sd", None),
)


def error_bars(run: RunData) -> Section:
    """Values with their error bars, verdicts, and how much the data say beyond the prior."""
    rows = run.posterior or [row for row in run.rows if "a_sd" in row]
    if not rows:
        html = (
            "<p>No error bars yet. <code>bayesbragg posterior</code> adds them to this folder in seconds per shot, "
            "with a verdict on each.</p>"
        )
        return Section("error-bars", "Error bars", "", html)
    tags = [str(row.get("tag")) for row in rows]
    posteriors = _posteriors(run.folder, tags)
    figures: list[str] = []
    seen: list[FloatArray] = []
    for title, unit, name, place, sd_name, sd_place in PARAMETERS:
        values, sds = column(rows, name, place), column(rows, sd_name, sd_place)
        good = np.isfinite(values) & (sds > 0)
        if not good.any() or any(np.allclose(values, v, rtol=1e-12) for v in seen):
            continue
        seen.append(values)
        mean = float(np.average(values[good], weights=sds[good] ** -2.0))
        n = int(good.sum())
        caption = f"{with_error(mean, float(np.sum(sds[good] ** -2.0) ** -0.5))} (weighted mean)"
        if n > 1:
            chi = float(np.sqrt(np.sum(((values[good] - mean) / sds[good]) ** 2) / (n - 1)))
            caption += f"; scatter {number(chi, 2)} times the error bars"
        chart = whiskers(values, np.where(good, sds, np.nan), tags, f"{title}: {caption}", line=mean)
        figures.append(figure(chart, title, caption, unit=unit))
    html = f'<div class="grid">{"".join(figures)}</div>' + _verdicts(rows, posteriors) + _identifiability(posteriors)
    note = (
        "One standard deviation to each side, shot by shot. A scatter above the error bars is that of the crystals, or "
        "of what the model leaves out."
    )
    return Section("error-bars", "Error bars", note, html)


def _verdicts(rows: Sequence[Row], posteriors: Mapping[str, Groups]) -> str:
    """A row for each posterior that was checked."""
    checked = [row for row in rows if str(row.get("verdict")).startswith(("passed", "FAILED"))]
    if not checked:
        return (
            '<p class="note">These error bars are those of the Gaussian about each best fit and were not checked; '
            "<code>bayesbragg posterior</code> does.</p>"
        )
    columns = [Column("Shot"), Column("Method"), Column("Verdict", kind="status"), Column("Checks", kind="long")]
    lines: list[list[str | float | None]] = []
    for row in checked:
        tag, text = str(row.get("tag")), str(row["verdict"])
        if tag in posteriors:
            checks = json.loads(posteriors[tag]["posterior"].attrs.get("checks", "[]"))
            text = "; ".join(map(str, checks)) or text
        passed = "passed" if str(row["verdict"]).startswith("passed") else "failed"
        lines.append([tag, str(row.get("inference") or ""), passed, text])
    return "<h3>Verdicts</h3>" + table("verdicts", "Whether each posterior can be trusted", columns, lines)


def _posteriors(folder: Path, tags: Sequence[str]) -> dict[str, Groups]:
    """Posteriors of the first shots that have one, by tag."""
    found: dict[str, Groups] = {}
    for tag in dict.fromkeys(tags):
        path = folder / f"{tag}_posterior.nc"
        if len(found) < MOST_POSTERIORS and path.is_file():
            try:
                found[tag] = groups_of(read_netcdf(path))
            except InputError:
                continue
    return found


def _identifiability(posteriors: Mapping[str, Groups]) -> str:
    """Posterior over prior widths, and the pairs of parameters that the data tell only together."""
    ratios: dict[str, list[float]] = {}
    pairs: dict[tuple[str, str], list[float]] = {}
    for groups in posteriors.values():
        constants = groups["constant_data"]
        names = [str(name) for name in constants["parameter"].values]
        sd = np.asarray(constants["posterior_sd"].values)
        prior = groups.get("prior", {})
        for name, width in zip(names, sd, strict=True):
            before = float(np.std(prior[name].values)) if name in prior else np.nan
            ratios.setdefault(name, []).append(float(width) / before if before > 0 else np.nan)
        correlation = np.asarray(constants["posterior_covariance"].values) / np.outer(sd, sd)
        for i, j in zip(*np.triu_indices(len(names), 1), strict=True):
            pairs.setdefault((names[i], names[j]), []).append(float(correlation[i, j]))
    if not ratios:
        return ""
    columns = [Column("Parameter"), Column("Posterior over prior width", "median", "number", 2)]
    lines: list[list[str | float | None]] = []
    for name, values in ratios.items():
        lines.append([name, float(np.median(values)) if np.isfinite(values).all() else None])
    caption = "Near 0 the data decide, near 1 the prior does; blank: a flat prior without bounds"
    html = "<h3>What the data say</h3>" + table("identifiability", caption, columns, lines)
    strong = sorted(((float(np.median(r)), names) for names, r in pairs.items()), key=lambda item: -abs(item[0]))
    told = [f"{one} with {other} ({number(r, 2)})" for r, (one, other) in strong if abs(r) > STRONG][:8]
    text = (
        f"Pairs that the data tell only together (correlation beyond {STRONG}): {', '.join(told)}."
        if told
        else f"No two parameters are correlated beyond {STRONG}."
    )
    return html + f'<p class="note">{escape(text)}</p>'


def panels(run: RunData) -> Section | None:
    """Motions of the panel groups with their error bars, and what the data say of them."""
    if not run.panels:
        return None
    motions = (
        ("RotOrth", "Rotation about the normal", "millidegree", 1e3 * 180 / np.pi),
        ("RotFast", "Rotation about fast", "millidegree", 1e3 * 180 / np.pi),
        ("RotSlow", "Rotation about slow", "millidegree", 1e3 * 180 / np.pi),
        ("ShiftX", "Shift along x", "µm", 1e6),
        ("ShiftY", "Shift along y", "µm", 1e6),
        ("ShiftZ", "Shift along z", "µm", 1e6),
    )
    names = [f"group {row['group']:.0f}, {row.get('n_reflections', 0):.0f} reflections" for row in run.panels]
    columns = [Column("Group"), Column("Reflections", kind="number")]
    cells: list[list[str | float | None]] = [[f"{r['group']:.0f}", r.get("n_reflections", 0.0)] for r in run.panels]
    figures = []
    for name, title, unit, factor in motions:
        values, sd, before = (factor * column(run.panels, f"{name}{end}") for end in ("", "_sd", "_prior_sd"))
        told = float(np.median(sd / np.where(before > 0, before, np.nan)))
        caption = f"median error bar {number(float(np.median(sd)), 2)} {unit}, {number(told, 2)} of the prior’s width"
        chart = whiskers(values, sd, names, f"{title}: {caption}", band_sds=before, line=0.0)
        figures.append(figure(chart, title, caption, unit=unit))
        short = title.replace("about the", "about").replace("Rotation about", "Rot.").replace("Shift along", "Shift")
        columns += [Column(short, unit, "number", 1, True)]
        columns += [Column("sd", unit, "number", 1, True)]
        for line, value, width in zip(cells, values, sd, strict=True):
            line += [float(value), float(width)]
    html = f'<div class="grid">{"".join(figures)}</div>'
    html += "<h3>Panel groups</h3>" + table(
        "groups", "Motions of the panel groups and their standard deviations", columns, cells
    )
    if run.identifiability:
        html += (
            '<h3>What the data say</h3><p class="note">Common motions of the whole detector, then the directions that '
            "are left to the prior: a ratio near 1 means that the data say nothing.</p>"
            f'<pre tabindex="0">{escape(run.identifiability)}</pre>'
        )
    note = (
        "Each group in order of its number: the motion found, one standard deviation to each side, and the prior’s "
        "standard deviation as a band. A group with few reflections leans on its neighbours."
    )
    return Section("panels", "Panels", note, html)


def geometry_progress(run: RunData) -> Section | None:
    """How the joint search went, step by step."""
    fit = run.record.get("fit")
    steps = [s for s in (fit or {}).get("trace", []) if s.get("accepted", True)]
    if len(steps) < 2:
        return None
    x = [float(s["number"]) for s in steps]
    drop = [float(s["target"]) - float(steps[-1]["target"]) for s in steps]
    charts = (
        ("Target above its end", "log₁₀", [("target", np.log10(np.maximum(drop, 1e-3)).tolist())], False),
        ("Median offset", "pixel", [("median offset", [float(s["median_offset_px"]) for s in steps])], True),
        ("sigma-Z", "", [("sigma-Z", [float(s["sigma_z"]) for s in steps])], False),
    )
    body = "".join(
        figure(curves(x, series, title, x_title="step", from_zero=zero, width=340, height=210), title, unit=unit)
        for title, unit, series, zero in charts
    )
    text = f"{fit['status']}: {fit['reason']}; {fit['iterations']} steps, {float(fit['seconds']):.0f} s." if fit else ""
    return Section("progress", "Progress", text, f'<div class="grid">{body}</div>')
