"""Everything that decides a refinement, as frozen values that own their defaults. PHIL maps onto them one to one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from bayesbragg.inference.likelihood import LikelihoodName
from bayesbragg.inference.map import MapOptions
from bayesbragg.pipeline.lattice_form import ForwardName
from bayesbragg.priors import Cell, Fixed, Positive, Priors, Shared, Uniform
from bayesbragg.stills.boxes import BoxSettings

__all__ = [
    "CountSettings",
    "FactorSettings",
    "ModelSettings",
    "PosteriorSettings",
    "RefineSettings",
    "SpectrumSettings",
    "StartValues",
    "default_priors",
]


@dataclass(frozen=True)
class CountSettings:
    """From raw values to photons.

    Attributes:
        gain: detector units (ADU) per photon.
        sigma_readout_adu: standard deviation of the readout noise, detector units.
        sigma_gain: relative calibration error of a pixel's gain (standard deviation).
        outlier_fraction: of the pixels that show something else than the model; 0 for none.
        mask: file of good pixels (True = good), or None.
        hot_pixels: file of bad pixels (True = bad), or None.
        dark_rms: take the readout noise of each pixel from the image file.
        from_shoeboxes: take pixels from the shoeboxes of the reflection table instead of the image.
        shoeboxes_in_photons: the shoeboxes hold photons, not detector units.
    """

    gain: float = 1.0
    sigma_readout_adu: float = 3.0
    sigma_gain: float = 0.0
    outlier_fraction: float = 0.0
    mask: Path | None = None
    hot_pixels: Path | None = None
    dark_rms: bool = False
    from_shoeboxes: bool = False
    shoeboxes_in_photons: bool = False


@dataclass(frozen=True)
class SpectrumSettings:
    """Where the spectrum comes from.

    Attributes:
        source: one channel at the nominal wavelength, the image file, a Gaussian, or a ``.lam`` file.
        path: the ``.lam`` file, where the shot names none of its own.
        total_flux: photons per shot where the source does not tell, photons.
        downsample: smooth and thin a measured spectrum (see ``docs/spectra.md``).
        filt_freq, filt_order, tail, delta_en: settings of that.
        stride: keep every n-th channel of a file.
        fwhm_eV, n_channels, resolution_eV: the Gaussian.
    """

    source: Literal["nominal", "image", "gaussian", "file"] = "nominal"
    path: Path | None = None
    total_flux: float = 1e12
    downsample: bool = False
    filt_freq: float = 0.07
    filt_order: int = 3
    tail: int = 50
    delta_en: float = 0.5
    stride: int = 1
    fwhm_eV: float = 10.0
    n_channels: int = 20
    resolution_eV: float = 1.0


@dataclass(frozen=True)
class FactorSettings:
    """Where the structure factors come from.

    Attributes:
        intensities: ``known`` from one of the sources below, or one unknown number per reflection with Wilson's prior
            (``wilson``), which needs none.
        sigma_intensity: relative error of known intensities (standard deviation); 0 for exact ones.
        mtz: MTZ file; columns: its labels, such as ``I(+),SIGI(+),I(-),SIGI(-)``.
        pdb: coordinates to compute them from, where there is no MTZ.
        d_min, d_max: resolution limits of computed ones, angstrom.
        k_sol, b_sol: bulk solvent of computed ones (e/angstrom^3, angstrom^2).
        anomalous: include anomalous scattering in computed ones.
        default_F: amplitude of reflections outside the list, electrons.
        space_group: replaces the crystal's own, or None.
    """

    intensities: Literal["known", "wilson"] = "known"
    sigma_intensity: float = 0.0
    mtz: Path | None = None
    columns: str | None = None
    pdb: Path | None = None
    d_min: float = 1.0
    d_max: float | None = None
    k_sol: float | None = None
    b_sol: float | None = None
    anomalous: bool = True
    default_F: float = 0.0
    space_group: str | None = None


@dataclass(frozen=True)
class ModelSettings:
    """The forward model.

    Attributes:
        oversample: subpixels along each side of a pixel; 0 chooses by the width of the spots.
        beam_size_mm: side of the beam, millimetre.
        kahn: polarization from the experiment, or the classic program's Kahn factor of 1.
        init_scale: factor on the whole model.
        block_scale: the number of cells of a block enters the intensity.
        n_mosaic: orientations that sample the mosaic spread; 1 for none.
        isotropic_spread: one mosaic spread for a, b and c.
        spread: the classic distributions of rotations, normal ones, or a normal one of any covariance (``general``).
        thin_sensor: treat the sensor as thin.
        thick_mm, attenuation_mm: sensor thickness and attenuation length instead of the file's, millimetre.
        sensor_layers: layers of a thick sensor.
        diffuse: add diffuse scattering, with stencil, Laue symmetry, axes (1: a, b, c; 0: a - b, a + b, c).
        psf_fwhm_um: width of the point-spread function, micrometre; None for none.
        psf_radius: half side of its kernel, pixels.
        precision: floats of the per-pixel arithmetic.
        forward: closed forms of the lattice sum where they stand for the exact one (``auto``), always, or never.
        seed: of the mosaic sample.
    """

    oversample: int = 0
    beam_size_mm: float = 0.001
    kahn: Literal["experiment", "classic"] = "experiment"
    init_scale: float = 1.0
    block_scale: bool = True
    n_mosaic: int = 1
    isotropic_spread: bool = False
    spread: Literal["classic", "gaussian", "general"] = "classic"
    thin_sensor: bool = True
    thick_mm: float | None = None
    attenuation_mm: float | None = None
    sensor_layers: int = 1
    diffuse: bool = False
    diffuse_stencil: int = 0
    symmetrize_diffuse: bool = True
    diffuse_orientation: int = 1
    psf_fwhm_um: float | None = None
    psf_radius: int = 7
    precision: Literal["float64", "float32"] = "float64"
    forward: ForwardName = "auto"
    seed: int = 0


@dataclass(frozen=True)
class StartValues:
    """Where a fit starts, unless a table of an earlier run says otherwise. Units as in `Parameters`."""

    rot_xyz: tuple[float, float, float] = (0.0, 0.0, 0.0)
    n_abc: tuple[float, float, float] = (15.0, 15.0, 15.0)
    n_def: tuple[float, float, float] = (0.0, 0.0, 0.0)
    eta_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)
    eta_def_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)
    G: float = 1.0
    b_factor_A2: float = 0.0
    lambda_offset_A: float = 0.0
    lambda_scale: float = 1.0
    detz_m: float = 0.0
    diffuse_gamma_A: tuple[float, float, float] = (1.0, 1.0, 1.0)
    diffuse_sigma_A: tuple[float, float, float] = (0.01, 0.01, 0.01)


def default_priors(*, isotropic_blocks: bool = False) -> Priors:
    """What a shot's fit varies by default: orientation, cell, blocks and scale, flat inside generous bounds."""
    blocks = Uniform(3.0, 300.0)
    return Priors(
        RotXYZ=Uniform(-0.26, 0.26, sigma=1e-3),
        cell=Cell(),
        Nabc=Shared(blocks) if isotropic_blocks else blocks,
        Ndef=Fixed(),
        G=Positive(),
    )


@dataclass(frozen=True)
class PosteriorSettings:
    """What is told of a posterior beside its best fit.

    Attributes:
        inference: nothing (``map``), a Gaussian about the best fit (``laplace``), or Markov chains (``nuts``; or
            ``hmc``, whose paths of a quarter of a period take fewer gradients where the Gaussian is nearly right).
        draws: of Laplace, the draws whose weights correct and check the Gaussian, 0 for none; of NUTS, those of each
            chain, 0 for 500.
        chains, warmup: of NUTS.
        target_accept: of NUTS; 0 for what suits the bounds.
        exact_hessian: of corrected Laplace: the exact second derivative in place of the expected one.
    """

    inference: Literal["map", "laplace", "nuts", "hmc"] = "laplace"
    draws: int = 0
    chains: int = 4
    warmup: int = 75
    target_accept: float = 0.0
    exact_hessian: bool = False

    @property
    def samples(self) -> bool:
        """Whether Markov chains are asked for."""
        return self.inference in ("nuts", "hmc")


@dataclass(frozen=True)
class RefineSettings:
    """All settings of `refine`.

    Attributes:
        counts, boxes, spectrum, factors, model, start: see their classes.
        background: planes by Poisson likelihood (``poisson``), the classic ones (``classic``), or planes that are
            inferred with the rest, with a prior from the pixels around the box (``inferred``).
        likelihood: of a pixel.
        priors: what varies, and what is believed of it.
        fit: how the optimum is searched.
        posterior: error bars.
        min_boxes: a shot with fewer boxes is not fitted.
        min_expected: boxes of which the fit expects fewer Bragg photons are left out, and the rest is fitted again.
        max_lattices: lattices that are modelled together on a shot; None for all.
        keep_unpredicted: keep reflections to which the model gives no photon in the output table.
        modelers: also write pixels, settings and spectrum of each shot.
        seed: of all random numbers.
    """

    counts: CountSettings = field(default_factory=CountSettings)
    boxes: BoxSettings = field(default_factory=BoxSettings)
    spectrum: SpectrumSettings = field(default_factory=SpectrumSettings)
    factors: FactorSettings = field(default_factory=FactorSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    start: StartValues = field(default_factory=StartValues)
    background: Literal["poisson", "classic", "inferred"] = "poisson"
    likelihood: LikelihoodName = "gaussian"
    priors: Priors = field(default_factory=default_priors)
    fit: MapOptions = field(default_factory=MapOptions)
    posterior: PosteriorSettings = field(default_factory=PosteriorSettings)
    min_boxes: int = 5
    min_expected: float = 0.0
    max_lattices: int | None = None
    keep_unpredicted: bool = False
    modelers: bool = False
    seed: int = 0
