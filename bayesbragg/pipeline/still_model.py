"""The forward model of one still: switches and scene from its settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bayesbragg.forward import Options, Parameters, Scene, build_scene
from bayesbragg.forward.diffuse import DiffuseModel
from bayesbragg.forward.psf import fibre_kernel
from bayesbragg.io.symmetry import laue_rotations
from bayesbragg.model import Crystal, Detector, Shot, Spectrum, StructureFactors
from bayesbragg.pipeline.settings import ModelSettings
from bayesbragg.pipeline.still import Still
from bayesbragg.priors import Layout
from bayesbragg.stills.oversampling import automatic_oversample

__all__ = ["model_options", "options_for", "scene_arguments", "still_scene"]

FloatArray = npt.NDArray[np.float64]


def model_options(model: ModelSettings, base: Parameters, still: Still, layout: Layout) -> Options:
    """Static switches; subpixels are chosen here where the settings leave that open."""
    uses_b = any(site.prior == "B" for site in layout.sites)
    return options_for(model, base, still.detector, still.spectrum, uses_b=uses_b)


def options_for(
    model: ModelSettings, base: Parameters, detector: Detector, spectrum: Spectrum, *, uses_b: bool = False
) -> Options:
    """Static switches for parameters on a detector; `uses_b` says that a fit varies the Debye-Waller factor."""
    oversample = model.oversample
    if oversample == 0:
        panel = int(np.argmin(np.linalg.norm(detector.origin_mm, axis=1)))
        distance = float(np.dot(detector.origin_mm[panel], detector.normal[panel]))
        oversample = automatic_oversample(
            base.mosaic.n_abc.max(axis=0),
            base.crystal.cell[:3],
            spectrum.mean_wavelength_A,
            distance,
            float(detector.pixel_size_mm[panel, 0]),
        )
    spread: str = "none"
    if model.n_mosaic > 1:
        spread = "isotropic" if model.isotropic_spread else "anisotropic"
        if model.spread != "classic":
            spread = "gaussian_general" if model.spread == "general" else f"gaussian_{spread}"
    uses_b = uses_b or float(base.scale.b_factor_A2) != 0.0
    return Options(
        oversample=oversample,
        sensor_layers=1 if model.thin_sensor else model.sensor_layers,
        block_scale=model.block_scale,
        spread=spread,  # type: ignore[arg-type]
        diffuse=model.diffuse,
        diffuse_stencil=model.diffuse_stencil if model.diffuse else 0,
        b_factor=uses_b,
        point_spread=model.psf_fwhm_um is not None,
        precision=model.precision,
    )


def still_scene(
    still: Still,
    crystals: Sequence[Crystal],
    shot: Shot,
    factors: StructureFactors,
    base: Parameters,
    options: Options,
    model: ModelSettings,
) -> Scene:
    """Everything about a still that a fit does not vary, for its boxes.

    Args:
        shot: the boxes, padded to a bucket.
        base: parameters around which structure factors are looked up.
    """
    detector, spectrum = still.detector, still.spectrum
    kernel = None
    if model.psf_fwhm_um is not None:
        kernel = fibre_kernel(model.psf_fwhm_um, float(detector.pixel_size_mm[0, 0]) * 1e3, model.psf_radius)
    rotations = laue_rotations(crystals[0].space_group_number) if options.diffuse else None
    return build_scene(
        detector,
        still.experiments[0].beam,
        Spectrum(spectrum.wavelengths_A, spectrum.photons * model.init_scale),
        crystals,
        shot,
        factors,
        base,
        options,
        kernel=kernel,
        **scene_arguments(detector, options, model, rotations),
    )


def scene_arguments(
    detector: Detector, options: Options, model: ModelSettings, rotations: FloatArray | None
) -> dict[str, Any]:
    """What `bayesbragg.forward.build_scene` is told besides: beam size, polarization, spread, diffuse model, sensor.

    Args:
        rotations: of the Laue group acting on Miller indices, ``(n, 3, 3)``; diffuse scattering needs them.
    """
    thick, attenuation = _sensor(detector, model)
    diffuse = None
    if options.diffuse:
        used = rotations if rotations is not None and model.symmetrize_diffuse else np.eye(3)[None]
        diffuse = DiffuseModel(used @ _principal_axes(model.diffuse_orientation))
    return {
        "beam_size_mm": model.beam_size_mm,
        "kahn_factor": 1.0 if model.kahn == "classic" else None,
        "n_mosaic": model.n_mosaic,
        "mosaic_seed": model.seed,
        "diffuse": diffuse,
        "thickstep_mm": thick / max(options.sensor_layers - 1, 1),
        "attenuation_length_mm": attenuation,
    }


def _sensor(detector: Detector, model: ModelSettings) -> tuple[float, float]:
    """Thickness and attenuation length, millimetre; zeros for a thin sensor."""
    if model.thin_sensor:
        return 0.0, 0.0
    thick = float(detector.thickness_mm[0]) if model.thick_mm is None else model.thick_mm
    mu = float(detector.attenuation_per_mm[0])
    attenuation = (1.0 / mu if mu > 0 else 0.0) if model.attenuation_mm is None else model.attenuation_mm
    return thick, attenuation


def _principal_axes(orientation: int) -> FloatArray:
    """Axes of the diffuse model: 1 along a, b, c; 0 along a - b, a + b, c."""
    if orientation == 1:
        return np.eye(3)
    r = np.sqrt(0.5)
    return np.array([[r, -r, 0.0], [r, r, 0.0], [0.0, 0.0, 1.0]])
