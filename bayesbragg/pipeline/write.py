"""Files of a refined shot: experiments, reflections, its row of the table, and on request the modeler files."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bayesbragg.io.experiments import write_experiments
from bayesbragg.io.files import atomic_path, write_bytes
from bayesbragg.io.reflections import write_reflections
from bayesbragg.io.spectra import write_lam
from bayesbragg.io.table_rows import row_path, write_row
from bayesbragg.model import Shot
from bayesbragg.model.errors import InputError
from bayesbragg.pipeline.refine import Refined
from bayesbragg.pipeline.results import refined_experiments, refined_reflections, table_rows
from bayesbragg.pipeline.settings import RefineSettings

__all__ = ["MODELERS", "forget", "is_written", "read_modeler", "state_text", "write_modeler", "write_refined"]
__all__ += ["write_rows"]

MODELERS = "modelers"


def write_refined(
    refined: Refined, settings: RefineSettings, folder: Path, columns: Sequence[dict[str, Any]] = ()
) -> list[dict[str, Any]]:
    """Write everything of one shot and return its rows. The rows' files come last: they say that the shot is done.

    Args:
        columns: further columns of each row.
    """
    tag = refined.prepared.still.tag
    expt, refl = folder / f"{tag}_refined.expt", folder / f"{tag}_indexed.refl"
    write_experiments(refined_experiments(refined), expt)
    write_reflections(refined_reflections(refined, keep_unpredicted=settings.keep_unpredicted), refl)
    modeler = None
    if settings.modelers:
        modeler = write_modeler(refined, settings, folder / MODELERS)
    rows = table_rows(refined, settings, expt=str(expt), refl=str(refl), modeler=modeler)
    rows = [row | more for row, more in zip(rows, columns, strict=True)] if columns else rows
    write_rows(rows, folder, tag)
    return rows


def write_rows(rows: Sequence[dict[str, Any]], folder: Path, tag: str) -> None:
    """Write the rows of a shot, one for each lattice."""
    # The first lattice's comes last: it is the one that `is_written` looks for.
    for number in sorted(range(len(rows)), key=lambda n: n == 0):
        write_row(rows[number], folder, _row_name(tag, number, len(rows)))


def _row_name(tag: str, number: int, n_lattices: int) -> str:
    return tag if n_lattices == 1 else f"{tag}_lattice{number}"


def is_written(folder: Path, tag: str) -> bool:
    """Whether the folder holds the rows of a shot, and so all its files."""
    return any(row_path(folder, _row_name(tag, 0, n)).is_file() for n in (1, 2))


def forget(folder: Path, tag: str) -> None:
    """Remove the rows of a shot that an earlier run wrote, all of them or those that it came to."""
    row_path(folder, tag).unlink(missing_ok=True)
    first, *others = (row_path(folder, _row_name(tag, number, 2)) for number in range(_count_rows(folder, tag)))
    for path in (first, *reversed(others)):
        path.unlink(missing_ok=True)


def _count_rows(folder: Path, tag: str) -> int:
    """Lattices up to the last that has a row; the first one's may be missing, since it is written last."""
    number = 1
    while row_path(folder, _row_name(tag, number, 2)).is_file():
        number += 1
    return number


def write_modeler(refined: Refined, settings: RefineSettings, folder: Path) -> str:
    """``TAG_modeler.npz`` (no pickles inside), ``TAG_SimState.txt`` and ``TAG.lam``."""
    folder.mkdir(parents=True, exist_ok=True)
    shot, tag = refined.prepared.shot, refined.prepared.still.tag
    path = folder / f"{tag}_modeler.npz"
    valid = shot.valid
    box = np.broadcast_to(np.arange(shot.n_boxes)[:, None], valid.shape)[valid]
    sd = np.broadcast_to(shot.readout_sd, valid.shape)[valid]
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(
            file,
            panel_fast_slow=np.stack([shot.panel[box], shot.fast[valid], shot.slow[valid]], axis=-1).astype(np.int32),
            roi_id=box.astype(np.int32),
            data_photons=shot.counts[valid],
            background_photons=shot.background[valid],
            model_bragg_photons=refined.bragg[valid],
            trusted=shot.trusted[valid],
            sigma_readout_photons=sd,
            sigma_gain=np.array(shot.gain_sd),
            roi_f1_f2_s1_s2=shot.bounds,
            roi_panel=shot.panel,
            roi_reflection_row=shot.reflection_row,
            roi_miller_index=shot.miller_index,
            roi_lattice=shot.lattice,
            tilt_abc=shot.tilt,
            model_centroid_fast_slow=refined.centroid_px,
            settings_json=np.array(json.dumps(asdict(settings), default=str)),
        )
    write_lam(refined.prepared.still.spectrum, folder / f"{tag}.lam")
    write_bytes(folder / f"{tag}_SimState.txt", state_text(refined, settings).encode())
    return str(path)


def read_modeler(path: Path) -> tuple[Shot, npt.NDArray[np.float64]]:
    """The pixels of a modeler file as a shot, and its Bragg photons ``(n_boxes, n_pixels)``.

    Pixels of a classic fit that were saved under the same names are read too: one lattice and one readout noise for
    all pixels are enough.

    Raises:
        InputError: missing or damaged file.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        bounds = arrays["roi_f1_f2_s1_s2"]
        shape = (int((bounds[:, 3] - bounds[:, 2]).max()), int((bounds[:, 1] - bounds[:, 0]).max()))
        box, n = arrays["roi_id"], len(bounds)
        where = box, (
            (arrays["panel_fast_slow"][:, 2] - bounds[box, 2]) * shape[1]
            + arrays["panel_fast_slow"][:, 1] - bounds[box, 0]
        )  # fmt: skip

        def spread(name: str) -> npt.NDArray[Any]:
            result = np.zeros((n, shape[0] * shape[1]), arrays[name].dtype)
            result[where] = arrays[name]  # one number stands for all pixels
            return result

        shot = Shot(
            panel=arrays["roi_panel"],
            bounds=bounds,
            shape=shape,
            counts=spread("data_photons"),
            background=spread("background_photons"),
            trusted=spread("trusted"),
            readout_sd=spread("sigma_readout_photons"),
            miller_index=arrays["roi_miller_index"],
            reflection_row=arrays["roi_reflection_row"],
            lattice=arrays.get("roi_lattice", np.zeros(n, dtype=np.int64)),
            tilt=arrays["tilt_abc"],
            gain_sd=float(arrays.get("sigma_gain", 0.0)),
        )
        return shot, spread("model_bragg_photons")
    except (OSError, KeyError, ValueError, IndexError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: {reason}; expected a modeler file (debug_mode=True writes them)") from None


def state_text(refined: Refined, settings: RefineSettings) -> str:
    """Every setting and final value, one per line, with units."""
    prepared, fit = refined.prepared, refined.fit
    lines = ["# fit"]
    lines += [f"status = {fit.status.value} ({fit.reason})", f"target = {fit.target!r}", f"sigmaZ = {fit.sigma_z!r}"]
    lines += ["", "# varied"]
    lines += [f"{n} = {v!r}  # {u}" for n, v, u in zip(fit.names, fit.values.tolist(), fit.units, strict=True)]
    lines += ["", "# all parameters"]
    lines += _lines("", refined.parameters)
    lines += ["", "# model"]
    lines += _lines("", prepared.options)
    beam = prepared.still.experiments[0].beam
    lines += [
        f"beam.direction = {beam.direction.tolist()}",
        f"beam.polarization_fraction = {beam.polarization_fraction}",
        f"kahn_factor = {float(np.asarray(prepared.scene.beam.kahn))}",
        f"spectrum = {prepared.still.spectrum_name}",
        f"spectrum.flux = {prepared.still.spectrum.flux!r}  # photons",
        f"boxes = {prepared.shot.n_boxes}",
        f"reflections = {prepared.report.summary()}",
    ]
    lines += ["", "# settings"]
    lines += _lines("", settings)
    return "\n".join(lines) + "\n"


def _lines(prefix: str, value: Any) -> list[str]:
    if is_dataclass(value) and not isinstance(value, type):
        found: list[str] = []
        for item in fields(value):
            found += _lines(f"{prefix}{item.name}.", getattr(value, item.name))
        return found
    shown = value.tolist() if hasattr(value, "tolist") else value
    return [f"{prefix.rstrip('.')} = {shown!r}"]
