"""One still with everything that a refinement reads, as values in memory. Nothing here knows about files."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bayesbragg.model import Crystal, Detector, Experiment, Reflections, Spectrum

__all__ = ["Still"]


@dataclass(frozen=True, eq=False)
class Still:
    """One shot: its lattices, reflections, pixels and spectrum.

    Attributes:
        tag: name of the shot in outputs.
        experiments: one per lattice; they share detector and beam.
        reflections: their rows; column ``id`` is the number of the lattice.
        panels: raw values of each panel, ``(n_slow, n_fast)``.
        spectrum: photons per channel.
        mask: True for good pixels, by panel, or None.
        dark_rms_adu: readout noise of each pixel by panel, detector units, or None.
        source: files that it came from, for the record.
        spectrum_name: where the spectrum came from, in words.
    """

    tag: str
    experiments: tuple[Experiment, ...]
    reflections: Reflections
    panels: tuple[npt.NDArray[np.generic], ...]
    spectrum: Spectrum
    mask: tuple[npt.NDArray[np.bool_], ...] | None = None
    dark_rms_adu: tuple[npt.NDArray[np.float64], ...] | None = None
    source: tuple[str, ...] = ()
    spectrum_name: str = "nominal wavelength"

    @property
    def detector(self) -> Detector:
        return self.experiments[0].detector

    @property
    def crystals(self) -> tuple[Crystal, ...]:
        """The lattices' crystals; a still is indexed."""
        return tuple(e.crystal for e in self.experiments if e.crystal is not None)
