"""Background planes that are inferred with the rest: integrated out of the Gaussian likelihood, box by box.

In a box, counts = bragg + background + A c + noise, with c the error of the plane's three coefficients, normal with
covariance L L^T, and noise of variance V per pixel. The counts are then normal with covariance V + A L L^T A^T. With
M = 1 + L^T A^T V^-1 A L (3 x 3) and u = L^T A^T V^-1 r of the residual r,

    r^T cov^-1 r = r^T V^-1 r - u^T M^-1 u        ln det cov = sum ln V + ln det M

(Woodbury's formula). V is that at the prior mean of the plane. The prior of a plane comes from pixels around the box
that the likelihood does not use, so that no photon counts twice.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from bayesbragg.inference.pixels import PlanePrior

__all__ = ["plane_gain", "plane_prior", "plane_shift"]

Array = Any


def plane_prior(shape: tuple[int, int], covariance: npt.ArrayLike) -> PlanePrior:
    """The prior of the planes of boxes.

    Args:
        shape: n_slow, n_fast of a padded box.
        covariance: of slope along fast, slope along slow (photon per pixel) and the value at the first pixel of the
            box (photon), ``(n_boxes, 3, 3)``. One that is not positive is mended upwards.
    """
    s, f = np.meshgrid(np.arange(shape[0]), np.arange(shape[1]), indexing="ij")
    design = np.stack([f.ravel(), s.ravel(), np.ones(f.size)]).astype(np.float64)
    values, vectors = np.linalg.eigh(np.asarray(covariance, dtype=np.float64))
    factor = vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]
    return PlanePrior(design, factor)


def _projected(residual: Array, weight: Array, prior: PlanePrior) -> tuple[Array, Array]:
    """Cholesky factor of M, ``(..., n_boxes, 3, 3)``, and its solution for u, ``(..., n_boxes, 3)``."""
    directions = jnp.einsum("bij,ip->bjp", prior.factor, prior.design)
    M = jnp.eye(3) + jnp.einsum("bip,...bp,bjp->...bij", directions, weight, directions)
    u = jnp.einsum("bip,...bp->...bi", directions, weight * residual)
    root = jnp.linalg.cholesky(M)
    return root, jax.scipy.linalg.solve_triangular(root, u[..., None], lower=True)[..., 0]


def plane_gain(residual: Array, weight: Array, prior: PlanePrior) -> Array:
    """What the unknown planes add to the log likelihood of known ones, ``(..., n_boxes)``.

    Args:
        residual: counts minus expectation at the prior mean, ``(..., n_boxes, n_pixels)``.
        weight: inverse variance; 0 where a pixel does not count.
    """
    root, v = _projected(residual, weight, prior)
    diagonal = jnp.diagonal(root, axis1=-2, axis2=-1)
    return 0.5 * jnp.sum(v**2, axis=-1) - jnp.sum(jnp.log(diagonal), axis=-1)


def plane_shift(residual: Array, weight: Array, prior: PlanePrior) -> Array:
    """Posterior mean of the planes minus their prior mean, photons, ``(n_boxes, n_pixels)``."""
    root, v = _projected(residual, weight, prior)
    z = jax.scipy.linalg.solve_triangular(jnp.swapaxes(root, -1, -2), v[..., None], lower=False)[..., 0]
    return jnp.einsum("bij,bj,ip->bp", prior.factor, z, prior.design)
