"""What a file holds, in words: experiment lists, reflections, images, MTZ, spectra, tables of shots, fitted pixels.

Numbers are rounded as DIALS shows them; units stand beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bayesbragg.io.experiments import read_experiments
from bayesbragg.io.files import read_bytes
from bayesbragg.io.images import count_images, read_image, read_image_experiment
from bayesbragg.io.mtz_files import mtz_summary
from bayesbragg.io.phil import PHIL_ENDINGS, load_phil
from bayesbragg.io.reflections import read_reflections
from bayesbragg.io.spectra import read_lam
from bayesbragg.io.tables import read_table
from bayesbragg.model import Beam, Crystal, Detector, Experiment, Reflections, Spectrum
from bayesbragg.model.errors import InputError
from bayesbragg.pipeline.write import read_modeler

__all__ = ["describe_file", "kind_of"]

FEW_PANELS = 4
FLAGS = {0: "predicted", 2: "indexed", 5: "strong", 8: "integrated by summation", 9: "integrated by profile"}
FLAGS |= {17: "centroid outlier"}


def kind_of(path: Path) -> str:
    """What a file is, by its name and its first bytes: a key of the table of `describe_file`."""
    name = path.name.lower()
    by_name = {
        ".expt": "experiments",
        ".json": "experiments",
        ".refl": "reflections",
        ".mtz": "mtz",
        ".lam": "spectrum",
        ".npz": "pixels",
    }
    by_name |= {".parquet": "table", ".pkl": "table"} | dict.fromkeys(PHIL_ENDINGS, "phil")
    if path.is_dir():
        return "table"
    if name.endswith("_modeler.npy"):
        raise InputError(
            f"{path}: a classic modeler is a pickle that only cctbx can open; expected a *_modeler.npz; "
            "refine the shot with debug_mode=True"
        )
    return by_name.get(path.suffix.lower(), "image")


def describe_file(path: Path, *, every: bool = False, index: int = 0) -> list[str]:
    """Lines that say what a file holds.

    Args:
        every: every panel of a detector and every experiment of a list.
        index: which image of a file with several.

    Raises:
        InputError: missing or damaged file, or one of a kind that is not known.
    """
    kind = kind_of(path)
    if kind == "image":
        return list(_image(path, index, every))
    if kind == "experiments":
        return list(_experiments(path, every))
    table: dict[str, Callable[[Path], Iterator[str]]] = {
        "reflections": _reflections,
        "mtz": _mtz,
        "spectrum": _lam,
        "table": _table,
        "phil": _phil,
        "pixels": _pixels,
    }
    return list(table[kind](path))


def _vector(values: Any, digits: int = 6) -> str:
    return "{" + ",".join(f"{float(x):.{digits}g}" for x in np.asarray(values)) + "}"


def beam_lines(beam: Beam) -> Iterator[str]:
    """Wavelength and direction; DIALS states the direction to the source."""
    yield "Beam:"
    yield f"  wavelength: {beam.wavelength_A:.6g} A"
    yield f"  sample to source direction: {_vector(0.0 - beam.direction)}"
    yield f"  polarization normal: {_vector(beam.polarization_normal)}, fraction {beam.polarization_fraction:g}"


def _detector(detector: Detector, wavelength_A: float, every: bool) -> Iterator[str]:
    n = detector.n_panels
    pixels = int(np.prod(detector.image_size, axis=1).sum())
    yield f"Detector: {n} panel{'s' if n > 1 else ''}, {pixels} pixels (positions in mm, laboratory frame)"
    shown = n if every else min(n, FEW_PANELS)
    for i in range(shown):
        size, pixel = detector.image_size[i], detector.pixel_size_mm[i]
        yield f"  panel {i} {detector.names[i]}: {size[0]} x {size[1]} pixels (fast, slow) of {_vector(pixel)} mm"
        axes = f"fast: {_vector(detector.fast[i])}  slow: {_vector(detector.slow[i])}"
        yield f"    origin: {_vector(detector.origin_mm[i])}  {axes}"
        distance = abs(float(np.dot(detector.origin_mm[i], detector.normal[i])))
        low, high = detector.trusted_range[i]
        yield f"    distance: {distance:.6g} mm  trusted range: {low:g} to {high:g}  gain: {detector.gain[i]:g}"
        if detector.thickness_mm[i] > 0:
            yield f"    sensor: {detector.thickness_mm[i]:g} mm, attenuation {detector.attenuation_per_mm[i]:.6g} / mm"
    if shown < n:
        yield f"  ... and {n - shown} more (--all shows them)"
    sizes = detector.image_size
    corners = [(f * sizes[:, 0], s * sizes[:, 1]) for f in (0, 1) for s in (0, 1)]
    places = np.concatenate([detector.lab_mm(np.arange(n), f, s) for f, s in corners])
    unit = places / np.linalg.norm(places, axis=1, keepdims=True)
    sine = np.sqrt(np.maximum(0.5 * (1.0 - unit @ _travel(detector)), 0.0))
    if np.any(sine > 0):
        yield f"  resolution in the farthest corner: {wavelength_A / (2.0 * sine.max()):.3f} A"


def _travel(detector: Detector) -> Any:
    """The beam's direction, near enough for a corner's resolution: along z on the detector's side."""
    return np.array([0.0, 0.0, float(np.sign(np.median(detector.origin_mm[:, 2]))) or -1.0])


def _crystal(crystal: Crystal) -> Iterator[str]:
    yield "Crystal:"
    yield "  unit cell: " + ", ".join(f"{x:.3f}" for x in crystal.cell) + " (A, degree)"
    yield f"  space group: {crystal.space_group} (number {crystal.space_group_number})"
    for name, matrix in (("U", crystal.U), ("A = UB (1/A)", crystal.A_reciprocal)):
        rows = "; ".join(" ".join(f"{x:8.4f}" for x in row) for row in matrix)
        yield f"  {name}: {rows}"


def _experiment(number: int, e: Experiment, detectors: list[int], every: bool) -> Iterator[str]:
    yield f"Experiment {number}: {e.identifier or '(no identifier)'}"
    if e.image is not None:
        yield f"  image: {e.image.path}, number {e.image.index}"
    yield from (f"  {line}" for line in beam_lines(e.beam))
    if id(e.detector) in detectors:
        yield "  Detector: the same as before"
    else:
        detectors.append(id(e.detector))
        yield from (f"  {line}" for line in _detector(e.detector, e.beam.wavelength_A, every))
    if e.crystal is not None:
        yield from (f"  {line}" for line in _crystal(e.crystal))


def _experiments(path: Path, every: bool) -> Iterator[str]:
    experiments = read_experiments(path)
    crystals = sum(e.crystal is not None for e in experiments)
    yield f"{path}: {len(experiments)} experiments, {crystals} with a crystal"
    detectors: list[int] = []
    shown = experiments if every else experiments[:3]
    for number, e in enumerate(shown):
        yield from _experiment(number, e, detectors, every)
    if len(shown) < len(experiments):
        yield f"... and {len(experiments) - len(shown)} more (--all shows them)"
    cells = np.array([e.crystal.cell for e in experiments if e.crystal is not None])
    if len(cells) > 1:
        middle = ", ".join(f"{x:.3f}" for x in np.median(cells, axis=0))
        yield f"median cell of {len(cells)} crystals: {middle} (A, degree)"


def _reflections(path: Path) -> Iterator[str]:
    table = read_reflections(path)
    yield f"{path}: {len(table)} reflections, {len(table.columns)} columns"
    yield from reflection_lines(table)


def reflection_lines(table: Reflections) -> Iterator[str]:
    """Counts by experiment and flag, then smallest, largest and mean value of every column."""
    if "id" in table and len(table):
        for number, count in zip(*np.unique(table["id"], return_counts=True), strict=True):
            yield f"  experiment {number} {table.identifiers.get(int(number), '')}: {count} reflections"
    if "flags" in table:
        flags = np.asarray(table["flags"], dtype=np.int64)
        counts = [f"{int(np.sum(flags >> bit & 1))} {name}" for bit, name in FLAGS.items() if np.any(flags >> bit & 1)]
        yield "  " + ", ".join(counts)
    yield f"  {'column':24} {'type':14} {'smallest':>28} {'largest':>28} {'mean':>28}"
    for name in sorted(table.columns):
        column = np.asarray(table[name])
        kind = table.types.get(name, str(column.dtype))
        if column.dtype.kind not in "iuf" or len(column) == 0:
            yield f"  {name:24} {kind:14}"
            continue
        with np.errstate(all="ignore"):
            cells = [_cell(f(column.astype(float), axis=0)) for f in (np.min, np.max, np.mean)]
        yield f"  {name:24} {kind:14} " + " ".join(f"{c:>28}" for c in cells)


def _cell(values: Any) -> str:
    values = np.atleast_1d(values)
    return ", ".join(f"{x:.6g}" for x in values) if values.ndim == 1 and len(values) <= 3 else f"{values.size} numbers"


def _image(path: Path, index: int, every: bool) -> Iterator[str]:
    count = count_images(path)
    yield f"{path}: {count} image{'s' if count > 1 else ''}; number {index} is shown"
    experiment = read_image_experiment(path, index)
    assert experiment.image is not None
    image = read_image(experiment.image, experiment.detector)
    trusted = [
        (raw >= low) & (raw <= high) & (True if image.mask is None else image.mask[i])
        for i, (raw, (low, high)) in enumerate(zip(image.raw, experiment.detector.trusted_range, strict=True))
    ]
    good = np.concatenate([raw[keep] for raw, keep in zip(image.raw, trusted, strict=True)])
    total = sum(keep.size for keep in trusted)
    yield f"pixels (detector units): {len(good)} of {total} trusted"
    if len(good):
        quantiles = ", ".join(
            f"{q:g} %: {v:.6g}" for q, v in zip((1, 50, 99), np.percentile(good, (1, 50, 99)), strict=True)
        )
        yield f"  smallest {good.min():.6g}, largest {good.max():.6g}, mean {good.mean():.6g}; {quantiles}"
    if image.spectrum is not None:
        yield from spectrum_lines(image.spectrum)
    yield from beam_lines(experiment.beam)
    yield from _detector(experiment.detector, experiment.beam.wavelength_A, every)


def spectrum_lines(spectrum: Spectrum) -> Iterator[str]:
    """Channels, mean and width of a spectrum."""
    energy, weight = spectrum.energies_eV, spectrum.photons
    mean = float(np.average(energy, weights=weight))
    sd = float(np.sqrt(np.average((energy - mean) ** 2, weights=weight)))
    live = int(np.sum(weight > 0))
    yield f"Spectrum: {spectrum.n_channels} channels, {live} with photons, {spectrum.flux:.6g} photons"
    yield f"  mean wavelength {spectrum.mean_wavelength_A:.6g} A"
    yield f"  mean energy {mean:.6g} eV, standard deviation {sd:.4g} eV"
    yield f"  from {energy.min():.6g} to {energy.max():.6g} eV"


def _lam(path: Path) -> Iterator[str]:
    yield f"{path}: a spectrum"
    yield from spectrum_lines(read_lam(path))


def _mtz(path: Path) -> Iterator[str]:
    yield from (f"{path}: {line}" if i == 0 else f"  {line}" for i, line in enumerate(mtz_summary(path)))


def _table(path: Path) -> Iterator[str]:
    table = read_table(path)
    yield f"{path}: table of {len(table)} rows (shots or lattices), {len(table.columns)} columns"
    for name in table.columns:
        column = table[name]
        if column.dtype.kind in "iufb" and len(column):
            values = column.to_numpy(dtype=float)
            if np.any(np.isfinite(values)):
                yield (
                    f"  {name}: {np.nanmin(values):.6g} to {np.nanmax(values):.6g}, median {np.nanmedian(values):.6g}"
                )
                continue
        first = str(column.iloc[0]) if len(column) else ""
        yield f"  {name}: {first[:70]}{' ...' if len(first) > 70 else ''}"


def _phil(path: Path) -> Iterator[str]:
    parameters = load_phil([path], warn=False)
    yield f"{path}: {len(parameters.explicit)} parameters stated, {len(parameters.changed)} differ from their defaults"
    yield from parameters.changed_text().splitlines()


def _pixels(path: Path) -> Iterator[str]:
    read_bytes(path, "modeler file")
    shot, bragg = read_modeler(path)
    used = shot.trusted
    expected = np.maximum(bragg + shot.background + shot.readout_sd**2, 1e-12)
    z = (shot.counts - bragg - shot.background) / np.sqrt(expected)
    size = f"{shot.shape[1]} x {shot.shape[0]}"
    yield f"{path}: {shot.n_boxes} boxes of up to {size} pixels, {int(used.sum())} of them used"
    if used.any():
        yield f"  observed above background: {np.sum((shot.counts - shot.background)[used]):.6g} photons"
        yield f"  modelled: {np.sum(bragg[used]):.6g} photons"
        yield f"  residuals over their standard deviation: {z[used].std():.4g}"
