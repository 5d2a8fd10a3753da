"""How to sample with Markov chains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bayesbragg.inference.nuts_program import BLOCK, Program, Whitened, program_of
from bayesbragg.inference.unbounded import Potential
from bayesbragg.model.errors import InputError

__all__ = ["BEFORE_BOUND", "USUAL", "NutsOptions"]

BEFORE_BOUND, USUAL = 0.95, {"nuts": 0.6, "hmc": 0.8}
"""Acceptance probabilities that step sizes are made for. In whitened coordinates 0.6 leads NUTS to steps of about 1, of
which three make a trajectory; 0.8 to steps just too short for that, and seven turn back to where they came from."""


@dataclass(frozen=True)
class NutsOptions:
    """How to sample.

    Attributes:
        n_chains, n_draws: chains, and draws of each that are kept.
        n_warmup: draws before them in which the step size is found, by the first chain or by every chain for itself;
            rounded up to a multiple of 25.
        target_accept: acceptance probability that the step size is made for; None for 0.6, or 0.95 where a parameter
            is near a bound.
        adapt_mass: also estimate a dense covariance during warm-up (then take 500 draws for it), for posteriors that
            are far from Laplace's Gaussian; every chain for itself.
        max_tree_depth: doublings of a trajectory of NUTS at most.
        path: as long as NUTS makes it, or a quarter of a period (``hmc``).
        chains: one after the other, in as many threads as there are cores, or all in one program (which is faster on a
            GPU). The draws are the same, but for rounding and the warm-up of vectorised chains.
    """

    n_chains: int = 4
    n_draws: int = 500
    n_warmup: int = 75
    target_accept: float | None = None
    adapt_mass: bool = False
    max_tree_depth: int = 8
    chains: Literal["auto", "sequential", "parallel", "vectorised"] = "auto"
    path: Literal["nuts", "hmc"] = "nuts"

    def check(self) -> NutsOptions:
        """The options themselves.

        Raises:
            InputError: numbers that make no sense.
        """
        for name, least in (("n_chains", 1), ("n_draws", 8), ("n_warmup", 25), ("max_tree_depth", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name} = {getattr(self, name)}: expected at least {least}")
        if self.target_accept is not None and not 0 < self.target_accept < 1:
            raise InputError(f"target_accept = {self.target_accept}: expected a number between 0 and 1, usually 0.6")
        if self.adapt_mass and self.path == "hmc":
            raise InputError("adapt_mass = True: paths of a quarter turn keep Laplace's covariance; use path=nuts")
        return self

    @property
    def warm_blocks(self) -> int:
        return -(-self.n_warmup // BLOCK)

    @property
    def blocks(self) -> int:
        return -(-self.n_draws // BLOCK)

    def program(self, potential: Potential, accept: float, how: Literal["one", "chains", "each"]) -> Program:
        mass_draws = self.warm_blocks * BLOCK if self.adapt_mass else 0
        return program_of(
            Whitened(potential), mass_draws, (accept, self.adapt_mass, self.max_tree_depth, self.path == "hmc"), how
        )
