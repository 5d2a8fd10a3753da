"""Bounds, restraints and unit-cell constraints: what may vary, and what is believed of it beforehand."""

from bayesbragg.priors.cell import CellConstraint
from bayesbragg.priors.classic import from_classic
from bayesbragg.priors.flatten import Layout
from bayesbragg.priors.model import Cell, Fixed, Normal, Positive, Priors, Shared, Uniform, Volume
from bayesbragg.priors.parameter import Parameter
from bayesbragg.priors.sites import make_layout

__all__ = [
    "Cell",
    "CellConstraint",
    "Fixed",
    "Layout",
    "Normal",
    "Parameter",
    "Positive",
    "Priors",
    "Shared",
    "Uniform",
    "Volume",
    "from_classic",
    "make_layout",
]
