"""Files of a refined shot: experiments, reflections, its row of the table, and on request the modeler files."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bayesbragg.io.experiments import write_experiments
from bayesbragg.io.files import atomic_path, write_bytes
from bayesbragg.io.reflections import write_reflections
from bayesbragg.io.spectra import write_lam
from bayesbragg.io.tables import write_row
from bayesbragg.pipeline.refine import Refined
from bayesbragg.pipeline.results import refined_experiments, refined_reflections, table_rows
from bayesbragg.pipeline.settings import RefineSettings

__all__ = ["MODELERS", "state_text", "write_refined"]

MODELERS = "modelers"


def write_refined(refined: Refined, settings: RefineSettings, folder: Path) -> list[dict[str, Any]]:
    """Write everything of one shot and return its rows. The rows' files come last: they say that the shot is done."""
    tag = refined.prepared.still.tag
    expt, refl = folder / f"{tag}_refined.expt", folder / f"{tag}_indexed.refl"
    write_experiments(refined_experiments(refined), expt)
    write_reflections(refined_reflections(refined, keep_unpredicted=settings.keep_unpredicted), refl)
    modeler = None
    if settings.modelers:
        modeler = _write_modeler(refined, settings, folder / MODELERS)
    rows = table_rows(refined, settings, expt=str(expt), refl=str(refl), modeler=modeler)
    for number, row in enumerate(rows):
        write_row(row, folder, tag if len(rows) == 1 else f"{tag}_lattice{number}")
    return rows


def _write_modeler(refined: Refined, settings: RefineSettings, folder: Path) -> str:
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
