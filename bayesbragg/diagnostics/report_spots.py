"""Spots of a report, observed beside modelled: pictures of single boxes, and which boxes to show.

The misfit of a box is the root mean square of its residuals over their standard deviations (Gaussian likelihood:
expected photons plus readout variance); 1 is noise alone. Pictures are PNG files inside the page, one pixel each.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.image import imsave

from bayesbragg.diagnostics.report_numbers import number
from bayesbragg.model import Shot

__all__ = ["Spot", "best_and_worst", "spot_figures", "spots_of"]

FloatArray = npt.NDArray[np.float64]

OVER, UNDER, UNTRUSTED = (201, 60, 40), (38, 110, 190), (134, 146, 152)
LARGEST_RESIDUAL = 5.0


@dataclass(frozen=True, eq=False)
class Spot:
    """One box of one shot.

    Attributes:
        tag: the shot; hkl: of its reflection; panel: where it is; d_A: its resolution, angstrom.
        signal: photons above background over their standard deviation.
        misfit: root mean square residual in standard deviations.
        observed, expected, residual: pictures ``(n_slow, n_fast)``, photons and standard deviations; not a number
            where a pixel takes no part in the fit.
    """

    tag: str
    hkl: tuple[int, int, int]
    panel: int
    d_A: float
    signal: float
    misfit: float
    observed: FloatArray
    expected: FloatArray
    residual: FloatArray


def spots_of(shot: Shot, bragg: npt.ArrayLike, tag: str, reciprocal: FloatArray | None = None) -> list[Spot]:
    """The boxes of a shot with their misfits.

    Args:
        bragg: Bragg photons of the model, ``(n_boxes, n_pixels)``.
        reciprocal: matrices A of the lattices, ``(n_lattices, 3, 3)``, 1/angstrom, for the resolution.
    """
    expected = np.asarray(bragg, dtype=np.float64) + shot.background
    use = shot.trusted & shot.valid
    sd = np.sqrt(np.maximum(expected + shot.readout_sd**2, 1e-12))
    residual = np.where(use, (shot.counts - expected) / sd, np.nan)
    above = np.where(use, shot.counts - shot.background, 0.0).sum(axis=1)
    noise = np.sqrt(np.where(use, sd**2, 0.0).sum(axis=1))
    found = []
    for box in np.flatnonzero(use.sum(axis=1) >= 4):
        f1, f2, s1, s2 = shot.bounds[box]

        def picture(values: FloatArray, box: int = int(box), shape: tuple[int, int] = (s2 - s1, f2 - f1)) -> FloatArray:
            cut = np.where(use[box], values[box], np.nan).reshape(shot.shape)
            return np.asarray(cut[: shape[0], : shape[1]])

        d = np.nan
        if reciprocal is not None and shot.lattice[box] < len(reciprocal):
            length = float(np.linalg.norm(reciprocal[shot.lattice[box]] @ shot.miller_index[box]))
            d = 1.0 / length if length > 0 else np.nan
        h, k, l = (int(v) for v in shot.miller_index[box])
        found.append(
            Spot(
                tag=tag,
                hkl=(h, k, l),
                panel=int(shot.panel[box]),
                d_A=d,
                signal=float(above[box] / max(noise[box], 1e-12)),
                misfit=float(np.sqrt(np.nanmean(residual[box] ** 2))),
                observed=picture(shot.counts),
                expected=picture(expected),
                residual=picture(residual),
            )
        )
    return found


def best_and_worst(spots: Sequence[Spot], n: int = 6) -> tuple[list[Spot], list[Spot]]:
    """The bright boxes (strongest quarter) nearest to a misfit of 1, and the boxes with the largest misfits."""
    worst = sorted(spots, key=lambda s: -s.misfit)[:n]
    if not spots:
        return [], []
    bright = float(np.quantile([s.signal for s in spots], 0.75))
    rest = [s for s in spots if s.signal >= bright and s not in worst]
    return sorted(rest, key=lambda s: abs(np.log(max(s.misfit, 1e-6))))[:n], worst


def spot_figures(spots: Sequence[Spot], level: int = 4) -> str:
    """A figure for each spot: observed, modelled, and what is left."""
    return f'<div class="spots">{"".join(_figure(spot, level) for spot in spots)}</div>' if spots else ""


def _figure(spot: Spot, level: int) -> str:
    top = max(float(np.nanmax(spot.observed)), float(np.nanmax(spot.expected)), 1.0)
    name = "(" + " ".join(str(v).replace("-", "−") for v in spot.hkl) + ")"
    pictures = (
        ("observed", _photons(spot.observed, top)),
        ("modelled", _photons(spot.expected, top)),
        ("residual", _residuals(spot.residual)),
    )
    size = f'width="{spot.observed.shape[1]}" height="{spot.observed.shape[0]}"'
    images = "".join(
        f'<div><img src="{_uri(rgba)}" {size} alt="{what} pixels of reflection {escape(name)}">{what}</div>'
        for what, rgba in pictures
    )
    resolution = f", {spot.d_A:.2f} Å" if np.isfinite(spot.d_A) else ""
    caption = f"panel {spot.panel}{resolution}; up to {number(top, 3)} photons; misfit {spot.misfit:.2f}"
    title = f"{name} of {spot.tag}"
    return (
        f'<figure class="spot" data-title="{escape(title)}"><h{level}>{escape(name)} '
        f'<span class="unit">{escape(spot.tag)}</span></h{level}><div class="images">{images}</div>'
        f"<figcaption><span>{escape(caption)}</span>"
        f'<button class="zoom" type="button" hidden aria-label="Enlarge {escape(title)}">Enlarge</button></figcaption>'
        "</figure>"
    )


def _photons(values: FloatArray, top: float) -> npt.NDArray[np.uint8]:
    """Photons by the square root of their number, from dark to bright."""
    rgba = colormaps["viridis"](np.sqrt(np.clip(np.nan_to_num(values) / top, 0.0, 1.0)), bytes=True)
    rgba[~np.isfinite(values)] = (*UNTRUSTED, 255)
    return np.asarray(rgba)


def _residuals(values: FloatArray) -> npt.NDArray[np.uint8]:
    """Red where there are more photons than expected, blue where fewer, the page's own colour where as expected."""
    rgba = np.zeros((*values.shape, 4), dtype=np.uint8)
    rgba[..., :3] = np.where((np.nan_to_num(values) > 0)[..., None], OVER, UNDER)
    rgba[..., 3] = 255 * np.clip(np.abs(np.nan_to_num(values)) / LARGEST_RESIDUAL, 0.0, 1.0)
    rgba[~np.isfinite(values)] = (*UNTRUSTED, 255)
    return rgba


def _uri(rgba: npt.NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    imsave(buffer, rgba, format="png", metadata={"Software": ""})
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
