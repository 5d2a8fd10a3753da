"""What stands out in a run: rules that turn its figures into sentences, each with what to do.

The limits are rules of thumb, stated here once: a median sigma-Z outside 0.9 to 1.2; radial offsets that double from
low to high resolution and reach half a pixel; panels whose median offset is beyond 4 of its standard errors and above
0.15 pixel; offsets a tenth larger than as indexed; a cell parameter beyond 6 robust standard deviations of the run; a
tenth of the shots at one bound.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from bayesbragg.diagnostics.offsets import Offsets, OffsetsByResolution
from bayesbragg.diagnostics.report_numbers import number
from bayesbragg.diagnostics.report_page import Finding
from bayesbragg.pipeline.report_data import RunData, column

__all__ = ["findings"]

SIGMA_Z = (0.9, 1.2)
GROWTH = 2.0
LEAST_GROWN = 0.5
PANEL_SE, PANEL_PX = 4.0, 0.15
OUTLIER = 6.0
BOUND_SHARE = 0.1
WORSE = 1.1

_GOES_ON: Mapping[str, str] = {
    "stills-process": "The same command with --resume goes on from here.",
    "refine": "ignore_existing=True goes on from here; bayesbragg rebuild-table makes the table.",
    "geometry-refine": "The same command goes on from here.",
}
"""What to do with a run that was stopped, by its kind."""


def findings(
    run: RunData, offsets: Offsets | None, by_d: OffsetsByResolution | None, indexed: Offsets | None = None
) -> list[Finding]:
    """Sentences, problems first; one that all is well where nothing stands out.

    Args:
        offsets, by_d: of the run's models; indexed: of those that came with the indexed spots.
    """
    found = [*_outcomes(run), *_noise(run), *_bounds(run), *_cells(run)]
    if offsets is not None and len(offsets):
        found += _worse(indexed, offsets) + _growth(by_d) + _panels(offsets)
    found += _verdicts(run)
    if run.state == "stopped":
        text = f"The run has no record of its end: it was stopped, or has been silent for a while. {_GOES_ON[run.kind]}"
        found.append(Finding("look", text))
    order = {"bad": 0, "look": 1, "note": 2, "good": 3}
    found.sort(key=lambda f: order[f.level])
    if not any(f.level in ("bad", "look") for f in found) and (run.rows or run.panels):
        found.insert(0, Finding("good", "Nothing is out of the ordinary by the rules that this page applies."))
    return found


def _share(n: int, total: int) -> str:
    return f"{n} of {total} shots"


def _outcomes(run: RunData) -> list[Finding]:
    found = []
    failed = [o for o in run.outcomes if o.failed]
    if failed:
        status, n = Counter(o.status for o in failed).most_common(1)[0]
        first = next(o for o in failed if o.status == status)
        which = f"({status})" if n == len(failed) else f"({n} of them: {status})"
        text = f"{_share(len(failed), len(run.outcomes))} failed {which}. The first: {first.reason}"
        found.append(Finding("bad", text if text.endswith(".") else f"{text}.", "outcome"))
    slow = [o for o in run.outcomes if o.status in ("iteration limit", "stalled")]
    if slow:
        found.append(
            Finding("look", f"{_share(len(slow), len(run.outcomes))} did not converge; their values are the best that "
                    "the search saw, not optima. Raise the limit of iterations, or restrain what is weak.", "outcome")
        )  # fmt: skip
    return found


def _noise(run: RunData) -> list[Finding]:
    values = column(run.rows, "sigmaZ")
    values = values[np.isfinite(values)]
    fit = run.record.get("fit")
    if run.panels and isinstance(fit, dict) and fit.get("sigma_z") is not None:
        values = np.array([float(fit["sigma_z"])])
    if not len(values):
        return []
    middle = float(np.median(values))
    if middle > SIGMA_Z[1]:
        text = (
            f"The median sigma-Z is {middle:.2f}: residuals are larger than noise. Look at the worst spots: a wrong "
            "background, structure factors, spectrum or geometry each leave their own pattern."
        )
        return [Finding("look", text, "spots")]
    if middle < SIGMA_Z[0]:
        text = f"The median sigma-Z is {middle:.2f}: noise is overestimated. Check the gain and the readout noise."
        return [Finding("look", text, "settings")]
    return [Finding("note", f"Residuals are those of noise: the median sigma-Z is {middle:.3f}.")]


def _bounds(run: RunData) -> list[Finding]:
    names = Counter(name for row in run.rows for name in str(row.get("at_bound") or "").split(",") if name)
    found = []
    for name, n in names.most_common(3):
        if n >= max(1.0, BOUND_SHARE * len(run.rows)):
            text = f"{name} ended at a bound in {_share(n, len(run.rows))}: widen the bound, or restrain or fix it."
            found.append(Finding("look", text, "shots"))
    fit = run.record.get("fit")
    if isinstance(fit, dict) and fit.get("at_bound"):
        found.append(Finding("look", f"At a bound: {', '.join(map(str, fit['at_bound']))}.", "panels"))
    return found


def _cells(run: RunData) -> list[Finding]:
    """Shots whose cell is far from the others'."""
    if len(run.rows) < 8:
        return []
    names: set[str] = set()
    for name in ("a", "b", "c", "al", "be", "ga"):
        values = column(run.rows, name)
        middle = np.nanmedian(values)
        spread = 1.4826 * np.nanmedian(np.abs(values - middle))
        if spread > 1e-6:
            names |= {str(run.rows[i].get("tag")) for i in np.flatnonzero(np.abs(values - middle) > OUTLIER * spread)}
    if not names:
        return []
    shown = ", ".join(sorted(names)[:4]) + (" and others" if len(names) > 4 else "")
    verb = "has a cell" if len(names) == 1 else "have cells"
    text = f"{_share(len(names), len(run.rows))} ({shown}) {verb} far from the others': wrongly indexed, or weak."
    return [Finding("look", text, "shots")]


def _worse(indexed: Offsets | None, offsets: Offsets) -> list[Finding]:
    """Whether spots lie farther from the models than before pixels were looked at."""
    if indexed is None or not len(indexed):
        return []
    before, after = (float(np.median(o.overall_um)) for o in (indexed, offsets))
    if after <= WORSE * before:
        return []
    text = (
        f"Spots lie farther from the refined models ({after:.1f} µm) than from the indexed ones ({before:.1f} µm): "
        "look at the worst spots, the spectrum, the start values and the geometry."
    )
    return [Finding("look", text, "offsets")]


def _growth(by_d: OffsetsByResolution | None) -> list[Finding]:
    if by_d is None or len(by_d.d_A) < 4:
        return []
    low, high = float(np.mean(by_d.radial_px[:2])), float(np.mean(by_d.radial_px[-2:]))
    around = float(np.mean(by_d.tangential_px[-2:]))
    if low > 0 and high > GROWTH * low and high > 1.3 * around and high > LEAST_GROWN:
        text = (
            f"Radial offsets grow from {number(low, 2)} to {number(high, 2)} pixel towards high resolution, more than "
            "transverse ones: look at the cell, the detector distance and the spectrum."
        )
        return [Finding("look", text, "offsets")]
    return []


def _panels(offsets: Offsets) -> list[Finding]:
    """Panels whose reflections lie off to one side, beyond chance."""
    beyond, judged, largest = 0, 0, 0.0
    for panel in np.unique(offsets.panel):
        here = offsets.select(offsets.panel == panel)
        if len(here) < 8:
            continue
        judged += 1
        xy = here.offset_um[:, :2]
        middle = np.median(xy, axis=0)
        spread = 1.4826 * np.median(np.abs(xy - middle), axis=0)
        error = 1.2533 * np.maximum(spread, 1e-9) / np.sqrt(len(here))
        pixels = float(np.linalg.norm(middle) / np.median(here.pixel_um))
        if np.any(np.abs(middle) > PANEL_SE * error) and pixels > PANEL_PX:
            beyond, largest = beyond + 1, max(largest, pixels)
    if judged >= 2 and beyond > 0.15 * judged:
        text = (
            f"{beyond} of {judged} panels are off to one side by more than chance, up to {number(largest, 2)} pixel: "
            "their positions are at fault. bayesbragg geometry-refine corrects them."
        )
        return [Finding("look", text, "offsets")]
    return []


def _verdicts(run: RunData) -> list[Finding]:
    verdicts = {str(row.get("tag")): str(row.get("verdict")) for row in run.posterior or run.rows}
    bad = [tag for tag, verdict in verdicts.items() if verdict.startswith("FAILED")]
    n = len(bad) + sum(verdict.startswith("passed") for verdict in verdicts.values())
    if not n:
        return []
    if not bad:
        return [Finding("note", f"All {n} posteriors that were checked passed.", "error-bars")]
    shown = ", ".join(bad[:4]) + (" and others" if len(bad) > 4 else "")
    text = f"{len(bad)} of {n} posteriors failed their checks ({shown}): do not use their error bars."
    return [Finding("bad", text, "error-bars")]
