"""What is static in the forward model: switches and counts, part of the compilation key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Options", "Spread"]

Spread = Literal["none", "isotropic", "anisotropic", "gaussian_isotropic", "gaussian_anisotropic", "gaussian_general"]


@dataclass(frozen=True)
class Options:
    """Switches of the forward model.

    Attributes:
        oversample: subpixels along each side of a pixel; the sum runs over its square.
        sensor_layers: layers of a thick sensor; 1 for a thin one.
        oversample_omega: evaluate the solid angle at every subpixel and layer (True) or once at the pixel's centre.
        polarization: include the polarization factor.
        block_scale: include det(N) in the lattice factor (False is the classic ``no_Nabc_scale``).
        spread: mosaic spread. The classic models have axes uniform on the sphere and a half-normal angle, of one width
            (isotropic) or one per cell axis (anisotropic); the Gaussian ones a normal rotation vector, with the same
            standard deviation about every axis, one about each of a, b, c, or any covariance (general).
        complex_factors: structure factors are complex, with anomalous scatterers per wavelength.
        diffuse: include diffuse scattering.
        diffuse_stencil: neighbouring reflections on each side that contribute to it.
        b_factor: the shot's Debye-Waller factor is in use.
        point_spread: blur the boxes by the scene's point-spread function.
        precision: floats of the per-pixel arrays; everything per box stays float64.
        mosaic_nodes: Gaussians that stand for the classic isotropic spread in closed form; 0 for as many as it needs.
    """

    oversample: int = 1
    sensor_layers: int = 1
    oversample_omega: bool = True
    polarization: bool = True
    block_scale: bool = True
    spread: Spread = "none"
    complex_factors: bool = False
    diffuse: bool = False
    diffuse_stencil: int = 0
    b_factor: bool = False
    point_spread: bool = False
    precision: Literal["float64", "float32"] = "float64"
    mosaic_nodes: int = 0

    def __post_init__(self) -> None:
        if self.oversample < 1 or self.sensor_layers < 1:
            raise ValueError(
                f"oversample ({self.oversample}) and sensor_layers ({self.sensor_layers}) must be 1 or more"
            )
        if self.diffuse and self.complex_factors:
            raise ValueError("diffuse scattering with complex structure factors is not defined")
