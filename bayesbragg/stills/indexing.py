"""Indexing of a still with known cell and space group: from strong spots to lattices.

What a lattice explains is taken away before the next one is sought. Lengths are angstrom, positions pixels.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import numpy.typing as npt

from bayesbragg.model import Beam, Crystal, Detector, Experiment, Reflections, Spectrum
from bayesbragg.stills.known_lattice import IndexingSettings, Lattice, SpotsOfStill, assign_spots, find_lattice

__all__ = [
    "IndexedStill",
    "IndexingSettings",
    "Lattice",
    "ambiguity_operators",
    "index_still",
    "reindex_still",
    "relative_bandwidth",
]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

INDEXED_FLAGS = 1 | 4 | 32
"""Predicted, indexed and strong in the DIALS column ``flags``."""


@dataclass(frozen=True, eq=False)
class IndexedStill:
    """What became of a still.

    Attributes:
        experiments: one per lattice, with crystal; empty if nothing was found.
        reflections: indexed spots; ``id`` is the number of the lattice.
        lattices: details.
        status: ``indexed``, ``few_spots``, ``bad_geometry`` or ``no_lattice``.
        message: cause and remedy in one line, empty if indexed.
    """

    experiments: tuple[Experiment, ...]
    reflections: Reflections
    lattices: tuple[Lattice, ...]
    status: str
    message: str


def ambiguity_operators(crystal: Crystal, rotations: npt.ArrayLike, tolerance: float = 0.02) -> IntArray:
    """Reindexing operators that the lattice has by its shape and the crystal's point group has not.

    Args:
        crystal: its cell decides.
        rotations: rotation parts of the space group, acting on Miller indices as ``h @ R``, ``(n, 3, 3)``.
        tolerance: relative difference of the metric that still counts as equal.

    Returns:
        one operator of each class, ``(n, 3, 3)``, acting as ``h @ R``; none if the indexing is unique.
    """
    to_primitive = crystal.to_primitive
    metric = np.linalg.inv(crystal.real_space_A @ crystal.real_space_A.T)
    scale = np.sqrt(np.outer(np.diag(metric), np.diag(metric)))
    known = {tuple((s * np.rint(r)).astype(int).ravel()) for r in np.asarray(rotations) for s in (1, -1)}
    found: list[IntArray] = []
    for entries in product((-1, 0, 1), repeat=9):
        operator = np.array(entries, dtype=np.int64).reshape(3, 3)
        if round(np.linalg.det(operator)) != 1 or entries in known:
            continue
        # A centred lattice has to come to lie on itself, not only its conventional cell.
        primitive = to_primitive @ operator.T @ np.linalg.inv(to_primitive)
        if np.abs(primitive - np.rint(primitive)).max() > 1e-6:
            continue
        if np.abs((operator @ metric @ operator.T - metric) / scale).max() < tolerance:
            found.append(operator)
            known |= {tuple((operator @ np.array(k).reshape(3, 3)).ravel()) for k in list(known)}
    return np.array(found, dtype=np.int64).reshape(-1, 3, 3)


def relative_bandwidth(spectrum: Spectrum | None) -> float:
    """Standard deviation of the wavelength over its mean, weighted by photons."""
    if spectrum is None or spectrum.n_channels < 2:
        return 0.0
    mean = spectrum.mean_wavelength_A
    return float(np.sqrt(np.average((spectrum.wavelengths_A - mean) ** 2, weights=spectrum.photons)) / mean)


def index_still(
    strong: Reflections,
    experiment: Experiment,
    reference: Crystal,
    settings: IndexingSettings | None = None,
    *,
    spectrum: Spectrum | None = None,
) -> IndexedStill:
    """Lattices of a known cell among the strong spots of a still.

    Args:
        strong: table with ``panel`` and ``xyzobs.px.value``; its other columns go into the result.
        experiment: beam, detector and image; with a spectrum its weighted mean wavelength is used.
        reference: cell and space group, in any orientation.
        settings: limits and tolerances.
        spectrum: wavelengths of the shot.
    """
    settings = IndexingSettings() if settings is None else settings
    detector, beam = experiment.detector, experiment.beam
    if spectrum is not None:
        beam = replace(beam, wavelength_A=spectrum.mean_wavelength_A)
    still, s1 = _spots(strong, beam, detector, relative_bandwidth(spectrum))
    backwards = len(strong) > 0 and float(np.median(s1 @ beam.direction)) < 0.0
    left = np.arange(0 if backwards else len(strong))
    lattices: list[Lattice] = []
    while len(lattices) < settings.max_lattices and len(left) >= settings.min_spots:
        found = find_lattice(reference, still.select(left), settings)
        if found is None:
            break
        lattices.append(replace(found, rows=left[found.rows]))
        left = np.setdiff1d(left, lattices[-1].rows)
    experiments = tuple(
        replace(experiment, identifier=_identifier(experiment, i), beam=beam, crystal=x.fit.crystal)
        for i, x in enumerate(lattices)
    )
    if lattices:
        status, message = "indexed", ""
    elif backwards:
        status = "bad_geometry"
        message = "the spots lie on the source's side of the sample; check the beam direction and the detector's origin"
    elif len(strong) < settings.min_spots:
        status = "few_spots"
        message = (
            f"{len(strong)} strong spots, indexing asks for {settings.min_spots}; lower the spot-finding thresholds"
        )
    else:
        status = "no_lattice"
        message = (
            f"no lattice explains the {len(strong)} strong spots better than chance; check unit cell, space group, "
            "detector distance, beam centre and wavelength"
        )
    table = _table(strong, lattices, still)
    table = replace(table, identifiers={i: e.identifier for i, e in enumerate(experiments)})
    return IndexedStill(experiments, table, tuple(lattices), status, message)


def reindex_still(
    strong: Reflections,
    found: IndexedStill,
    settings: IndexingSettings | None = None,
    *,
    spectrum: Spectrum | None = None,
) -> IndexedStill:
    """Index all spots of a still with the lattices that some of them gave (``reidx_obs``).

    Args:
        strong: every strong spot, also those that the search was not given.
        found: an indexed still.
        settings, spectrum: as for `index_still`.
    """
    settings = IndexingSettings() if settings is None else settings
    first = found.experiments[0]
    still, _ = _spots(strong, first.beam, first.detector, relative_bandwidth(spectrum))
    left, lattices = np.arange(len(strong)), []
    for lattice in found.lattices:
        rows, hkl, _ = assign_spots(lattice.fit, still.select(left), settings)
        lattices.append(replace(lattice, rows=left[rows], hkl=hkl))
        left = np.setdiff1d(left, left[rows])
    table = _table(strong, lattices, still)
    table = replace(table, identifiers=found.reflections.identifiers)
    return replace(found, reflections=table, lattices=tuple(lattices))


def _identifier(experiment: Experiment, lattice: int) -> str:
    """A unique name that is the same in every run: from the image and the number of the lattice."""
    image = experiment.image
    source = experiment.identifier if image is None else f"{image.path}#{image.index}"
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{source}/{lattice}"))


def _spots(strong: Reflections, beam: Beam, detector: Detector, bandwidth: float) -> tuple[SpotsOfStill, FloatArray]:
    """The strong spots with their scattering vectors, and their rays, ``(n, 3)``, 1/angstrom."""
    panel, position = strong["panel"], strong["xyzobs.px.value"][:, :2]
    ray = detector.lab_mm(panel, position[:, 0], position[:, 1])
    s1 = ray / np.linalg.norm(ray, axis=1, keepdims=True) / beam.wavelength_A
    q = s1 - beam.direction / beam.wavelength_A
    return SpotsOfStill(beam, detector, bandwidth, q, panel, position), s1


def _table(strong: Reflections, lattices: Sequence[Lattice], still: SpotsOfStill) -> Reflections:
    """The indexed spots of all lattices, with the DIALS columns that prediction adds."""
    rows = np.concatenate([x.rows for x in lattices]) if lattices else np.empty(0, np.int64)
    table = strong.select(rows)
    number = np.repeat(np.arange(len(lattices)), [len(x.rows) for x in lattices])
    calculated, ray = np.empty((len(rows), 2)), np.empty((len(rows), 3))
    for i, x in enumerate(lattices):
        calculated[number == i], _, _, ray[number == i] = x.fit.predicted(
            still.beam, still.detector, x.hkl, still.panel[x.rows], still.bandwidth
        )
    pixel = still.detector.pixel_size_mm[table["panel"]]
    none = np.zeros((len(rows), 1))
    observed = table["xyzobs.px.value"][:, :2]
    columns = {
        "id": number,
        "imageset_id": np.zeros(len(rows), np.int64),
        "flags": np.full(len(rows), INDEXED_FLAGS, np.int64),
        "miller_index": np.concatenate([x.hkl for x in lattices]) if lattices else np.empty((0, 3), np.int64),
        "xyzobs.mm.value": np.hstack([observed * pixel, none]),
        "xyzcal.px": np.hstack([calculated, none]),
        "xyzcal.mm": np.hstack([calculated * pixel, none]),
        "s1": ray,
        "rlp": still.q[rows],
        "entering": np.zeros(len(rows), dtype=bool),
    }
    if "xyzobs.px.variance" in table:
        columns["xyzobs.mm.variance"] = np.hstack([table["xyzobs.px.variance"][:, :2] * pixel**2, none])
    return table.with_columns(**columns)
