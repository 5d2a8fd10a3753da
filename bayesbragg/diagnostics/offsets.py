"""Prediction offsets: how far observed spots lie from where the model puts them.

An offset is the observed centroid minus the calculated one (`xyzobs.px.value` and `xyzcal.px`), as vectors in the
laboratory frame. In the plane across the beam it is split into a radial component, along the line from the beam to the
spot (wrong cell, distance or wavelength), and a transverse one (wrong orientation or panel rotation).

The root mean squares are those that ``cctbx.xfel.detector_residuals`` prints, the medians by resolution are those of
the classic diffBragg tutorial (``pred_offsets.py``): bins of equal numbers of reflections, absolute components, pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from bayesbragg.model import Beam, Crystal, Detector, Reflections
from bayesbragg.model.errors import InputError

__all__ = [
    "OffsetSummary",
    "Offsets",
    "OffsetsByResolution",
    "by_resolution",
    "combine",
    "prediction_offsets",
    "summary",
]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

OBSERVED = "xyzobs.px.value"
PREDICTED = "xyzcal.px"


@dataclass(frozen=True, eq=False)
class Offsets:
    """Offsets of reflections, observed minus calculated.

    Attributes:
        row: row of each reflection in the table that it came from, ``(n,)``.
        panel: panel number, ``(n,)``.
        observed_px: observed centroid, fast and slow pixels from the panel's corner, ``(n, 2)``.
        lab_mm: observed centroid in the laboratory frame, ``(n, 3)``, millimetre.
        offset_um: observed minus calculated in the laboratory frame, ``(n, 3)``, micrometre.
        overall_um: length of the offset, ``(n,)``, micrometre.
        radial_um: component away from the beam, signed, ``(n,)``, micrometre.
        transverse_um: component around the beam, signed, ``(n,)``, micrometre.
        pixel_um: fast pixel size of the reflection's panel, ``(n,)``, micrometre.
        overall_px: length of the offset in pixel coordinates, ``(n,)``, pixel.
        d_A: resolution of the reflection, ``(n,)``, angstrom; not a number where unknown.
        n_left_out: reflections of the table without a finite observed or calculated centroid.
    """

    row: IntArray
    panel: IntArray
    observed_px: FloatArray
    lab_mm: FloatArray
    offset_um: FloatArray
    overall_um: FloatArray
    radial_um: FloatArray
    transverse_um: FloatArray
    pixel_um: FloatArray
    overall_px: FloatArray
    d_A: FloatArray
    n_left_out: int = 0

    def __len__(self) -> int:
        return len(self.row)

    def select(self, which: npt.ArrayLike) -> Offsets:
        """The reflections of a mask or index array."""
        which = np.asarray(which)
        return replace(self, **{name: getattr(self, name)[which] for name in _COLUMNS})


_COLUMNS = (
    "row",
    "panel",
    "observed_px",
    "lab_mm",
    "offset_um",
    "overall_um",
    "radial_um",
    "transverse_um",
    "pixel_um",
    "overall_px",
    "d_A",
)


@dataclass(frozen=True)
class OffsetSummary:
    """Offsets in a few numbers, micrometres; the squares of radial and transverse add up to that of the RMSD.

    Attributes:
        n_reflections: reflections counted.
        rmsd_um: root mean square length.
        radial_um, transverse_um: root mean square components.
        median_um: median length.
    """

    n_reflections: int
    rmsd_um: float
    radial_um: float
    transverse_um: float
    median_um: float


@dataclass(frozen=True, eq=False)
class OffsetsByResolution:
    """Median absolute offsets in bins of resolution, from low resolution (large d) to high, all ``(n_bins,)``.

    Attributes:
        d_A: median resolution of the bin, angstrom.
        d_max_A, d_min_A: largest and smallest d in the bin, angstrom.
        n_reflections: reflections in the bin.
        overall_px, radial_px, tangential_px: medians of the absolute offsets, pixel.
    """

    d_A: FloatArray
    d_max_A: FloatArray
    d_min_A: FloatArray
    n_reflections: IntArray
    overall_px: FloatArray
    radial_px: FloatArray
    tangential_px: FloatArray


def prediction_offsets(
    reflections: Reflections,
    detector: Detector,
    beam: Beam | None = None,
    crystal: Crystal | None = None,
    *,
    observed: str = OBSERVED,
    predicted: str = PREDICTED,
) -> Offsets:
    """Offsets of all reflections of a table that have both centroids.

    Args:
        reflections: a table with `panel` and the two columns of centroids.
        detector: the detector that the pixel coordinates belong to.
        beam: its direction is the axis of the radial direction; along z if not given.
        crystal: gives the resolution of reflections where the table has neither `rlp` nor `d`.
        observed, predicted: names of the columns of centroids, ``(n, 3)`` or ``(n, 2)``, pixels.

    Raises:
        InputError: a column is missing, or a panel number is not one of the detector's.
    """
    for name in (observed, predicted, "panel"):
        if name not in reflections:
            raise InputError(
                f"reflections have no column {name!r}, which prediction offsets need: refine them, or name another "
                f"column; there are: {', '.join(sorted(reflections.columns))}"
            )
    panel = np.asarray(reflections["panel"], dtype=np.int64)
    if len(panel) and not 0 <= panel.min() <= panel.max() < detector.n_panels:
        raise InputError(
            f"reflections lie on panels {panel.min()} to {panel.max()} but the detector has {detector.n_panels}: "
            "give the experiment file that belongs to the reflections"
        )
    obs = np.asarray(reflections[observed], dtype=np.float64)[:, :2]
    cal = np.asarray(reflections[predicted], dtype=np.float64)[:, :2]
    good = np.isfinite(obs).all(axis=1) & np.isfinite(cal).all(axis=1)
    row = np.flatnonzero(good)
    panel, obs, cal = panel[good], obs[good], cal[good]
    lab = detector.lab_mm(panel, obs[:, 0], obs[:, 1])
    offset = 1e3 * (lab - detector.lab_mm(panel, cal[:, 0], cal[:, 1]))
    axis = np.array([0.0, 0.0, 1.0]) if beam is None else np.asarray(beam.direction)
    radius = lab - (lab @ axis)[:, None] * axis
    length = np.linalg.norm(radius, axis=1, keepdims=True)
    outward = np.divide(radius, length, out=np.zeros_like(radius), where=length > 0)
    around = np.cross(axis, outward)
    return Offsets(
        row=row,
        panel=panel,
        observed_px=obs,
        lab_mm=lab,
        offset_um=offset,
        overall_um=np.linalg.norm(offset, axis=1),
        radial_um=np.sum(offset * outward, axis=1),
        transverse_um=np.sum(offset * around, axis=1),
        pixel_um=1e3 * detector.pixel_size_mm[panel, 0],
        overall_px=np.linalg.norm(obs - cal, axis=1),
        d_A=_resolution(reflections, crystal)[good],
        n_left_out=int(np.sum(~good)),
    )


def _resolution(reflections: Reflections, crystal: Crystal | None) -> FloatArray:
    """d of each reflection: from its observed reciprocal-lattice vector, else the column `d`, else the crystal."""
    if "rlp" in reflections:
        length = np.linalg.norm(np.asarray(reflections["rlp"], dtype=np.float64), axis=1)
    elif "d" in reflections:
        return np.asarray(reflections["d"], dtype=np.float64)
    elif crystal is not None and "miller_index" in reflections:
        length = np.linalg.norm(np.asarray(reflections["miller_index"]) @ crystal.A_reciprocal.T, axis=1)
    else:
        return np.full(len(reflections), np.nan)
    return np.asarray(np.divide(1.0, length, out=np.full(len(length), np.nan), where=length > 0))


def combine(parts: Iterable[Offsets]) -> Offsets:
    """The offsets of several tables as one; rows keep the numbers of their own tables."""
    parts = list(parts)
    if not parts:
        empty, pairs, triples = np.zeros(0), np.zeros((0, 2)), np.zeros((0, 3))
        whole = np.zeros(0, dtype=np.int64)
        return Offsets(whole, whole, pairs, triples, triples, empty, empty, empty, empty, empty, empty)
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS}
    return replace(parts[0], **columns, n_left_out=sum(part.n_left_out for part in parts))


def summary(offsets: Offsets) -> OffsetSummary:
    """Root mean squares and the median; not a number where there are no reflections."""
    if len(offsets) == 0:
        return OffsetSummary(0, np.nan, np.nan, np.nan, np.nan)

    def rms(values: FloatArray) -> float:
        return float(np.sqrt(np.mean(values**2)))

    return OffsetSummary(
        n_reflections=len(offsets),
        rmsd_um=rms(offsets.overall_um),
        radial_um=rms(offsets.radial_um),
        transverse_um=rms(offsets.transverse_um),
        median_um=float(np.median(offsets.overall_um)),
    )


def by_resolution(offsets: Offsets, n_bins: int = 10) -> OffsetsByResolution:
    """Medians in bins that hold equal numbers of reflections (the first ones of higher resolution one more).

    Raises:
        InputError: `n_bins` is below one or above the number of reflections with a known resolution.
    """
    known = np.flatnonzero(np.isfinite(offsets.d_A))
    if not 1 <= n_bins <= len(known):
        raise InputError(
            f"{n_bins} bins of resolution for {len(known)} reflections of known resolution: ask for fewer, at least 1"
        )
    order = known[np.argsort(offsets.d_A[known], kind="stable")]
    bins = np.array_split(order, n_bins)[::-1]

    def medians(values: FloatArray) -> FloatArray:
        return np.array([np.median(values[rows]) for rows in bins])

    return OffsetsByResolution(
        d_A=medians(offsets.d_A),
        d_max_A=np.array([offsets.d_A[rows[-1]] for rows in bins]),
        d_min_A=np.array([offsets.d_A[rows[0]] for rows in bins]),
        n_reflections=np.array([len(rows) for rows in bins], dtype=np.int64),
        overall_px=medians(offsets.overall_px),
        radial_px=medians(np.abs(offsets.radial_um) / offsets.pixel_um),
        tangential_px=medians(np.abs(offsets.transverse_um) / offsets.pixel_um),
    )
