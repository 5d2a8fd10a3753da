"""From priors to the vector of a fit: the one place that knows the order and the names of what a fit varies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bayesbragg.forward.parameters import Parameters
from bayesbragg.model.errors import InputError
from bayesbragg.priors.cell import CellConstraint
from bayesbragg.priors.flatten import CELL, Layout, Site, columns
from bayesbragg.priors.model import Fixed, Priors, Shared
from bayesbragg.priors.parameter import Parameter

__all__ = ["make_layout"]

_XYZ, _ABC = ("X", "Y", "Z"), ("a", "b", "c")
# prior: (concept, field) in Parameters, unit, names of the components; a "lattice" or "group" axis comes first.
_FIELDS: dict[str, tuple[tuple[str, str], str, tuple[str, ...], str | None]] = {
    "RotXYZ": (("crystal", "rot_xyz"), "radian", ("rotX", "rotY", "rotZ"), "lattice"),
    "G": (("scale", "G"), "1", ("G",), "lattice"),
    "Nabc": (("mosaic", "n_abc"), "cells", ("Na", "Nb", "Nc"), "blocks"),
    "Ndef": (("mosaic", "n_def"), "cells", ("Nd", "Ne", "Nf"), "blocks"),
    "eta_abc": (("mosaic", "eta_deg"), "degree", tuple(f"eta_{i}" for i in _ABC), None),
    "eta_def": (("mosaic", "eta_def_deg"), "degree", ("eta_d", "eta_e", "eta_f"), None),
    "diffuse_gamma": (("diffuse", "gamma_A"), "angstrom", tuple(f"diffuse_gamma_{i}" for i in _ABC), None),
    "diffuse_sigma": (("diffuse", "sigma_A"), "angstrom", tuple(f"diffuse_sigma_{i}" for i in _ABC), None),
    "B": (("scale", "b_factor_A2"), "angstrom^2", ("B",), None),
    "detz_shift": (("panels", "detz_m"), "metre", ("detz_shift",), None),
    "lambda_offset": (("spectrum", "offset_A"), "angstrom", ("lambda_offset",), None),
    "lambda_scale": (("spectrum", "scale"), "1", ("lambda_scale",), None),
    "panel_rotation": (("panels", "rotation_rad"), "radian", ("RotOrth", "RotFast", "RotSlow"), "group"),
    "panel_translation": (("panels", "translation_m"), "metre", tuple(f"Shift{i}" for i in _XYZ), "group"),
}


def make_layout(priors: Priors, start: Parameters, constraint: CellConstraint) -> tuple[Layout, Parameters]:
    """The vector of a fit, and the parameters that it starts from.

    Args:
        priors: what varies, and how. Starts given there replace those of ``start``.
        start: starting values of everything.
        constraint: how the cell follows from its free numbers.

    Raises:
        InputError: naming the parameter and what is wrong with its prior.
    """
    sites: list[Site] = []
    parts: list[Parameter] = []
    base = start
    if not np.all(np.isfinite(np.asarray(start.crystal.cell))):
        raise InputError(f"start: the unit cell {np.asarray(start.crystal.cell)} is not finite")
    for name in _FIELDS:
        base = _add_field(name, priors, base, sites, parts)
        if name == "G":
            _add_cell(priors, base, constraint, sites, parts)
    volume = np.zeros(0) if priors.Nvol is None else np.array([priors.Nvol.center, priors.Nvol.beta])
    return Layout(tuple(sites), constraint, priors.per_lattice_blocks, volume=volume, **columns(parts)), base


def _add_field(name: str, priors: Priors, base: Parameters, sites: list[Site], parts: list[Parameter]) -> Parameters:
    place, unit, components, axis = _FIELDS[name]
    spec = getattr(priors, name)
    old = np.array(getattr(getattr(base, place[0]), place[1]), dtype=np.float64)
    rows = old.reshape(-1, len(components))
    if axis == "blocks":
        axis = "lattice" if priors.per_lattice_blocks else None
    shared_rows = axis is None and len(rows) > 1
    single = [spec.prior] if isinstance(spec, Shared) else None
    priors_of = single or (list(spec) if isinstance(spec, tuple) else [spec] * len(components))
    if single is None and len(priors_of) != len(components):
        raise InputError(f"prior of {name}: expected one prior or {len(components)}, got {len(priors_of)}")
    for row in range(1 if shared_rows else len(rows)):
        many = len(rows) > 1 and not shared_rows
        suffix = f"_xtal{row}" if many and axis == "lattice" else ""
        prefix = f"group{row}_" if axis == "group" else ""
        for i, prior in enumerate(priors_of):
            covered = range(len(components)) if single else (i,)
            which = range(len(rows)) if shared_rows else (row,)
            targets = tuple(r * len(components) + c for r in which for c in covered)
            label = components[i] if not single else _shared_name(name, components)
            full = f"{prefix}{label}{suffix}"
            part = prior.parameter(float(rows.reshape(-1)[targets[0]])).check(full)
            old.reshape(-1)[list(targets)] = part.start
            if not part.fixed:
                sites.append(Site(full, unit, name, place, targets, part.kind, part.center is not None))
                parts.append(part)
    return replace(base, **{place[0]: replace(getattr(base, place[0]), **{place[1]: old})})


def _shared_name(name: str, components: tuple[str, ...]) -> str:
    short = {"Nabc": "N", "Ndef": "Ndef", "eta_abc": "eta", "eta_def": "eta_def"}
    return short.get(name, name if len(components) > 1 else components[0])


def _add_cell(
    priors: Priors, base: Parameters, constraint: CellConstraint, sites: list[Site], parts: list[Parameter]
) -> None:
    if isinstance(priors.cell, Fixed):
        return
    for k, (name, start) in enumerate(zip(constraint.names, constraint.free(base.crystal.cell), strict=True)):
        angle = constraint.is_angle(name)
        part = priors.cell.parameter(name, float(start), angle).check(name)
        if part.fixed:
            continue
        unit = "radian" if angle else "angstrom"
        sites.append(Site(name, unit, "cell", CELL, (k,), part.kind, part.center is not None))
        parts.append(part)
