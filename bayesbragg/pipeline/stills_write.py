"""Files of a processed still, named as dials.stills_process names them, and the record that says that it is done.

The record comes last: a still without one was never finished, and its files are written again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bayesbragg.io.experiments import write_experiments
from bayesbragg.io.files import write_bytes
from bayesbragg.io.reflections import write_reflections
from bayesbragg.model import Crystal, Reflections
from bayesbragg.pipeline.results import table_rows
from bayesbragg.pipeline.stills_process import ProcessedStill, StillStatus
from bayesbragg.pipeline.stills_settings import StillsSettings
from bayesbragg.pipeline.write import forget, write_modeler, write_rows

__all__ = [
    "ENDINGS",
    "PREFIX",
    "forget_still",
    "read_record",
    "read_records",
    "still_folder",
    "write_failure",
    "write_still",
]

PREFIX = "idx-"
RECORDS, STILLS = "records", "stills"
ENDINGS = {
    "strong": "_strong.refl",
    "indexed": "_indexed.refl",
    "refined": "_refined.expt",
    "integrated_expt": "_integrated.expt",
    "integrated": "_integrated.refl",
}


def still_folder(folder: Path, composite: bool) -> Path:
    """Where a still's own files go: with composite output they are kept apart."""
    return folder / STILLS if composite else folder


def _record_path(folder: Path, tag: str) -> Path:
    return folder / RECORDS / f"{tag}.json"


def forget_still(folder: Path, tag: str, composite: bool) -> None:
    """Remove what an earlier run left of a still, its record first."""
    _record_path(folder, tag).unlink(missing_ok=True)
    forget(folder, tag)
    for ending in ENDINGS.values():
        (still_folder(folder, composite) / f"{PREFIX}{tag}{ending}").unlink(missing_ok=True)


def read_record(folder: Path, tag: str, composite: bool) -> dict[str, Any] | None:
    """The record of a finished still, or None; a damaged one counts as none.

    Its files are named as seen from here: the run that wrote them may have worked in another directory.
    """
    record = _read(_record_path(folder, tag))
    if record is None or not isinstance(record.get("files"), dict):
        return record
    here = still_folder(folder, composite)
    return {**record, "files": {kind: str(here / Path(name).name) for kind, name in record["files"].items()}}


def read_records(folder: Path) -> list[dict[str, Any]]:
    """The records of all finished stills, by tag; `bayesbragg.pipeline.report_data` reads them while a run goes on."""
    paths = sorted(p for p in (folder / RECORDS).glob("*.json") if not p.name.startswith("."))
    return [record for record in map(_read, paths) if record is not None]


def _read(path: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and "tag" in record else None


def write_still(
    processed: ProcessedStill, settings: StillsSettings, folder: Path, image: str, seconds: float
) -> dict[str, Any]:
    """Write everything of a still and return its record.

    Args:
        image: what it was read from, for the record.
        seconds: wall time until here.
    """
    tag = processed.tag
    base = still_folder(folder, settings.composite) / f"{PREFIX}{tag}"
    base.parent.mkdir(parents=True, exist_ok=True)
    files: dict[str, str] = {}

    def table(kind: str, reflections: Reflections | None) -> None:
        if reflections is not None:
            files[kind] = f"{base}{ENDINGS[kind]}"
            kept = reflections if settings.shoeboxes else reflections.without_columns(["shoebox"])
            write_reflections(kept, files[kind])

    table("strong", processed.strong)
    table("indexed", processed.indexed)
    if processed.experiments:
        files["refined"] = f"{base}{ENDINGS['refined']}"
        write_experiments(processed.experiments, files["refined"])
    if processed.integrated is not None:
        files["integrated_expt"] = f"{base}{ENDINGS['integrated_expt']}"
        write_experiments(processed.experiments, files["integrated_expt"])
        table("integrated", processed.integrated.reflections)
    write_rows(_rows(processed, settings, folder, files), folder, tag)
    fit = processed.refined.fit if processed.refined is not None else None
    record: dict[str, Any] = {
        "tag": tag,
        "image": image,
        "status": processed.status.value,
        "reason": processed.reason,
        "n_strong": None if processed.strong is None else len(processed.strong),
        "n_indexed": None if processed.indexed is None else processed.n_indexed,
        "n_modelled": None if processed.refined is None or processed.indexed is None else len(processed.indexed),
        "n_lattices": len(processed.experiments),
        "indexing_rmsd_px": processed.rmsd_px,
        "fit": None if fit is None else fit.status.value,
        "sigma_z": None if fit is None else fit.sigma_z,
        "n_predicted": None if processed.integrated is None else processed.integrated.n_selected,
        "n_integrated": None if processed.integrated is None else len(processed.integrated.reflections),
        "cell": [_cell(e.crystal) for e in processed.experiments if e.crystal is not None],
        "space_group": next((e.crystal.space_group for e in processed.experiments if e.crystal), None),
        "seconds": round(seconds, 3),
        "files": files,
    }
    _write_record(folder, record)
    return record


def write_failure(
    folder: Path, tag: str, status: StillStatus, reason: str, image: str, seconds: float
) -> dict[str, Any]:
    """The record of a still of which nothing could be made."""
    record = {"tag": tag, "image": image, "status": status.value, "reason": reason, "seconds": round(seconds, 3)}
    _write_record(folder, record)
    return record


def _write_record(folder: Path, record: dict[str, Any]) -> None:
    text = json.dumps(_plain(record), indent=1, allow_nan=False) + "\n"
    write_bytes(_record_path(folder, record["tag"]), text.encode())


def _plain(value: Any) -> Any:
    """Numbers that JSON knows: not a number becomes null."""
    if isinstance(value, dict):
        return {key: _plain(x) for key, x in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(x) for x in value]
    if isinstance(value, float) and value != value:
        return None
    return value


def _cell(crystal: Crystal) -> list[float]:
    return [round(float(x), 6) for x in crystal.cell]


def _rows(
    processed: ProcessedStill, settings: StillsSettings, folder: Path, files: dict[str, str]
) -> list[dict[str, Any]]:
    """Rows of the table of shots; without pixel refinement they hold the crystals alone."""
    if processed.refined is not None:
        modeler = None
        if settings.refine.modelers:
            modeler = write_modeler(processed.refined, settings.refine, folder / "modelers")
        return table_rows(
            processed.refined, settings.refine, expt=files["refined"], refl=files["indexed"], modeler=modeler
        )
    rows = []
    for number, experiment in enumerate(processed.experiments):
        if experiment.crystal is None:
            continue
        cell = dict(zip(("a", "b", "c", "al", "be", "ga"), _cell(experiment.crystal), strict=True))
        rows.append(
            {
                "Amats": tuple(float(v) for v in experiment.crystal.A_reciprocal.reshape(-1)),
                **cell,
                "exp_name": files.get("refined", ""),
                "opt_exp_name": files.get("refined", ""),
                "stage1_refls": files.get("indexed", ""),
                "exp_idx": number,
                "tag": processed.tag,
                "status": processed.status.value,
                "reason": processed.reason,
            }
        )
    return rows
