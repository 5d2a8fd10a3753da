"""Likelihoods, the one log density, and the ways to look at it."""

from bayesbragg.inference.density import LogDensity, Pixels
from bayesbragg.inference.map import MapOptions, fit_many, fit_map

__all__ = ["LogDensity", "MapOptions", "Pixels", "fit_many", "fit_map"]
