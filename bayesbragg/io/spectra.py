"""Spectra in ``.lam`` files (as Precognition reads them): two columns, wavelength in angstrom and weight.

The classic program writes a first line ``# wavelengths, weights`` and commas; columns parted by blanks, and files
without a title, are read too. Weights are photons unless the total is given.
"""

from __future__ import annotations

import os

import numpy as np

from bayesbragg.io.files import read_bytes, write_bytes
from bayesbragg.model.beam import Spectrum
from bayesbragg.model.errors import InputError

__all__ = ["read_lam", "write_lam"]

WHAT = "spectrum (.lam, two columns: wavelength in angstrom, weight)"


def read_lam(path: str | os.PathLike[str], total_flux: float | None = None, stride: int = 1) -> Spectrum:
    """The spectrum of a ``.lam`` file.

    Args:
        path: the file.
        total_flux: photons in all, to which the weights are scaled after striding; None takes the weights as photons.
        stride: take every n-th channel, the first included.

    Raises:
        InputError: missing or malformed file, a stride beyond the number of channels, or weights that are no spectrum.
    """
    text = read_bytes(path, WHAT).decode("utf-8", "replace")
    rows: list[tuple[float, float]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        content = line.split("#", 1)[0].replace(",", " ").split()
        if not content:
            continue
        try:
            wavelength, weight = (float(x) for x in content)
        except ValueError:
            if number == 1:
                continue
            raise InputError(f"{path}: line {number} is {line.strip()[:60]!r}; expected a {WHAT}") from None
        rows.append((wavelength, weight))
    if not rows:
        raise InputError(f"{path}: no channels; expected a {WHAT}")
    if not 1 <= stride <= len(rows):
        raise InputError(f"{path}: a stride of {stride} over {len(rows)} channels; give 1 to {len(rows)}")
    values = np.array(rows)[::stride]
    try:
        spectrum = Spectrum(values[:, 0], values[:, 1])
        return spectrum if total_flux is None else spectrum.with_flux(total_flux)
    except ValueError as error:
        raise InputError(f"{path}: {error}; expected a {WHAT}") from None


def write_lam(spectrum: Spectrum, path: str | os.PathLike[str]) -> None:
    """Write a ``.lam`` file that the classic program reads, atomically; numbers keep every digit."""
    lines = ["# wavelengths, weights"]
    lines += [f"{w:.18e},{p:.18e}" for w, p in zip(spectrum.wavelengths_A, spectrum.photons, strict=True)]
    write_bytes(path, ("\n".join(lines) + "\n").encode())
