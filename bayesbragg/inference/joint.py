"""One optimum of many shots and the detector they share, by Levenberg-Marquardt on the expected information.

The target is -(sum of the shots' log likelihoods and priors + log prior of the shared numbers): each prior counts
once. Every step solves the arrow-shaped normal equations of `bayesbragg.inference.schur`; shots are visited one after
the other, so that they may live on disk or on other processes. A step that raises the target is not taken, and the
damping grows; the search ends when the decrease that the undamped equations predict is below a fraction of a unit of
log density, a criterion that knows no units. The inverse of the Schur complement at the optimum is the marginal
covariance of the panels.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bayesbragg.inference.communicator import Communicator, OneProcess
from bayesbragg.inference.joint_types import Iteration, JointFit, JointOptions, JointState, Term
from bayesbragg.inference.schur import Blocks, Reduced, back_substitute, reduce_blocks
from bayesbragg.model.fit import FitStatus
from bayesbragg.priors.panels import SharedPrior, inverse_on

__all__ = ["evaluate", "fit_joint"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Pass:
    """Target and sigma-Z of all shots of all processes; of this process's shots the blocks, without their shared
    curvature, and its sum."""

    target: float
    sigma_z: float
    blocks: list[list[Blocks]]
    curvature: FloatArray


def fit_joint(
    terms: Sequence[Term],
    prior: SharedPrior,
    options: JointOptions | None = None,
    *,
    shared: FloatArray | None = None,
    communicator: Communicator | None = None,
    state: JointState | None = None,
    on_step: Callable[[JointState], None] | None = None,
) -> JointFit:
    """The mode of the joint density.

    Args:
        terms: the shots of this process.
        prior: of the shared numbers.
        shared: where these start; at the prior's mean if not given.
        communicator: the other processes.
        state: a saved state from which to go on.
        on_step: called after each step with the state that the next one starts from.

    Returns:
        the best point seen, with its status; nothing is raised for a search that fails.
    """
    options, comm = options or JointOptions(), communicator or OneProcess()
    clock = time.perf_counter()
    if state is None:
        first = np.where(prior.free, prior.mean, 0.0) if shared is None else np.asarray(shared, dtype=np.float64)
        state = JointState([np.array(t.start, dtype=np.float64) for t in terms], first, damping=options.damping)
    evaluations, status, reason = 0, FitStatus.ITERATION_LIMIT, f"{options.max_iterations} steps; raise the limit"
    predicted, start_target = np.inf, np.nan
    here = _linearize(terms, state.own, state.shared, prior, comm)
    evaluations += 1
    start_target = state.trace[0].target if state.trace else here.target
    state.target = here.target
    if not state.trace:
        state.trace.append(Iteration(0, here.target, here.sigma_z, _median(terms, state, comm), np.nan, np.nan, True))
    while True:
        if not np.isfinite(here.target):
            status, reason = FitStatus.FAILED, "the target is not a finite number; check pixels and starting values"
            break
        predicted = _predicted(here, state.shared, prior, comm)
        if predicted < options.tolerance:
            status, reason = FitStatus.CONVERGED, f"the equations predict a decrease of {predicted:.2g} only"
            break
        if state.iteration >= options.max_iterations:
            break
        if state.damping > options.max_damping:
            status, reason = FitStatus.STALLED, f"no step lowers the target, {predicted:.3g} were predicted"
            break
        moved = _try_step(terms, here, state, prior, comm)
        evaluations += 1
        if moved is not None:
            here = _linearize(terms, state.own, state.shared, prior, comm)
            evaluations += 1
            state.target = here.target
        state.trace.append(
            Iteration(
                state.iteration,
                state.target,
                here.sigma_z,
                _median(terms, state, comm) if moved is not None else state.trace[-1].median_offset_px,
                predicted,
                state.damping,
                moved is not None,
            )
        )
        if on_step is not None:
            on_step(state)
    reduced = _summed(here, prior.n, 0.0, comm)
    near = 1e-6 * np.where(np.isfinite(prior.high - prior.low), prior.high - prior.low, 0.0)
    bound = prior.free & ((state.shared <= prior.low + near) | (state.shared >= prior.high - near))
    return JointFit(
        status=status,
        reason=reason,
        target=state.target,
        start_target=start_target,
        shots_target=state.target - prior.minus_log(state.shared),
        own=state.own,
        shared=state.shared,
        covariance=inverse_on(prior.precision + reduced.matrix, prior.free),
        prior_covariance=prior.covariance(),
        information=reduced.matrix,
        score=reduced.right,
        diagonal=reduced.diagonal,
        predicted=predicted,
        sigma_z=here.sigma_z,
        iterations=state.iteration,
        evaluations=evaluations,
        trace=tuple(state.trace),
        at_bound=tuple(name for name, flag in zip(prior.names, bound, strict=True) if flag),
        seconds=time.perf_counter() - clock,
        blocks=here.blocks,
    )


def evaluate(
    terms: Sequence[Term],
    own: Sequence[FloatArray],
    shared: FloatArray,
    prior: SharedPrior,
    communicator: Communicator | None = None,
) -> float:
    """The joint target."""
    total = sum(t.target(x, shared) for t, x in zip(terms, own, strict=True))
    return float((communicator or OneProcess()).sum(np.array([total]))[0]) + prior.minus_log(shared)


def _linearize(
    terms: Sequence[Term], own: Sequence[FloatArray], shared: FloatArray, prior: SharedPrior, comm: Communicator
) -> _Pass:
    sums, curvature = np.zeros(4), np.zeros((prior.n, prior.n))
    kept = []
    for term, x in zip(terms, own, strict=True):
        part = []
        for b in term.linearize(x, shared):
            sums += np.array([b.target, *b.z])
            curvature[np.ix_(b.index, b.index)] += b.shared_curvature
            part.append(b.without_shared_curvature())
        kept.append(part)
    target, n, first, second = comm.sum(sums)
    sigma = float(np.sqrt(max(second / n - (first / n) ** 2, 0.0))) if n else np.nan
    return _Pass(float(target) + prior.minus_log(shared), sigma, kept, curvature)


def _summed(here: _Pass, n: int, damping: float, comm: Communicator) -> Reduced:
    own = reduce_blocks([b for part in here.blocks for b in part], n, damping, here.curvature)
    packed = np.concatenate([own.matrix.reshape(-1), own.right, own.gradient, own.diagonal, [own.decrease]])
    packed = comm.sum(packed)
    matrix, rest = packed[: n * n].reshape(n, n), packed[n * n :]
    return Reduced(matrix, rest[:n], rest[n : 2 * n], rest[2 * n : 3 * n], float(rest[-1]))


def _shared_step(
    reduced: Reduced, shared: FloatArray, prior: SharedPrior, damping: float
) -> tuple[FloatArray, FloatArray]:
    """Step of the shared numbers and their whole right-hand side; what a bound holds back stays."""
    right = reduced.right + np.where(prior.free, prior.precision @ np.where(prior.free, shared - prior.mean, 0.0), 0.0)
    free = prior.free & ~((shared <= prior.low) & (right > 0)) & ~((shared >= prior.high) & (right < 0))
    matrix = prior.precision + reduced.matrix
    matrix[np.diag_indices_from(matrix)] += damping * (reduced.diagonal + np.diag(prior.precision))
    step = np.zeros(prior.n)
    if free.any():
        block = matrix[np.ix_(free, free)]
        scale = 1.0 / np.sqrt(np.where(np.diag(block) > 0, np.diag(block), 1.0))
        scaled = block * np.outer(scale, scale) + 1e-13 * np.eye(len(block))
        step[free] = -scale * np.linalg.solve(scaled, scale * right[free])
    return step, np.where(free, right, 0.0)


def _predicted(here: _Pass, shared: FloatArray, prior: SharedPrior, comm: Communicator) -> float:
    """Decrease that the undamped equations predict."""
    reduced = _summed(here, prior.n, 0.0, comm)
    step, right = _shared_step(reduced, shared, prior, 0.0)
    return 0.5 * float(reduced.decrease - right @ step)


def _try_step(
    terms: Sequence[Term], here: _Pass, state: JointState, prior: SharedPrior, comm: Communicator
) -> float | None:
    """One damped step: moves the state if the target falls, and sets the damping of the next one."""
    damping = state.damping
    reduced = _summed(here, prior.n, damping, comm)
    step, right = _shared_step(reduced, state.shared, prior, damping)
    shared = np.clip(state.shared + step, prior.low, prior.high)
    step = shared - state.shared
    own, total = [], 0.0
    for term, x, blocks in zip(terms, state.own, here.blocks, strict=True):
        change = np.stack([back_substitute(b, step, damping) for b in blocks])
        new = x + np.clip(change, -term.step_limit, term.step_limit)
        own.append(new)
        total += term.target(new, shared)
    target = float(comm.sum(np.array([total]))[0]) + prior.minus_log(shared)
    expected = 0.5 * float(reduced.decrease - right @ step)
    gain = (state.target - target) / expected if expected > 0 and np.isfinite(target) else -1.0
    state.iteration += 1
    if not gain > 1e-4:
        state.damping *= state.growth
        state.growth *= 2.0
        return None
    # The classic rule of Nielsen: less damping the better the equations predicted the decrease.
    state.damping = max(state.damping * max(1.0 / 9.0, 1.0 - (2.0 * min(gain, 1.0) - 1.0) ** 3), 1e-12)
    state.growth = 2.0
    state.own, state.shared = own, shared
    return target


def _median(terms: Sequence[Term], state: JointState, comm: Communicator) -> float:
    """Median length of the offsets of all processes, from a histogram of 0.001 pixel."""
    counts = np.zeros(20001)
    for term, x in zip(terms, state.own, strict=True):
        found = term.offsets(x, state.shared)
        found = found[np.isfinite(found)]
        counts += np.bincount(np.minimum(found * 1000.0, 20000.0).astype(np.int64), minlength=20001)
    counts = comm.sum(counts)
    total = np.cumsum(counts)
    if total[-1] == 0:
        return np.nan
    return float((np.searchsorted(total, 0.5 * total[-1]) + 0.5) / 1000.0)
