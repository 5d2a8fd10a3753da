"""What is believed before the pixels are seen: one readable object per parameter, in a tree that mirrors `Parameters`.

    Priors(
        RotXYZ=Normal(0, 0.001),          # radian: mean and standard deviation
        cell=Cell(edge_sd=0.1),           # restrained to the starting cell
        Nabc=Uniform(3, 300),             # flat inside bounds
        G=Positive(),                     # flat, searched on a logarithmic scale
    )

A parameter that is not named stays fixed. Units are those of `Parameters`: radian, angstrom, metre, degree for the
mosaic spread. A prior given once holds for every component; a tuple gives one per component (``Fixed()`` among them
keeps that component). `Shared(prior)` ties all components to one number, as for isotropic blocks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from bayesbragg.model.errors import InputError
from bayesbragg.priors.parameter import Kind, Parameter

__all__ = ["Cell", "Fixed", "Normal", "Positive", "Prior", "Priors", "Shared", "Uniform", "Volume"]


@dataclass(frozen=True)
class Fixed:
    """Not varied. ``value`` replaces the starting value."""

    value: float | None = None

    def parameter(self, start: float) -> Parameter:
        return Parameter(start if self.value is None else self.value, fixed=True)


@dataclass(frozen=True)
class Uniform:
    """Flat between two bounds; ``start`` replaces the starting value, ``kind`` the transform of the coordinate."""

    low: float
    high: float
    start: float | None = None
    kind: Kind = "ranged"
    sigma: float = 1.0

    def parameter(self, start: float) -> Parameter:
        value = start if self.start is None else self.start
        return Parameter(value, self.kind, self.low, self.high, self.sigma)


@dataclass(frozen=True)
class Normal:
    """Normal with a mean and a standard deviation, inside bounds (not normalised for them, as in the classic target).

    ``center=None`` restrains to the starting value. `Normal.from_beta` takes the classic variance.
    """

    center: float | None
    sd: float
    low: float = -math.inf
    high: float = math.inf
    start: float | None = None
    kind: Kind | None = None
    sigma: float = 1.0
    beta: float | None = None

    @classmethod
    def from_beta(
        cls,
        center: float | None,
        beta: float,
        low: float = -math.inf,
        high: float = math.inf,
        start: float | None = None,
        kind: Kind | None = None,
        sigma: float = 1.0,
    ) -> Normal:
        """The classic restraint: ``beta`` is a variance."""
        sd = math.sqrt(beta) if beta > 0 else math.nan
        return cls(center, sd, low, high, start, kind, sigma, beta)

    def parameter(self, start: float) -> Parameter:
        value = start if self.start is None else self.start
        bounded = math.isfinite(self.low) and math.isfinite(self.high)
        kind: Kind = self.kind or ("ranged" if bounded else "normal")
        center = value if self.center is None else self.center
        beta = self.sd**2 if self.beta is None else self.beta
        return Parameter(value, kind, self.low, self.high, self.sigma, center, beta)


@dataclass(frozen=True)
class Positive:
    """A positive number, flat or with a normal restraint on the number itself; searched on a logarithmic scale."""

    start: float | None = None
    center: float | None = None
    sd: float | None = None
    low: float = 0.0
    high: float = math.inf
    sigma: float = 1.0

    def parameter(self, start: float) -> Parameter:
        beta = None if self.sd is None else self.sd**2
        value = start if self.start is None else self.start
        return Parameter(value, "positive", self.low, self.high, self.sigma, self.center, beta)


Prior = Fixed | Uniform | Normal | Positive


@dataclass(frozen=True)
class Shared:
    """One number for all components, such as isotropic blocks: ``Nabc=Shared(Uniform(3, 300))``."""

    prior: Prior


@dataclass(frozen=True)
class Cell:
    """Prior of the free cell parameters, around the starting cell.

    Attributes:
        edge_percent, angle_deg: bounds: per cent of each length, degrees on each angle.
        edge_sd, angle_sd_deg: standard deviation of a restraint to the starting cell, angstrom and degree, or None.
        priors: priors of single free parameters by name (``ucell_a`` ... angstrom; ``ucell_beta`` ... **radian**),
            which replace all of the above for that parameter.
        sigmas: sensitivities of the coordinates, by name.
        restraints: mean (angstrom or radian) and variance by name, inside the bounds above; they replace the ``sd``.
    """

    edge_percent: float = 10.0
    angle_deg: float = 5.0
    edge_sd: float | None = None
    angle_sd_deg: float | None = None
    priors: Mapping[str, Prior] = field(default_factory=dict)
    sigmas: Mapping[str, float] = field(default_factory=dict)
    restraints: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def parameter(self, name: str, start: float, angle: bool) -> Parameter:
        """The prior of one free cell parameter that starts at ``start`` (angstrom or radian)."""
        if name in self.priors:
            return self.priors[name].parameter(start)
        reach = math.radians(self.angle_deg) if angle else abs(start) * self.edge_percent / 100.0
        sd = self.edge_sd
        if angle:
            sd = None if self.angle_sd_deg is None else math.radians(self.angle_sd_deg)
        center, beta = (None, None) if sd is None else (start, sd**2)
        if name in self.restraints:
            center, beta = self.restraints[name]
        return Parameter(start, "ranged", start - reach, start + reach, self.sigmas.get(name, 1.0), center, beta)


@dataclass(frozen=True)
class Volume:
    """Restraint of the number of cells in a block, 1/2 (center - det N)^2 / beta, with beta a variance."""

    center: float
    beta: float

    def __post_init__(self) -> None:
        if not (self.beta > 0 and math.isfinite(self.center)):
            raise InputError(f"Nvol: center {self.center} must be finite and beta {self.beta} positive (a variance)")


Spec = Prior | Shared | tuple[Prior, ...]


@dataclass(frozen=True)
class Priors:
    """The prior of every parameter; the names are those of the classic PHIL.

    Attributes:
        RotXYZ: misorientation about x, y, z of each lattice, radian.
        cell: free cell parameters.
        Nabc, Ndef: block size along a, b, c and its off-diagonal terms, cells; the same for all lattices of a shot
            unless ``per_lattice_blocks``.
        eta_abc: mosaic spread, degree.
        eta_def: what the general spread has beside it, degree.
        G: scale factor of each lattice.
        B: Debye-Waller factor of the shot, angstrom^2.
        detz_shift: shift of the detector along z, metre.
        lambda_offset, lambda_scale: correction of the wavelengths, angstrom and 1.
        diffuse_gamma, diffuse_sigma: diffuse scattering, angstrom.
        panel_rotation: O, F, S angles of each panel group, radian.
        panel_translation: X, Y, Z shifts of each panel group, metre.
        Nvol: restraint of the block volume, or None.
    """

    RotXYZ: Spec = Fixed()
    cell: Cell | Fixed = Fixed()
    Nabc: Spec = Fixed()
    Ndef: Spec = Fixed()
    eta_abc: Spec = Fixed()
    eta_def: Spec = Fixed()
    G: Spec = Fixed()
    B: Spec = Fixed()
    detz_shift: Spec = Fixed()
    lambda_offset: Spec = Fixed()
    lambda_scale: Spec = Fixed()
    diffuse_gamma: Spec = Fixed()
    diffuse_sigma: Spec = Fixed()
    panel_rotation: Spec = Fixed()
    panel_translation: Spec = Fixed()
    Nvol: Volume | None = None
    per_lattice_blocks: bool = False

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, list):
                object.__setattr__(self, item.name, tuple(value))
                value = tuple(value)
            if item.name in ("cell", "Nvol", "per_lattice_blocks"):
                continue
            parts = value if isinstance(value, tuple) else (value,)
            for part in parts:
                if not isinstance(part, (Fixed, Uniform, Normal, Positive, Shared)):
                    raise InputError(
                        f"prior of {item.name}: expected Fixed, Uniform, Normal, Positive or Shared, got {part!r}"
                    )
