"""The joint optimum by L-BFGS-B, as the classic program searches it: for comparison with Levenberg-Marquardt.

Every number is divided by its standard deviation at the start (the square root of the inverse diagonal of the
expected information), which is all the preconditioning there is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from bayesbragg.inference.communicator import Communicator, OneProcess
from bayesbragg.inference.joint import fit_joint
from bayesbragg.inference.joint_types import Iteration, JointFit, JointOptions, JointState, Term
from bayesbragg.model.fit import FitStatus
from bayesbragg.priors.panels import SharedPrior

__all__ = ["fit_lbfgs"]

FloatArray = npt.NDArray[np.float64]


def fit_lbfgs(
    terms: Sequence[Term],
    prior: SharedPrior,
    options: JointOptions | None = None,
    *,
    communicator: Communicator | None = None,
    state: JointState | None = None,
    on_step: Callable[[JointState], None] | None = None,
) -> JointFit:
    """Arguments and result as for `bayesbragg.inference.joint.fit_joint`."""
    options, comm = options or JointOptions(), communicator or OneProcess()
    clock = time.perf_counter()
    none = replace(options, max_iterations=0)
    first = fit_joint(terms, prior, none, communicator=comm, state=state)
    now = JointState([x.copy() for x in first.own], first.shared.copy(), first.target, options.damping)
    now.iteration, now.trace = first.iterations, list(first.trace)
    layout = _Layout(terms, prior, comm)
    scale = layout.scale(first)
    x0 = layout.pack(now.own, now.shared)
    evaluations = 0

    def function(u: FloatArray) -> tuple[float, FloatArray]:
        nonlocal evaluations
        evaluations += 1
        own, shared = layout.unpack(x0 + scale * u)
        total, gradients, right = 0.0, [], np.zeros(prior.n)
        for term, x in zip(terms, own, strict=True):
            value, g, gs = term.value_and_grad(x, shared)
            total += value
            gradients.append(np.asarray(g).reshape(x.shape))
            right += gs
        total = float(comm.sum(np.array([total]))[0]) + prior.minus_log(shared)
        right = comm.sum(right) + prior.precision @ np.where(prior.free, shared - prior.mean, 0.0)
        gradient = scale * layout.pack(gradients, right)
        if not (np.isfinite(total) and np.all(np.isfinite(gradient))):
            return 1e6 * (1.0 + abs(now.target)), np.zeros_like(u)
        if total < now.target:
            now.target, now.own, now.shared = total, own, shared
        return total, gradient

    def after_step(u: FloatArray) -> None:
        now.iteration += 1
        last = now.trace[-1]
        now.trace.append(
            Iteration(now.iteration, now.target, last.sigma_z, last.median_offset_px, np.nan, np.nan, True)
        )
        if on_step is not None:
            on_step(now)

    low, high = layout.bounds(prior)
    with np.errstate(invalid="ignore"):
        box = np.stack([(low - x0) / scale, (high - x0) / scale], axis=-1)
    limits = [(None if not np.isfinite(a) else a, None if not np.isfinite(b) else b) for a, b in box]
    found = minimize(
        function,
        np.zeros(len(x0)),
        jac=True,
        method="L-BFGS-B",
        bounds=limits,
        callback=after_step,
        options={"maxiter": options.max_iterations, "maxcor": 20, "ftol": 1e-10, "gtol": 1e-3},
    )
    last = JointState(now.own, now.shared, now.target, options.damping)
    last.iteration, last.trace = options.max_iterations, now.trace
    end = fit_joint(terms, prior, options, communicator=comm, state=last)
    status = end.status
    if status is not FitStatus.CONVERGED:
        status = FitStatus.STALLED if found.success else FitStatus.ITERATION_LIMIT
    reason = end.reason if status is FitStatus.CONVERGED else f"{found.message}; {end.predicted:.3g} left to gain"
    return replace(
        end,
        status=status,
        reason=reason,
        start_target=first.start_target,
        iterations=now.iteration,
        evaluations=evaluations,
        seconds=time.perf_counter() - clock,
    )


class _Layout:
    """All numbers of all processes in one vector, of which every process fills its own part."""

    def __init__(self, terms: Sequence[Term], prior: SharedPrior, comm: Communicator) -> None:
        self.comm, self.free, self.shapes = comm, np.flatnonzero(prior.free), [t.start.shape for t in terms]
        self.n_shared = prior.n
        sizes = np.zeros(comm.size)
        sizes[comm.rank] = sum(int(np.prod(s)) for s in self.shapes)
        sizes = comm.sum(sizes).astype(int)
        self.start, self.n_own = int(sizes[: comm.rank].sum()), int(sizes.sum())

    def pack(self, own: Sequence[FloatArray], shared: FloatArray) -> FloatArray:
        mine = np.zeros(self.n_own)
        flat = np.concatenate([x.reshape(-1) for x in own]) if own else np.zeros(0)
        mine[self.start : self.start + len(flat)] = flat
        return np.concatenate([self.comm.sum(mine), shared[self.free]])

    def unpack(self, x: FloatArray) -> tuple[list[FloatArray], FloatArray]:
        own, place = [], self.start
        for shape in self.shapes:
            size = int(np.prod(shape))
            own.append(x[place : place + size].reshape(shape))
            place += size
        shared = np.zeros(self.n_shared)
        shared[self.free] = x[self.n_own :]
        return own, shared

    def scale(self, fit: JointFit) -> FloatArray:
        def inverse_root(diagonal: FloatArray) -> FloatArray:
            return np.asarray(1.0 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0)))

        own = [np.stack([inverse_root(np.diag(b.curvature)) for b in part]) for part in fit.blocks]
        prior = np.diag(fit.prior_covariance)
        total = fit.diagonal + np.where(prior > 0, 1.0 / np.where(prior > 0, prior, 1.0), 0.0)
        return self.pack(own, inverse_root(total))

    def bounds(self, prior: SharedPrior) -> tuple[FloatArray, FloatArray]:
        free = np.full(self.n_own, np.inf)
        return np.concatenate([-free, prior.low[self.free]]), np.concatenate([free, prior.high[self.free]])
