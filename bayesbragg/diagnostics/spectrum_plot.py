"""Spectra as they come and as they are used, over the photon energy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from bayesbragg.diagnostics.figure_style import INK, RUN_COLOURS, quiet
from bayesbragg.model import Spectrum

__all__ = ["spectra_figure"]

ROW_INCHES, MOST_ROWS = 1.7, 12


def spectra_figure(spectra: Sequence[tuple[str, Spectrum | None, Spectrum]]) -> Figure:
    """A row for each shot: share of the photons per electronvolt, in the file's spectrum and in the one that is used.

    Args:
        spectra: name, spectrum of the file or None, and spectrum that is used; the first dozen are drawn.
    """
    shown = spectra[:MOST_ROWS]
    figure = Figure(figsize=(7.0, 0.9 + ROW_INCHES * len(shown)), layout="constrained")
    for row, (name, raw, used) in enumerate(shown):
        axes = figure.add_subplot(len(shown), 1, row + 1)
        for label, spectrum, colour in (("file", raw, RUN_COLOURS[0]), ("used", used, RUN_COLOURS[1])):
            if spectrum is None:
                continue
            energy, photons = spectrum.energies_eV, spectrum.photons
            order = np.argsort(energy)
            energy, photons = energy[order], photons[order]
            if len(energy) == 1:
                axes.axvline(energy[0], color=colour, lw=1.5, label=f"{label}: one line")
                continue
            density = photons / photons.sum() / np.gradient(energy)
            style = "-" if label == "file" else "--"
            words = f"{label}: {len(energy)} channels, {photons.sum():.3g} photons"
            axes.plot(energy, density, style, color=colour, lw=1.2, label=words)
        axes.set_title(name, fontsize=9, color=INK, loc="left")
        axes.set_ylabel("share / eV")
        axes.set_ylim(bottom=0.0)
        axes.ticklabel_format(axis="x", useOffset=False)
        axes.legend(frameon=False, fontsize=8)
        quiet(axes)
        if row == len(shown) - 1:
            axes.set_xlabel("photon energy (eV)")
    return figure
