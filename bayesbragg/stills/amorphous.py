"""Background of air and water in the beam, from tabulated molecular scattering.

A layer of molecules with form factor F scatters r_e^2 F^2 P Omega n t photons per incident photon into a pixel, with
the polarization factor P, the solid angle Omega, n molecules per volume and the thickness t; absorption is left out. F
against sin(theta)/lambda is that of liquid water (with its ring near 3.2 angstrom) and of air, as the nanoBragg
programs tabulate it, interpolated linearly. Thicknesses are millimetre, results photons per pixel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from bayesbragg.forward import Options, Parameters, build_scene
from bayesbragg.forward.geometry import directions, full_direction, move_boxes, polarization, solid_angle
from bayesbragg.forward.scene import R_E_SQUARED_M2
from bayesbragg.model import Beam, Crystal, Detector, Spectrum, StructureFactors
from bayesbragg.stills.tiles import Tiles

__all__ = ["MEDIA", "Medium", "amorphous_background"]

FloatArray = npt.NDArray[np.float64]
AVOGADRO = 6.02214076e23


@dataclass(frozen=True)
class Medium:
    """Scattering of one kind of molecule.

    Attributes:
        stol: sin(theta)/lambda, 1/angstrom, rising.
        form_factor: electrons, at each of them.
        density_g_cm3: of the medium.
        molar_mass_g: of its molecules.
    """

    stol: tuple[float, ...]
    form_factor: tuple[float, ...]
    density_g_cm3: float
    molar_mass_g: float

    @property
    def molecules_per_m3(self) -> float:
        return self.density_g_cm3 * 1e6 / self.molar_mass_g * AVOGADRO


MEDIA: Mapping[str, Medium] = {
    "water": Medium(
        (0, 0.0365, 0.07, 0.12, 0.162, 0.18, 0.2, 0.216, 0.236, 0.28, 0.3, 0.345, 0.436, 0.5),
        (2.57, 2.58, 2.8, 5, 8, 7.32, 6.75, 6.75, 6.5, 4.5, 4.3, 4.36, 3.77, 3.17),
        1.0,
        18.0,
    ),
    "air": Medium((0, 0.045, 0.174, 0.35, 0.5), (14.1, 13.5, 8.35, 4.78, 4.22), 1.2e-3, 28.0),
}


def amorphous_background(detector: Detector, beam: Beam, flux: float, thickness_mm: Mapping[str, float]) -> FloatArray:
    """Photons that layers of media scatter into every pixel, flat ``(n_pixels,)``.

    Args:
        flux: photons of the shot.
        thickness_mm: thickness of each medium by its name in `MEDIA`.
    """
    layers = [(MEDIA[name], 1e-3 * t) for name, t in thickness_mm.items() if t > 0]
    tiles = Tiles.of_detector(detector)
    result = np.zeros(tiles.n_pixels)
    # The geometry of the forward model; what crystal there would be does not matter.
    nothing = StructureFactors(np.array([[1, 0, 0]]), np.zeros(1))
    crystal, spectrum = Crystal(10.0 * np.eye(3)), Spectrum.monochromatic(beam.wavelength_A)
    start = Parameters.start([10.0, 10.0, 10.0, *np.radians([90.0] * 3)])
    for shot, keep in tiles.shots() if layers else ():
        scene = build_scene(detector, beam, spectrum, [crystal], shot, nothing, start, Options())
        moved = move_boxes(scene.boxes, start.panels)
        half = jnp.asarray(0.5)
        point = directions(scene.boxes, moved, half, half, jnp.asarray(0.0))
        share = polarization(moved, point, scene.beam.k, scene.beam.polarization_normal, scene.beam.kahn)
        share = np.asarray(share * solid_angle(moved, point))
        u = np.stack([np.asarray(x) for x in full_direction(moved, point)], axis=-1)
        stol = np.linalg.norm(u - beam.direction, axis=-1) / (2.0 * beam.wavelength_A)
        photons = np.zeros(stol.shape)
        for medium, thickness in layers:
            F = np.interp(stol, medium.stol, medium.form_factor)
            photons += R_E_SQUARED_M2 * flux * medium.molecules_per_m3 * thickness * F * F
        tiles.put(result, photons * share, keep)
    return result
