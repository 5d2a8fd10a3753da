"""An earlier refinement, from its output folder: settings, inputs and rows of every shot, to look at its fits again."""

from __future__ import annotations

import json
import logging
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayesbragg.cli.common import file_hashes
from bayesbragg.model.errors import InputError

if TYPE_CHECKING:
    from bayesbragg.io.phil import ResolvedParameters
    from bayesbragg.pipeline.settings import RefineSettings
    from bayesbragg.pipeline.shot_files import ShotFiles

__all__ = ["EarlierRun", "compare_inputs", "phil_files", "read_run", "shot_files", "wanted_tags"]

log = logging.getLogger("bayesbragg.posterior")


@dataclass(frozen=True)
class EarlierRun:
    """An earlier refinement: its folder, parameters, record, and the rows of its table by shot."""

    folder: Path
    parameters: ResolvedParameters
    settings: RefineSettings
    record: dict[str, Any]
    rows: dict[str, list[dict[str, Any]]]


def read_run(folder: Path) -> EarlierRun:
    from bayesbragg.io.phil import load_phil
    from bayesbragg.io.tables import TABLE_NAME, read_table
    from bayesbragg.pipeline.from_phil import settings_from_phil

    path = folder / "run.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        text = record["configuration"]["phil"]
        record["inputs_sha256"], record["shots"] = dict(record["inputs_sha256"]), list(record["shots"])
    except OSError:
        raise InputError(f"{path}: no such file; give the output folder of bayesbragg refine") from None
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path}: not the record of bayesbragg refine; refine the shots again") from None
    with tempfile.TemporaryDirectory() as temporary:
        phil = Path(temporary) / "run.phil"
        phil.write_text(text, encoding="utf-8")
        parameters = load_phil([phil], program="refine", warn=False)
    parameters = replace(parameters, phil_files=phil_files(record))
    if not any((folder / f"{TABLE_NAME}{ending}").is_file() for ending in (".parquet", ".pkl")):
        raise InputError(f"{folder}: no table of shots ({TABLE_NAME}.parquet): no shot was refined there")
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in read_table(folder).to_dict("records"):
        rows.setdefault(str(row.get("tag")), []).append({str(key): value for key, value in row.items()})
    for lattices in rows.values():
        lattices.sort(key=lambda row: row.get("exp_idx") or 0)
    return EarlierRun(folder, parameters, settings_from_phil(parameters), record, rows)


def phil_files(record: dict[str, Any]) -> tuple[Path, ...]:
    """Files from whose folders an earlier run's paths are seen: one in its working directory, and its PHIL files."""
    from bayesbragg.io.phil import PHIL_ENDINGS

    base = Path(record.get("directory", "."))
    given = [word for word in record.get("command", []) if word.endswith(PHIL_ENDINGS)]
    return (base / "run.phil", *(base / word for word in given))


def wanted_tags(earlier: EarlierRun, tags: list[str]) -> list[str]:
    for tag in tags:
        if tag not in earlier.rows:
            raise InputError(f"{earlier.folder}: shot {tag} is not in its table of shots; refine it first")
    return list(dict.fromkeys(tags)) or list(earlier.rows)


def shot_files(earlier: EarlierRun) -> list[ShotFiles]:
    """The inputs of the earlier run, with the tags that it gave them."""
    from bayesbragg.io.phil import resolve_path
    from bayesbragg.pipeline.shot_files import pair_files, read_shot_list, unique_tags, with_spectra

    listed = earlier.parameters.path(earlier.parameters.exp_ref_spec_file)
    if listed is not None:
        shots = unique_tags(read_shot_list(listed))
    else:
        names = [resolve_path(name, phil_files(earlier.record)) for name in earlier.record["inputs_sha256"]]
        paths = [path for path in names if path.suffix in (".expt", ".json", ".refl")]
        if not paths:
            raise InputError(f"{earlier.folder / 'run.json'}: it names no inputs; refine the shots again")
        shots = unique_tags(pair_files(paths))
    spectra = earlier.parameters.path(earlier.parameters.simulator.spectrum.filename_list)
    return shots if spectra is None else with_spectra(shots, spectra)


def compare_inputs(record: dict[str, Any]) -> None:
    """Inputs that have changed or gone since the refinement make another posterior: say so."""
    from bayesbragg.io.phil import resolve_path

    for name, digest in record["inputs_sha256"].items():
        now = list(file_hashes([resolve_path(name, phil_files(record))]).values())
        if not now:
            log.warning("%s: an input of the refinement is no longer there", name)
        elif now != [digest]:
            log.warning("%s: has changed since the refinement", name)
