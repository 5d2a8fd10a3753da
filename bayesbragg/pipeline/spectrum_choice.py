"""Which spectrum a shot is modelled with: a file of its own, one that the image holds, a Gaussian, or one line."""

from __future__ import annotations

from pathlib import Path

from bayesbragg.io.spectra import read_lam
from bayesbragg.model import Experiment, Spectrum
from bayesbragg.model.errors import InputError
from bayesbragg.model.image import Image
from bayesbragg.model.spectra import gaussian_spectrum
from bayesbragg.pipeline.settings import SpectrumSettings
from bayesbragg.stills.spectrum import downsample_spectrum

__all__ = ["spectrum_of"]


def spectrum_of(
    image: Image, experiment: Experiment, file: Path | None, settings: SpectrumSettings
) -> tuple[Spectrum, str]:
    """The shot's spectrum and where it came from: its own file first, then what the settings say.

    Args:
        image: holds the spectrum if the settings ask for that of the image file.
        experiment: its beam has the wavelength of a spectrum that is made.
        file: the shot's own spectrum file (``.lam``).

    Returns:
        The spectrum, and a few words for the log.

    Raises:
        InputError: an image file without the spectrum that was asked for, or a spectrum file that cannot be read.
    """
    path = file or (settings.path if settings.source == "file" else None)
    if path is not None:
        spectrum = read_lam(path, None, settings.stride)
        return spectrum, f"{path.name} ({spectrum.n_channels} channels)"
    wavelength = experiment.beam.wavelength_A
    if settings.source == "gaussian":
        spectrum = gaussian_spectrum(
            wavelength, settings.fwhm_eV, settings.n_channels, settings.resolution_eV, settings.total_flux
        )
        return spectrum, f"Gaussian of {settings.fwhm_eV:g} eV ({spectrum.n_channels} channels)"
    if settings.source == "image":
        if image.spectrum is None:
            raise InputError("spectrum_from_imageset=True, but the image file holds no spectrum; set it to False")
        if not settings.downsample:
            return image.spectrum, f"image file ({image.spectrum.n_channels} channels)"
        spectrum = downsample_spectrum(
            image.spectrum,
            filt_freq=settings.filt_freq,
            filt_order=settings.filt_order,
            tail=settings.tail,
            delta_en=settings.delta_en,
            stride=settings.stride,
            flux=settings.total_flux,
        )
        return spectrum, f"image file, down-sampled to {spectrum.n_channels} channels"
    return Spectrum.monochromatic(wavelength, settings.total_flux), f"monochromatic, {wavelength:.5f} A"
