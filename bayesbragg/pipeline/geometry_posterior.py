"""The posterior of a joint geometry fit: found from its optimum, and written beside it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from bayesbragg.diagnostics.figure_style import save
from bayesbragg.diagnostics.joint_data import flat_data, joint_data, whole_shared
from bayesbragg.diagnostics.joint_plots import panel_rows, panels_forest, panels_text
from bayesbragg.forward.group_motion import MOTIONS
from bayesbragg.inference.joint_density import JointTarget, target_of_joint_fit
from bayesbragg.inference.joint_laplace import JointLaplaceOptions, joint_laplace
from bayesbragg.inference.nuts import nuts
from bayesbragg.io.files import write_bytes
from bayesbragg.io.tables import read_table
from bayesbragg.model.errors import InputError
from bayesbragg.model.posterior import Posterior
from bayesbragg.pipeline.device import forget_programs
from bayesbragg.pipeline.error_bars import nuts_options, sd_columns, usual_draws
from bayesbragg.pipeline.geometry_run import GeometryResult
from bayesbragg.pipeline.geometry_term import lists_hold
from bayesbragg.pipeline.posterior_table import write_posteriors
from bayesbragg.pipeline.settings import PosteriorSettings

__all__ = ["JointPosterior", "chosen_parameters", "explore_geometry", "joint_target_of", "write_joint_plots"]
__all__ += ["write_joint_posterior"]

log = logging.getLogger(__name__)

LOOKED_AT = 40
"""Draws at which lists of reflections are checked."""
NAME = "panels_posterior"


@dataclass(frozen=True, eq=False)
class JointPosterior:
    """A joint posterior with the fit that it started from."""

    posterior: Posterior
    target: JointTarget
    result: GeometryResult

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Of the panel groups, as `bayesbragg.diagnostics.joint_plots.panel_rows` makes them."""
        result = self.result
        return panel_rows(self.posterior, result.prior, result.grouping, result.reflections_of_group)

    def summary(self) -> str:
        """Verdict, cost, and every group's motions."""
        found = self.posterior
        n_chains, n_draws, n = found.draws.shape
        head = [f"{found.method}: verdict {found.verdict}"]
        head += [f"  {check}" for check in found.verdict.checks]
        head.append(f"{n_chains} x {n_draws} draws of {n} numbers, {found.evaluations} evaluations, "
                    f"{found.seconds:.1f} s")  # fmt: skip
        return "\n".join([*head, panels_text(self.rows)])


def joint_target_of(result: GeometryResult) -> JointTarget:
    """The joint posterior of a fit.

    Args:
        result: of the fit, made in one process.

    Raises:
        InputError: the fit failed.
    """
    # Programs of the search are of no more use, and those of a posterior take much of the address space.
    forget_programs(0.05)
    terms = [term.shot().term for term in result.terms]
    return target_of_joint_fit(terms, [term.tag for term in result.terms], result.prior, result.fit)


def explore_geometry(
    result: GeometryResult,
    target: JointTarget,
    how: PosteriorSettings,
    seed: int = 0,
    report: Callable[[int, int], None] | None = None,
) -> JointPosterior:
    """The posterior of panels and shots by corrected Laplace or NUTS.

    Args:
        result, target: of the fit.
        report: told of the progress: what is done, and what is to be done.
    """
    if how.samples:
        posterior = nuts(target, nuts_options(how), seed=seed, report=report)
    else:
        posterior = joint_laplace(target, JointLaplaceOptions(n_draws=usual_draws(how)), seed=seed, report=report)
    found = JointPosterior(posterior, target, result)
    _check_lists(found)
    return found


def _check_lists(found: JointPosterior) -> None:
    """Say so where draws have moved spots beyond the reflections that were listed for them."""
    flat = found.posterior.draws.reshape(-1, len(found.target.names))
    some = flat[:: max(1, len(flat) // LOOKED_AT)]
    shared = whole_shared(found.target, some)
    for (tag, at), term in zip(found.target.shots, found.result.terms, strict=True):
        shot = term.shot()
        layout = shot.term.layout
        own = [np.asarray(layout.coordinates(jnp.asarray(row[at])))[None] for row in some]
        lost = sum(not lists_hold(shot, x, row) for x, row in zip(own, shared, strict=True))
        if lost:
            log.warning(
                "%s: in %d of %d draws spots have moved beyond the reflections that are listed for them, where the "
                "density is too low: such wide posteriors need forward=exact", tag, lost, len(some)
            )  # fmt: skip


def chosen_parameters(target: JointTarget, words: Sequence[str], where: str) -> list[str]:
    """Names that words mean: a parameter, all motions of a group (``group3``), or all numbers of a shot (its name).

    Raises:
        InputError: a word that means none.
    """
    found: list[str] = []
    for word in words:
        own = {f"{word}_{motion}" for motion in MOTIONS}
        own |= {f"{word}_{name}" for (tag, _), names in zip(target.shots, target.own_names, strict=True)
                if tag == word for name in names}  # fmt: skip
        chosen = [name for name in target.names if name == word or name in own]
        if not chosen:
            shared = [name for name in target.names if name.startswith("group")] or list(target.names)
            first, names = target.shots[0][0], target.own_names[0]
            raise InputError(
                f"parameters={word}: not a parameter of {where}; choose among {shared[0]} to {shared[-1]}, a whole "
                f"group ({shared[0].split('_')[0]}), a shot ({first}), or one of its numbers ({first}_{names[0]})"
            )
        found += [name for name in chosen if name not in found]
    return found


def usual_parameters(found: JointPosterior) -> list[str]:
    """Motions of the groups with the most and with the fewest reflections."""
    counts, labels = found.result.reflections_of_group, found.result.grouping.labels
    groups = dict.fromkeys((int(labels[int(np.argmax(counts))]), int(labels[int(np.argmin(counts))])))
    wanted = [f"group{label}_{motion}" for label in groups for motion in MOTIONS]
    return [name for name in wanted if name in found.target.names] or list(found.target.names[:12])


def write_joint_posterior(found: JointPosterior, folder: Path, provenance: Mapping[str, Any]) -> Any:
    """``panels_posterior.nc`` and ``.csv``, and the table of shots with standard deviations.

    Returns:
        ArviZ's container, as it was written.
    """
    from bayesbragg.diagnostics.arviz_container import write_netcdf

    result = found.result
    stills = [term.shot() for term in result.terms]
    data = joint_data(
        found.posterior, found.target, result.grouping, [s.term for s in stills], [s.prepared.shot for s in stills],
        layouts=[s.prepared.layout for s in stills], provenance=provenance,
    )  # fmt: skip
    write_netcdf(data, folder / f"{NAME}.nc")
    rows = found.rows
    lines = ["# rotations in radian, shifts in metre; *_low and *_high: central 95 % interval", ",".join(rows[0])]
    lines += [",".join(f"{v:.9g}" for v in row.values()) for row in rows]
    write_bytes(folder / f"{NAME}.csv", ("\n".join(lines) + "\n").encode())
    _write_table(found, folder)
    return data


def _write_table(found: JointPosterior, folder: Path) -> None:
    """The rows of the joint fit's table, with standard deviations and the verdict."""
    posterior, target = found.posterior, found.target
    columns: dict[str, list[dict[str, Any]]] = {}
    for (tag, at), names, term in zip(target.shots, target.own_names, found.result.terms, strict=True):
        sds = dict(zip(names, posterior.sd[at].tolist(), strict=True))
        prepared = term.shot().prepared
        said = {"inference": posterior.method, "verdict": str(posterior.verdict)}
        said["verdict_passed"] = posterior.verdict.passed  # type: ignore[assignment]
        constraint = prepared.layout.constraint
        lattices = range(len(prepared.still.crystals))
        columns[tag] = [sd_columns(sds, constraint, number) | said for number in lattices]
    write_posteriors(read_table(folder), columns, folder)


def write_joint_plots(found: JointPosterior, data: Any, folder: Path, names: Sequence[str]) -> list[str]:
    """Pictures of the posterior; returns their names.

    Args:
        data: from `write_joint_posterior`.
        names: parameters of traces, pairs and priors; the usual ones if there are none.
    """
    from bayesbragg.diagnostics.posterior_plots import pair_plot, prior_plot, trace_plot
    from bayesbragg.diagnostics.predictive_plots import predictive_plot, residual_plot

    names = list(names) or usual_parameters(found)
    flat = flat_data(found.posterior, found.target, names)
    pictures = {
        "forest": panels_forest(found.posterior, found.rows, found.result.grouping),
        "trace": trace_plot(flat, names),
        "pairs": pair_plot(flat, names),
        "prior": prior_plot(flat, names),
        "predicted": predictive_plot(data),
        "residuals": residual_plot(data),
    }
    for name, figure in pictures.items():
        save(figure, folder / f"{NAME}_{name}.png")
    return [f"{NAME}_{name}.png" for name in pictures]
