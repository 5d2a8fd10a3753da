"""The sections of a report about a run as a whole: distributions, offsets, and spots observed beside modelled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape

import numpy as np
import numpy.typing as npt

from bayesbragg.diagnostics.offsets import Offsets, OffsetsByResolution, OffsetSummary, by_resolution, summary
from bayesbragg.diagnostics.report_charts import curves, histogram
from bayesbragg.diagnostics.report_detector import colour_key, colour_limits, detector_map
from bayesbragg.diagnostics.report_numbers import number, with_error
from bayesbragg.diagnostics.report_page import Section, figure
from bayesbragg.diagnostics.report_spots import Spot, best_and_worst, spot_figures, spots_of
from bayesbragg.model import Detector
from bayesbragg.model.errors import InputError
from bayesbragg.pipeline.report_data import RunData, column
from bayesbragg.pipeline.write import read_modeler

__all__ = ["Results", "distributions", "offsets_section", "spots"]

FloatArray = npt.NDArray[np.float64]

MOST_MODELERS = 60
RESOLUTION_BINS = 10


@dataclass(frozen=True, eq=False)
class Results:
    """Offsets of a run's refined reflections.

    Attributes:
        detector: of the first shot.
        after, before: offsets from the model's centroids, and from those that came with the indexed spots, where there
            are any.
        of_shot: offsets of each shot in a few numbers, by tag.
        n_read, n_all: shots that were read, and those that there are.
    """

    detector: Detector
    after: Offsets
    before: Offsets | None
    of_shot: Mapping[str, OffsetSummary]
    n_read: int
    n_all: int

    def by_resolution(self, offsets: Offsets) -> OffsetsByResolution | None:
        """In bins of equal numbers, fewer where there are few reflections."""
        known = int(np.isfinite(offsets.d_A).sum())
        n = min(RESOLUTION_BINS, known // 12)
        return by_resolution(offsets, n) if n >= 3 else None


PARAMETERS: tuple[tuple[str, str, str, int | None, str, bool], ...] = (
    ("a", "Cell edge a", "Å", None, "a_init", False),
    ("b", "Cell edge b", "Å", None, "b_init", False),
    ("c", "Cell edge c", "Å", None, "c_init", False),
    ("al", "Cell angle α", "degree", None, "al_init", False),
    ("be", "Cell angle β", "degree", None, "be_init", False),
    ("ga", "Cell angle γ", "degree", None, "ga_init", False),
    ("ncells", "Block size Na", "cells", 0, "", False),
    ("ncells", "Block size Nb", "cells", 1, "", False),
    ("ncells", "Block size Nc", "cells", 2, "", False),
    ("eta_abc", "Mosaic spread about a", "degree", 0, "", False),
    ("eta_abc", "Mosaic spread about b", "degree", 1, "", False),
    ("eta_abc", "Mosaic spread about c", "degree", 2, "", False),
    ("spot_scales", "Scale G", "", None, "", True),
    ("B", "B factor", "Å²", None, "", False),
    ("detz_shift_mm", "Detector shift along z", "mm", None, "", False),
    ("lam0", "Wavelength offset", "Å", None, "", False),
    ("lam1", "Wavelength factor", "", None, "", False),
    ("rotX", "Misorientation about x", "radian", None, "", False),
    ("rotY", "Misorientation about y", "radian", None, "", False),
    ("rotZ", "Misorientation about z", "radian", None, "", False),
    ("sigmaZ", "sigma-Z", "", None, "", False),
)
"""Column, title, unit, place in the column, column of the value before, and whether the scale is logarithmic."""


def distributions(
    run: RunData, suggestions: Mapping[tuple[str, int | None], tuple[float, float]], phil: str, source: str
) -> Section | None:
    """Histograms over shots of everything that varied, and priors that they suggest.

    Args:
        suggestions: mean and standard deviation by column and place in it.
        phil: the same as parameters; source: a sentence on how they were made.
    """
    if len(run.rows) < 2:
        return None
    figures: list[str] = []
    seen: list[FloatArray] = []
    for name, title, unit, place, start, log in PARAMETERS:
        values = column(run.rows, name, place)
        values = values[np.isfinite(values)]
        same = any(len(values) == len(v) and np.allclose(values, v, rtol=1e-9) for v in seen)
        if len(values) < 2 or np.ptp(values) <= 1e-9 * max(abs(float(values[0])), 1e-12) or same:
            continue
        seen.append(values)
        suggested = suggestions.get((name, place))
        earlier = column(run.rows, start) if start else np.zeros(0)
        before = float(np.nanmedian(earlier)) if np.isfinite(earlier).any() else None
        sd = 1.4826 * float(np.median(np.abs(values - np.median(values))))
        caption = f"median {with_error(float(np.median(values)), sd)} (robust sd)"
        if before is not None:
            caption += f"; before {number(before, 6)}"
        if suggested is not None:
            caption += f"; suggested prior {with_error(*suggested)}"
        chart = histogram(values, f"{title}: {caption}", start=before, prior=suggested, log=log)
        figures.append(figure(chart, title, caption, unit=unit))
    if not figures:
        return None
    marked = any('class="start"' in chart for chart in figures)
    key = (
        '<ul class="key"><li class="kink"><i></i>median of the run</li>'
        + ('<li class="k3"><i class="dash"></i>before</li>' if marked else "")
        + ('<li class="k1"><i></i>suggested prior</li>' if suggestions else "")
        + "</ul>"
    )
    html = key + f'<div class="grid">{"".join(figures)}</div>'
    if phil:
        html += (
            f'<h3>Suggested priors</h3><p class="note">{escape(source)}</p>'
            f'<pre id="suggested" tabindex="0"><code>{escape(phil)}</code></pre>'
            '<button type="button" data-copy="suggested" hidden>Copy</button>'
        )
    note = "One value for each lattice."
    if any('class="bar"' in chart for chart in figures):
        note = "Numbers of lattices. The central 98 % of the values are drawn; the first and last bar hold the rest."
    return Section("distributions", "Distributions", note, html)


def offsets_section(results: Results) -> Section:
    """The detector with offsets, and offsets against resolution."""
    stages = [("after", "Final models", results.after)]
    if results.before is not None and len(results.before):
        stages = [("before", "As indexed", results.before), ("after", "After refinement", results.after)]
    drawings, buttons = [], []
    for name, title, offsets in stages:
        limits = colour_limits(offsets)
        svg, sentence = detector_map(results.detector, offsets, limits, f"offsets on the detector, {title.lower()}")
        drawing = figure(svg, title, f"{_summary_text(offsets)} {sentence}", key=colour_key(limits))
        drawings.append(f'<div id="map-{name}">{drawing}</div>')
        buttons.append(f'<button type="button" data-shows="map-{name}" aria-pressed="false">{title}</button>')
    choice = ""
    if len(stages) > 1:
        group = 'class="tools" data-choice role="group" aria-label="Which offsets" hidden'
        choice = f"<div {group}>{''.join(buttons)}</div>"
    left = choice + "".join(drawings)
    right = _against_resolution(results)
    some = f" Read from {results.n_read} of {results.n_all} shots." if results.n_read < results.n_all else ""
    note = (
        "Observed minus calculated centroids. Radial offsets that grow with resolution point to the cell, the distance "
        "or the spectrum; panels whose arrows disagree with their neighbours’ point to the geometry." + some
    )
    return Section("offsets", "Offsets", note, f'<div class="pair"><div>{left}</div><div>{right}</div></div>')


def _summary_text(offsets: Offsets) -> str:
    s = summary(offsets)
    return (
        f"{s.n_reflections} reflections, RMSD {s.rmsd_um:.1f} µm (radial {s.radial_um:.1f}, transverse "
        f"{s.transverse_um:.1f}), median {s.median_um:.1f} µm."
    )


def _against_resolution(results: Results) -> str:
    after = results.by_resolution(results.after)
    if after is None:
        return ""
    before = results.by_resolution(results.before) if results.before is not None else None
    series = [("overall", after.overall_px), ("radial", after.radial_px), ("transverse", after.tangential_px)]
    key = ['<li class="k0"><i></i>overall</li><li class="k1"><i></i>radial</li><li class="k2"><i></i>transverse</li>']
    faint: list[int] = []
    if before is not None and len(before.d_A) == len(after.d_A):
        series.append(("overall as indexed", before.overall_px))
        faint = [3]
        key.append('<li class="k3"><i class="dash"></i>overall as indexed</li>')
    chart = curves(
        list(range(len(after.d_A))),
        [(name, values.tolist()) for name, values in series],
        "median offset against resolution",
        x_texts=[f"{d:.2f}" for d in after.d_A],
        x_title="resolution (Å)",
        y_title="median offset (pixel)",
        faint=faint,
        width=440,
        height=300,
    )
    caption = f"Medians of bins of about {int(np.median(after.n_reflections))} reflections each."
    return figure(chart, "Offsets against resolution", caption, key=f'<ul class="key">{"".join(key)}</ul>')


def spots(run: RunData) -> Section:
    """Best and worst spots, observed beside modelled."""
    found: list[Spot] = []
    step = max(1, -(-len(run.modelers) // MOST_MODELERS))
    for path in run.modelers[::step]:
        tag = path.name.removesuffix("_modeler.npz")
        try:
            shot, bragg = read_modeler(path)
        except InputError:
            continue
        lattices = [row["Amats"] for row in run.rows if str(row.get("tag")) == tag and row.get("Amats") is not None]
        matrices = np.asarray([np.reshape(np.asarray(a, dtype=float), (3, 3)) for a in lattices]) if lattices else None
        found += spots_of(shot, bragg, tag, matrices)
    note = (
        "Observed and modelled photons share one scale, by the square root. Residuals are in standard deviations, red "
        "above and blue below what was expected, full colour at 5; grey pixels take no part. A misfit of 1 is noise."
    )
    if not found:
        hint = "The run kept no pixels. With <code>debug_mode=True</code> it writes them, and this part shows them."
        return Section("spots", "Spots", "", f"<p>{hint}</p>")
    best, worst = best_and_worst(found)
    misfits = np.array([s.misfit for s in found])
    chart = histogram(misfits, "misfits of all boxes", log=True)
    n = len(run.modelers[::step])
    caption = f"{len(found)} boxes of {n} shot{'s' if n > 1 else ''}; {np.mean(misfits > 2) * 100:.1f} % above 2"
    html = f"<h3>Worst</h3>{spot_figures(worst)}<h3>Best among the bright</h3>{spot_figures(best)}"
    html += f'<div class="grid">{figure(chart, "Misfit of every box", caption, unit="sd")}</div>'
    return Section("spots", "Spots, observed and modelled", note, html)
