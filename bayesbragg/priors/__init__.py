"""Bounds, restraints and unit-cell constraints: what may vary, and what is believed of it beforehand."""

from bayesbragg.priors.cell import CellConstraint
from bayesbragg.priors.classic import from_classic
from bayesbragg.priors.flatten import Layout, make_layout
from bayesbragg.priors.model import Cell, Fixed, Normal, Positive, Priors, Shared, Uniform, Volume
from bayesbragg.priors.parameter import Parameter

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
