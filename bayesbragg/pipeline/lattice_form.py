"""Which lattice sum a still is fitted with: the closed form where it stands for the exact sum, else the exact sum.

The choice and its reason are part of every result. Before a fit only the options decide; where it ends the error of the
closed form is estimated, and one that is not small against the pixels' noise and the brightest pixel sends the fit on
with the exact sum.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from bayesbragg.forward import Options, Parameters, Scene, expected_photons
from bayesbragg.forward.approximation import approximation_error
from bayesbragg.forward.candidates import Margin, closed_holds, prepare_closed
from bayesbragg.forward.closed import ClosedScene, closed_photons
from bayesbragg.forward.closed_support import closed_unavailable
from bayesbragg.inference.density import LogDensity
from bayesbragg.inference.likelihood import LikelihoodName
from bayesbragg.inference.pixels import Pixels
from bayesbragg.model.errors import InputError
from bayesbragg.priors import Layout

__all__ = ["ForwardName", "LatticeForm", "choose_form", "form_density", "form_holds", "judged"]

ForwardName = Literal["auto", "closed", "exact"]

WIDE = Margin(block=0.5)
"""Blocks may change by a factor of two before lists of reflections are made anew."""


@dataclass(frozen=True)
class LatticeForm:
    """The lattice sum of a fit.

    Attributes:
        name: closed or exact.
        reason: why, in a line.
        of_noise: estimated error where the fit ended, in standard deviations of a pixel's noise; 0 for the exact sum,
            not a number before it was estimated.
        of_peak: the same relative to the brightest pixel.
    """

    name: Literal["closed", "exact"]
    reason: str
    of_noise: float = 0.0
    of_peak: float = 0.0

    @property
    def closed(self) -> bool:
        return self.name == "closed"


def choose_form(wanted: ForwardName, options: Options) -> LatticeForm:
    """What a fit begins with.

    Raises:
        InputError: the closed form was asked for and these options have none.
    """
    if wanted == "exact":
        return LatticeForm("exact", "asked for")
    missing = closed_unavailable(options)
    if missing is not None:
        if wanted == "closed":
            raise InputError(f"forward=closed: {missing}; set forward=auto or forward=exact")
        return LatticeForm("exact", missing)
    return LatticeForm("closed", "asked for" if wanted == "closed" else "available", np.nan, np.nan)


def form_density(
    form: LatticeForm,
    scene: Scene,
    parameters: Parameters,
    options: Options,
    pixels: Pixels,
    layout: Layout,
    base: Parameters,
    likelihood: LikelihoodName,
) -> LogDensity:
    """The log density with that lattice sum; lists of reflections are laid around ``parameters``."""
    if not form.closed:
        return LogDensity(expected_photons, scene, options, pixels, layout, base, likelihood)
    closed = prepare_closed(parameters, scene, options, WIDE)
    return LogDensity(closed_photons, closed, options, pixels, layout, base, likelihood)


def form_holds(form: LatticeForm, parameters: Parameters, density: LogDensity, options: Options) -> bool:
    """Whether a density has that lattice sum, with lists of reflections that serve at these parameters."""
    scene = density.problem.scene
    if not isinstance(scene, ClosedScene):
        return not form.closed
    return form.closed and closed_holds(parameters, scene, options)


def judged(
    form: LatticeForm, wanted: ForwardName, parameters: Parameters, density: LogDensity, options: Options
) -> LatticeForm:
    """The form with its error where a fit ended; the exact sum where that error is too large and the choice is ours."""
    scene, pixels = density.problem.scene, density.problem.pixels
    if not isinstance(scene, ClosedScene):
        return form
    variance = np.maximum(np.asarray(pixels.background), 0.0) + np.asarray(pixels.variance)
    error = approximation_error(parameters, scene, options, variance, np.asarray(pixels.trusted))
    said = f"{error.of_noise:.2g} of the noise and {error.of_peak:.2g} of the peak"
    if wanted == "auto" and not error.small:
        return LatticeForm("exact", f"the closed form was wrong by {said}")
    return replace(form, reason=f"{form.reason}; wrong by {said}", of_noise=error.of_noise, of_peak=error.of_peak)
