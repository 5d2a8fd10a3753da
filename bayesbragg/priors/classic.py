"""Priors from the classic PHIL groups: init, mins, maxs, fix, sigmas, centers, betas, types.

The classic rules live here and nowhere else (PHYSICS 9): which parameters are ranged or positive, what is in degree or
millimetre in PHIL and in radian or metre inside, and where a beta alone is a restraint. Two classic mistakes are put
right: the centre of ``detz_shift`` is millimetre like its bounds, and every beta is the one of its own parameter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bayesbragg.model.errors import InputError
from bayesbragg.priors.model import Cell, Fixed, Normal, Prior, Priors, Shared, Spec, Uniform, Volume
from bayesbragg.priors.parameter import Kind

__all__ = ["CLASSIC_DEFAULTS", "from_classic"]

Group = Mapping[str, Any]

_PI = 3.1415926
CLASSIC_DEFAULTS: dict[str, dict[str, Any]] = {
    "init": {
        "RotXYZ": [0, 0, 0],
        "Nabc": [100, 100, 100],
        "Ndef": [0, 0, 0],
        "eta_abc": [0, 0, 0],
        "diffuse_gamma": [1, 1, 1],
        "diffuse_sigma": [0.01, 0.01, 0.01],
        "G": 1,
        "B": 0,
        "detz_shift": 0,
        "spec": [0, 1],
    },
    "mins": {
        "RotXYZ": [-_PI, -_PI, -_PI],
        "Nabc": [3, 3, 3],
        "Ndef": [-200, -200, -200],
        "eta_abc": [0, 0, 0],
        "diffuse_gamma": [0, 0, 0],
        "diffuse_sigma": [0, 0, 0],
        "G": 0,
        "B": 0,
        "detz_shift": -10,
        "spec": [-0.01, 0.95],
    },
    "maxs": {
        "RotXYZ": [_PI, _PI, _PI],
        "Nabc": [300, 300, 300],
        "Ndef": [200, 200, 200],
        "eta_abc": [10, 10, 10],
        "diffuse_gamma": [10000, 10000, 10000],
        "diffuse_sigma": [20, 20, 20],
        "G": 1e12,
        "B": 1e3,
        "detz_shift": 10,
        "spec": [0.01, 1.05],
    },
    "fix": {
        "RotXYZ": [0, 0, 0],
        "Nabc": False,
        "Ndef": True,
        "eta_abc": True,
        "diffuse_gamma": True,
        "diffuse_sigma": True,
        "G": False,
        "B": True,
        "detz_shift": True,
        "spec": True,
        "ucell": False,
    },
    "sigmas": {"RotXYZ": [1e-3, 1e-3, 1e-3]},
    "types": {"G": "ranged", "Nabc": "ranged", "diffuse_sigma": "ranged", "diffuse_gamma": "ranged"},
}
"""Values of the classic PHIL where a group does not name a parameter (lengths in millimetre, as there)."""

_CELL_NAMES = ("a", "b", "c", "alpha", "beta", "gamma")


def from_classic(
    init: Group | None = None,
    mins: Group | None = None,
    maxs: Group | None = None,
    fix: Group | None = None,
    sigmas: Group | None = None,
    centers: Group | None = None,
    betas: Group | None = None,
    types: Group | None = None,
    *,
    use_restraints: bool = False,
    isotropic_blocks: bool = False,
    isotropic_mosaicity: bool = False,
    isotropic_gamma: bool = False,
    isotropic_sigma: bool = False,
    ucell_edge_perc: float = 10.0,
    ucell_ang_abs: float = 5.0,
    cell_names: Sequence[str] = (),
    geometry: Group | None = None,
) -> Priors:
    """Priors with the meaning that the classic program gives to its PHIL groups.

    Args:
        init, mins, maxs, fix, sigmas, centers, betas, types: the groups, as plain mappings in PHIL units (detz_shift
            in millimetre; RotXYZ and Nabc as they are; cell angles in degree). What is missing takes its classic
            default. Betas are variances in the units inside: radian^2 for angles, metre^2 for shifts.
        use_restraints: without it, centers and betas are checked but do not count.
        isotropic_blocks, isotropic_mosaicity, isotropic_gamma, isotropic_sigma: one number for three.
        ucell_edge_perc, ucell_ang_abs: cell bounds, per cent and degree.
        cell_names: free cell parameters in order (`CellConstraint.names`), to which ``sigmas.ucell`` belongs.
        geometry: the classic ``geometry`` scope (``optimize``, ``min``, ``max``, ``fix``, ``betas``), rotations in
            degree and translations in millimetre. Centers of panel parameters are always 0.

    Raises:
        InputError: a minimum that is not below its maximum, a beta without a center (or the reverse) where the classic
            rule does not make the center 0, a list of the wrong length.
    """
    groups = _Groups(init, mins, maxs, fix, sigmas, centers, betas, types, use_restraints)
    spec = [groups.prior("spec", i, 2) for i in range(2)]
    return Priors(
        RotXYZ=tuple(groups.rotation(i) for i in range(3)),
        cell=_cell(groups, ucell_edge_perc, ucell_ang_abs, cell_names),
        Nabc=groups.triple("Nabc", isotropic_blocks),
        Ndef=groups.triple("Ndef"),
        eta_abc=groups.triple("eta_abc", isotropic_mosaicity),
        diffuse_gamma=groups.triple("diffuse_gamma", isotropic_gamma),
        diffuse_sigma=groups.triple("diffuse_sigma", isotropic_sigma),
        G=groups.prior("G"),
        B=groups.prior("B"),
        detz_shift=groups.prior("detz_shift", unit=1e-3),
        lambda_offset=spec[0],
        lambda_scale=spec[1],
        Nvol=_volume(groups, use_restraints),
        panel_rotation=_panels(geometry or {}, "rotation", use_restraints),
        panel_translation=_panels(geometry or {}, "translation", use_restraints),
    )


class _Groups:
    """Look-up of one number in the PHIL groups."""

    def __init__(self, *groups: Any) -> None:
        names = ("init", "mins", "maxs", "fix", "sigmas", "centers", "betas", "types")
        self.groups: dict[str, Group] = {n: dict(g or {}) for n, g in zip(names, groups[:-1], strict=True)}
        self.restrain: bool = groups[-1]

    def number(self, group: str, name: str, i: int = 0, size: int = 1, default: Any = None) -> Any:
        """Entry i of a parameter in a group, with the classic default; None if there is none."""
        value = self.groups[group].get(name)
        if value is None:
            value = CLASSIC_DEFAULTS.get(group, {}).get(name, default)
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        if len(value) != size:
            raise InputError(f"{group}.{name}: expected {size} numbers, got {len(value)}")
        return value[i]

    def restraint(self, name: str, i: int = 0, size: int = 1) -> tuple[float, float] | None:
        """Center and beta in PHIL units, or None."""
        center, beta = self.number("centers", name, i, size), self.number("betas", name, i, size)
        if (center is None) != (beta is None):
            given, missing = ("betas", "centers") if center is None else ("centers", "betas")
            raise InputError(f"{given}.{name} is set but {missing}.{name} is not: a restraint needs both")
        if center is None:
            return None
        _check_beta(name, beta)
        return (float(center), float(beta)) if self.restrain else None

    def prior(self, name: str, i: int = 0, size: int = 1, unit: float = 1.0) -> Prior:
        """The prior of one number; ``unit`` takes PHIL units to those inside."""
        start = self.number("init", name, i, size) * unit
        low, high = (self.number(group, name, i, size) * unit for group in ("mins", "maxs"))
        _check_order(name, low, high)
        restraint = self.restraint(name, i, size)
        if self.number("fix", name, i, size):
            return Fixed(start)
        kind: Kind = "positive" if self.number("types", name) == "positive" else "ranged"
        sigma = float(self.number("sigmas", name, i, size, default=1.0))
        if restraint is None:
            return Uniform(low, high, start, kind, sigma)
        return Normal.from_beta(restraint[0] * unit, restraint[1], low, high, start, kind, sigma)

    def triple(self, name: str, isotropic: bool = False) -> Spec:
        parts = tuple(self.prior(name, i, 3) for i in range(3))
        return Shared(parts[0]) if isotropic else parts

    def rotation(self, i: int) -> Prior:
        """RotXYZ: its center is always 0, so that a beta alone is a restraint."""
        low, high = (self.number(group, "RotXYZ", i, 3) for group in ("mins", "maxs"))
        _check_order("RotXYZ", low, high)
        beta = self.number("betas", "RotXYZ", i, 3)
        if beta is not None:
            _check_beta("RotXYZ", beta)
        start = float(self.number("init", "RotXYZ", i, 3))
        if self.number("fix", "RotXYZ", i, 3):
            return Fixed(start)
        sigma = float(self.number("sigmas", "RotXYZ", i, 3))
        if beta is None or not self.restrain:
            return Uniform(low, high, start, "ranged", sigma)
        return Normal.from_beta(0.0, float(beta), low, high, start, "ranged", sigma)


def _cell(groups: _Groups, edge_perc: float, angle_deg: float, names: Sequence[str]) -> Cell | Fixed:
    if not edge_perc > 0 or not angle_deg > 0:
        raise InputError(f"ucell_edge_perc {edge_perc} and ucell_ang_abs {angle_deg} must be positive")
    restraints = {}
    for short in _CELL_NAMES:
        restraint = groups.restraint(f"ucell_{short}")
        if restraint is not None:
            unit = math.radians(1.0) if short in ("alpha", "beta", "gamma") else 1.0
            restraints[f"ucell_{short}"] = (restraint[0] * unit, restraint[1])
    if groups.number("fix", "ucell"):
        return Fixed()
    sigma = groups.groups["sigmas"].get("ucell")
    sigmas = dict(zip(names, (float(s) for s in sigma), strict=False)) if sigma is not None else {}
    return Cell(edge_perc, angle_deg, restraints=restraints, sigmas=sigmas)


def _volume(groups: _Groups, use_restraints: bool) -> Volume | None:
    restraint = groups.restraint("Nvol")
    return Volume(*restraint) if restraint is not None and use_restraints else None


def _panels(geometry: Group, motion: str, use_restraints: bool) -> Spec:
    """Rotations (degree in PHIL bounds) or translations (millimetre) of every panel group; centers are 0."""
    if not geometry.get("optimize"):
        return Fixed()
    key = f"panel_{motion}s"
    beta_key, unit = ("panel_rot", math.radians(1.0)) if motion == "rotation" else ("panel_xyz", 1e-3)

    def three(group: str, name: str, default: Any) -> Any:
        values = (geometry.get(group) or {}).get(name) or [default] * 3
        if len(values) != 3:
            raise InputError(f"geometry.{group}.{name}: expected 3 numbers, got {len(values)}")
        return values

    low, high, fixed = three("min", key, -1.0), three("max", key, 1.0), three("fix", key, False)
    beta = three("betas", beta_key, None)
    parts: list[Prior] = []
    for i in range(3):
        _check_order(f"geometry {key}", low[i], high[i])
        if beta[i] is not None:
            _check_beta(f"{beta_key} (geometry)", beta[i])
        if fixed[i]:
            parts.append(Fixed())
        elif beta[i] is None or not use_restraints:
            parts.append(Uniform(low[i] * unit, high[i] * unit))
        else:
            parts.append(Normal.from_beta(0.0, float(beta[i]), low[i] * unit, high[i] * unit, kind="ranged"))
    return tuple(parts)


def _check_order(name: str, low: float, high: float) -> None:
    if not low < high:
        raise InputError(f"{name}: minimum {low:g} is not below maximum {high:g}; exchange or widen them")


def _check_beta(name: str, beta: float) -> None:
    if not beta > 0:
        raise InputError(f"betas.{name} is a variance and must be positive, got {beta:g}")
