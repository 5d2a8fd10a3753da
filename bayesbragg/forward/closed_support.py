"""What the closed forms can do: the reason, in words, where they cannot stand for the exact sum.

In closed form: any spectrum with its correction, no spread, the classic isotropic and both Gaussian spreads, subpixels,
thick sensors, several lattices, structure factors of each box's window, the Debye-Waller factor, point spread, moving
panels, float32. All of these but the lattice sum are shared with the exact sum.
"""

from __future__ import annotations

from bayesbragg.forward.options import Options

__all__ = ["check_closed", "closed_unavailable"]


def closed_unavailable(options: Options) -> str | None:
    """Why `closed_photons` cannot serve these options, as a clause to put behind "because"; None where it can."""
    if options.complex_factors:
        return "structure factors that change with the wavelength (complex_factors) have no closed form"
    if options.diffuse:
        return "diffuse scattering has no closed form"
    if options.spread == "anisotropic":
        return "the classic anisotropic mosaic spread has no closed form (gaussian_anisotropic has one)"
    return None


def check_closed(options: Options) -> None:
    """Raises ValueError, with `closed_unavailable`'s reason, where there is no closed form."""
    reason = closed_unavailable(options)
    if reason is not None:
        raise ValueError(f"{reason}: use the exact sum")
