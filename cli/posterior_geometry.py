"""The posterior of a joint geometry, for `bayesbragg posterior` and `bayesbragg geometry-refine`."""

from __future__ import annotations

import json
import logging
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayesbragg.cli.common import count_draws, progress, provenance
from bayesbragg.cli.earlier_run import compare_inputs, phil_files
from bayesbragg.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bayesbragg.pipeline.geometry_run import GeometryResult
    from bayesbragg.pipeline.settings import PosteriorSettings

__all__ = ["explore", "explore_folder", "is_geometry"]

log = logging.getLogger("bayesbragg.geometry")


def is_geometry(folder: Path) -> bool:
    """Whether a folder is that of `bayesbragg geometry-refine`, by its record."""
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        return "prior" in record and "trace" in record["fit"]
    except (OSError, ValueError, KeyError, TypeError):
        return (folder / "geometry_state.npz").is_file()


def explore_folder(
    folder: Path, how: PosteriorSettings, seed: int, names: Sequence[str], *, plots: bool, quiet: bool
) -> bool:
    """Find the joint optimum of a folder again, and its posterior; whether the verdict passed.

    Raises:
        InputError: no fit there, one that failed, or inputs that are gone.
    """
    from bayesbragg.cli.geometry_refine import geometry_job
    from bayesbragg.inference.communicator import OneProcess
    from bayesbragg.io.phil import load_phil
    from bayesbragg.pipeline.geometry_run import refine_geometry

    path = folder / "run.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        text, status, inputs = record["configuration"]["phil"], record["fit"]["status"], dict(record["inputs_sha256"])
        record["inputs_sha256"], reason = inputs, record["fit"]["reason"]
    except OSError:
        raise InputError(f"{path}: no such file: the joint fit has not ended; let geometry-refine end first") from None
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path}: not the record of bayesbragg geometry-refine; refine the geometry again") from None
    if status == "failed":
        raise InputError(f"{folder}: the joint fit failed ({reason}); refine the geometry again")
    with tempfile.TemporaryDirectory() as temporary:
        phil = Path(temporary) / "run.phil"
        phil.write_text(text, encoding="utf-8")
        parameters = load_phil([phil], program="geometry", warn=False)
    job = geometry_job(replace(parameters, phil_files=phil_files(record)))
    # The saved state of the search is where it starts: at the optimum, if nothing has changed.
    job = replace(job, folder=folder, settings=replace(job.settings, resume=True, keep_in_memory=True))
    compare_inputs(record)
    result = refine_geometry(OneProcess(), job)
    if status == "converged" and result.fit.status.value != "converged":
        raise InputError(f"{folder}: the joint fit is not found again ({result.fit.reason}); refine the geometry again")
    return explore(result, folder, how, seed, names, record, plots=plots, quiet=quiet)


def explore(
    result: GeometryResult,
    folder: Path,
    how: PosteriorSettings,
    seed: int,
    names: Sequence[str],
    record: Mapping[str, Any],
    *,
    plots: bool,
    quiet: bool,
) -> bool:
    """Find, print and write the posterior of a joint fit; whether the verdict passed.

    Args:
        names: words for the parameters that are plotted.
        record: of the fit, ``run.json``.
    """
    from bayesbragg.pipeline.geometry_posterior import (
        chosen_parameters,
        explore_geometry,
        joint_target_of,
        write_joint_plots,
        write_joint_posterior,
    )  # fmt: skip

    # A word that means nothing should be told before an hour of sampling.
    target = joint_target_of(result)
    chosen = chosen_parameters(target, names, str(folder))
    with progress(100, "sampling the joint geometry", quiet=quiet) as bar:
        found = explore_geometry(result, target, how, seed, count_draws(bar))
    words: dict[str, Any] = {"inference": how.inference, "draws": how.draws, "chains": how.chains, "warmup": how.warmup}
    words |= {"target_accept": how.target_accept, "seed": seed}
    said = provenance(configuration={"phil": record["configuration"]["phil"], "posterior": words}, seed=seed)
    said["inputs_sha256"] = record["inputs_sha256"]
    data = write_joint_posterior(found, folder, said)
    print(found.summary())
    log.info(found.summary())
    if plots:
        write_joint_plots(found, data, folder, chosen)
    print(f"the posterior is {folder / 'panels_posterior.nc'}")
    return found.posterior.verdict.passed
