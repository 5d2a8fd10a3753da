"""Rules that values must keep together: bounds in order, a center for each beta, sensible sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bayesbragg.model.errors import InputError

__all__ = ["check"]

_BOUNDED = ("Nabc", "Ndef", "RotXYZ", "G", "B", "eta_abc", "spec", "detz_shift", "diffuse_sigma", "diffuse_gamma")
# RotXYZ and the panels' parameters are missing here: their center is always 0.
_NEED_CENTER = (
    *("Nabc", "Ndef", "G", "B", "eta_abc", "spec", "detz_shift", "diffuse_sigma", "diffuse_gamma", "Nvol"),
    *("ucell_a", "ucell_b", "ucell_c", "ucell_alpha", "ucell_beta", "ucell_gamma"),
)
_POSITIVE = (
    "refiner.adu_per_photon",
    "simulator.beam.size_mm",
    "simulator.total_flux",
    "simulator.init_scale",
    "simulator.spectrum.stride",
    "simulator.spectrum.gauss_spec.fwhm",
    "simulator.spectrum.gauss_spec.nchannels",
    "simulator.spectrum.gauss_spec.res",
    "simulator.detector.thicksteps",
    "simulator.crystal.num_mosaicity_samples",
    "simulator.psf.fwhm",
    "downsamp_spec.delta_en",
    "downsamp_spec.filt_order",
    "roi.shoebox_size",
    "roi.background_threshold",
    "ucell_edge_perc",
    "ucell_ang_abs",
    "ftol",
    "number_of_xtals",
)
_NOT_NEGATIVE = (
    "refiner.sigma_r",
    "simulator.oversample",
    "simulator.psf.radius",
    "simulator.structure_factors.default_F",
    "roi.pad_shoebox_for_background_estimation",
    "diffuse_stencil_size",
)


def _shown(value: Any) -> str:
    """A value as one would write it."""
    return "None" if value is None else ",".join(f"{x:g}" for x in _list(value))


def _list(value: Any) -> list[float]:
    return list(value) if isinstance(value, Sequence) else [value]


def _check_bounds(parameters: Any, name: str) -> None:
    low, high = parameters.get(f"mins.{name}"), parameters.get(f"maxs.{name}")
    fixed = parameters.get(f"fix.{name}")
    for lo, hi in zip(_list(low), _list(high), strict=True):
        if lo > hi or (lo == hi and not fixed):
            raise InputError(
                f"mins.{name} = {_shown(low)} is not below maxs.{name} = {_shown(high)}; exchange or widen the bounds"
            )
    ranged = getattr(parameters.classic.types, name, "ranged") == "ranged"
    if not ranged or fixed or parameters.classic.best_pickle is not None:
        return
    for start, lo, hi in zip(_list(parameters.get(f"init.{name}")), _list(low), _list(high), strict=True):
        if not lo <= start <= hi:
            raise InputError(
                f"init.{name} = {_shown(parameters.get(f'init.{name}'))} lies outside its bounds {_shown(low)} to "
                f"{_shown(high)}; "
                f"change init.{name}, mins.{name} or maxs.{name}"
            )


def _check_restraint(parameters: Any, name: str) -> None:
    beta, center = parameters.get(f"betas.{name}"), parameters.get(f"centers.{name}")
    if beta is None:
        return
    if any(value <= 0 for value in _list(beta)):
        raise InputError(f"betas.{name} = {_shown(beta)}: a variance must be positive")
    if center is None:
        raise InputError(f"betas.{name} = {_shown(beta)} has no centers.{name}; give the center, or leave out the beta")


def _check_geometry(parameters: Any) -> None:
    geometry = parameters.classic.geometry
    for kind, beta in (("panel_rotations", "panel_rot"), ("panel_translations", "panel_xyz")):
        low, high = getattr(geometry.min, kind), getattr(geometry.max, kind)
        fixed = getattr(geometry.fix, kind)
        for lo, hi, fix in zip(low, high, fixed, strict=True):
            if lo > hi or (lo == hi and not fix):
                raise InputError(
                    f"geometry.min.{kind} = {_shown(low)} is not below geometry.max.{kind} = {_shown(high)}; exchange "
                    f"or widen the bounds, or set geometry.fix.{kind}"
                )
        if any(flag not in (0, 1) for flag in fixed):
            raise InputError(f"geometry.fix.{kind} = {_shown(fixed)}: expected 1 (fixed) or 0 for each of the three")
        if any(value <= 0 for value in getattr(geometry.betas, beta) or ()):
            shown = _shown(getattr(geometry.betas, beta))
            raise InputError(f"geometry.betas.{beta} = {shown}: a variance must be positive")


def check(parameters: Any) -> None:
    """Checks a `ResolvedParameters` for values that contradict each other.

    Raises:
        InputError: bounds out of order, a start outside them, a beta without its center (RotXYZ and panels need none),
            a size that must be positive; the message names the parameters and the values.
    """
    for name in _BOUNDED:
        _check_bounds(parameters, name)
    for name in _NEED_CENTER:
        _check_restraint(parameters, name)
    beta = parameters.classic.betas.RotXYZ
    if beta is not None and beta <= 0:
        raise InputError(f"betas.RotXYZ = {_shown(beta)}: a variance must be positive")
    _check_geometry(parameters)
    for name in (*_POSITIVE, *_NOT_NEGATIVE):
        value = parameters.get(name)
        if value is not None and (value < 0 or (value == 0 and name in _POSITIVE)):
            raise InputError(
                f"{name} = {_shown(value)}: must {'be positive' if name in _POSITIVE else 'not be negative'}"
            )
    anisotropic = parameters.classic.simulator.crystal.anisotropic_mosaicity
    if anisotropic is not None and len(anisotropic) not in (3, 6):
        raise InputError(f"simulator.crystal.anisotropic_mosaicity = {_shown(anisotropic)}: expected 3 or 6 numbers")
    ucell = parameters.classic.sigmas.ucell
    if not 1 <= len(ucell or [1]) <= 6:
        raise InputError(f"sigmas.ucell = {_shown(ucell)}: expected 1 to 6 numbers")
    sigmas = parameters.classic.restrain_cell_to_start
    if any(value <= 0 for value in sigmas or ()):
        raise InputError(f"restrain_cell_to_start = {_shown(sigmas)}: sigmas must be positive")
