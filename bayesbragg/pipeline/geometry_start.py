"""Where a joint fit of pixels starts: at the optimum of the spots' positions, where the geometry is off by more than a
spot.

Pixels guide a fit only while model and spot overlap. Positions do so from any distance at which the indexing holds:
all processes put their spots together and fit panels, orientations and cells to them (seconds), under the same prior
of the panels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from bayesbragg.inference.centroid_fit import fit_centroids
from bayesbragg.inference.centroid_likelihood import CentroidTerm, Spots
from bayesbragg.inference.communicator import Communicator
from bayesbragg.inference.joint_types import JointFit, JointOptions
from bayesbragg.model import Beam, Crystal, Detector
from bayesbragg.model.panel_groups import PanelGrouping
from bayesbragg.pipeline.geometry_term import GeometryShot
from bayesbragg.priors.panels import SharedPrior

__all__ = ["ShotSpots", "median_offset", "own_start", "spots_of", "start_from_spots"]

FloatArray = npt.NDArray[np.float64]
ROW, LATTICE = 9, 20
"""Numbers of a spot (still, panel, index, position, variance) and of a lattice (U, cell, beam, wavelength, group)."""


@dataclass(frozen=True, eq=False)
class ShotSpots:
    """What the fit of positions needs of a shot.

    Attributes:
        spots: rows of lattice, panel, Miller index, position and its variance (mm, mm^2), ``(n, 9)``.
        lattices: rows of U, cell, direction of the beam, wavelength, number of the space group, ``(n_lattices, 20)``.
        offsets_px: lengths of the prediction offsets at the start, infinite for spots out of their boxes.
    """

    spots: FloatArray
    lattices: FloatArray
    offsets_px: FloatArray


def spots_of(shot: GeometryShot) -> ShotSpots:
    """The boxes' reflections of a shot ready for the fit of pixels."""
    still, boxes = shot.prepared.still, shot.prepared.shot
    rows = boxes.reflection_row
    px = np.asarray(still.reflections["xyzobs.px.value"], dtype=np.float64)[rows, :2]
    size = still.detector.pixel_size_mm[boxes.panel]
    if "xyzobs.px.variance" in still.reflections:
        variance = np.asarray(still.reflections["xyzobs.px.variance"], dtype=np.float64)[rows, :2]
    else:
        variance = np.zeros_like(px)
    variance = np.where(variance > 0, variance, 1.0 / 12.0)
    table = np.column_stack([boxes.lattice, boxes.panel, boxes.miller_index, px * size, variance * size**2])
    beam = still.experiments[0].beam
    lattices = np.stack(
        [
            np.concatenate([c.U.reshape(-1), c.cell, beam.direction, [beam.wavelength_A, c.space_group_number]])
            for c in still.crystals
        ]
    )
    found = shot.term.offsets(shot.term.start, np.zeros(6 * shot.grouping.n_groups + 3))[: boxes.n_boxes]
    return ShotSpots(table, lattices, np.where(np.isfinite(found), found, np.inf))


def median_offset(shots: Sequence[ShotSpots], comm: Communicator) -> float:
    """Median length of the prediction offsets of all processes, pixel."""
    edges = np.linspace(0.0, 50.0, 5001)
    found = np.concatenate([s.offsets_px for s in shots]) if shots else np.zeros(0)
    counts = comm.sum(np.bincount(np.digitize(np.minimum(found, 60.0), edges), minlength=len(edges) + 1).astype(float))
    total = np.cumsum(counts)
    return float(edges[min(int(np.searchsorted(total, 0.5 * total[-1])), len(edges) - 1)]) if total[-1] else np.nan


def start_from_spots(
    shots: Sequence[ShotSpots],
    places: Sequence[int],
    n_shots: int,
    comm: Communicator,
    detector: Detector,
    grouping: PanelGrouping,
    prior: SharedPrior,
) -> tuple[JointFit, list[tuple[FloatArray, FloatArray]]]:
    """The joint optimum of the positions of all processes' spots.

    Args:
        shots: of this process; places: their numbers among all ``n_shots``.

    Returns:
        the fit, the same in every process; and for each of this process's shots its lattices' misorientations
        ``(n_lattices, 3)`` and cells ``(n_lattices, 6)`` (angstrom, radian).
    """
    sizes = np.zeros((n_shots, 2))
    for place, s in zip(places, shots, strict=True):
        sizes[place] = len(s.spots), len(s.lattices)
    sizes = comm.sum(sizes).astype(np.int64)
    first = np.concatenate([np.zeros((1, 2), dtype=np.int64), np.cumsum(sizes, axis=0)])
    table, lattices = np.zeros((first[-1, 0], ROW)), np.zeros((first[-1, 1], LATTICE))
    for place, s in zip(places, shots, strict=True):
        table[first[place, 0] : first[place + 1, 0]] = s.spots
        table[first[place, 0] : first[place + 1, 0], 0] += first[place, 1]
        lattices[first[place, 1] : first[place + 1, 1]] = s.lattices
    table, lattices = comm.sum(table), comm.sum(lattices)
    used, still = np.unique(table[:, 0].astype(np.int64), return_inverse=True)
    whole = np.rint(table[:, 1:5]).astype(np.int64)
    spots = Spots(still.astype(np.int64), whole[:, 0], whole[:, 1:], table[:, 5:7], table[:, 7:9])
    # All from the sums: a process without shots knows no crystal of its own.
    number = int(lattices[used[0], 19])
    crystals = [
        Crystal.from_cell(row[9:15], row[:9].reshape(3, 3), space_group_number=number) for row in lattices[used]
    ]
    beams = [Beam(row[15:18], float(row[18]), np.array([0.0, 1.0, 0.0])) for row in lattices[used]]
    term = CentroidTerm(spots, detector, beams, crystals, grouping)
    fit, _ = fit_centroids(term, prior, JointOptions(tolerance=0.1))
    rotation = np.zeros((len(lattices), 3))
    rotation[used] = fit.own[0][:, :3]
    cells = lattices[:, 9:15] * np.array([1.0] * 3 + [np.pi / 180.0] * 3)
    cells[used] = [np.asarray(term.constraint.expand(x[3:])) for x in fit.own[0]]
    return fit, [(rotation[first[p, 1] : first[p + 1, 1]], cells[first[p, 1] : first[p + 1, 1]]) for p in places]


def own_start(shot: GeometryShot, rotation: FloatArray, cell: FloatArray) -> FloatArray:
    """A shot's own numbers with orientations and cell from the fit of positions, ``(1, n)``."""
    parameters = shot.term.parameters(shot.term.start, np.zeros(6 * shot.grouping.n_groups + 3))
    crystal = replace(parameters.crystal, rot_xyz=rotation, cell=cell.mean(axis=0))
    return np.asarray(shot.term.layout.from_parameters(replace(parameters, crystal=crystal)))[None]
