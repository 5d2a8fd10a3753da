"""What the pixels of a box share and nobody knows exactly, integrated out of the Gaussian likelihood.

In a box, counts = bragg + background + D z + noise, with z standard normal numbers of the box and noise of variance V
per pixel. The columns of D are directions of unit prior width: those of the background plane, whose three coefficients
have covariance L L^T (D = A L with the columns x, y, 1 of A), and, where the reference intensity is known to a fraction
s only, s times the Bragg photons. The counts are then normal with covariance V + D D^T. With M = 1 + D^T V^-1 D and
u = D^T V^-1 r of the residual r,

    r^T cov^-1 r = r^T V^-1 r - u^T M^-1 u        ln det cov = sum ln V + ln det M

(Woodbury's formula). V is that at the prior mean of plane and intensity. The prior of a plane comes from pixels around
the box that the likelihood does not use, so that no photon counts twice.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from bayesbragg.inference.pixels import Pixels, PlanePrior

__all__ = ["directions", "gain_of_unknowns", "plane_prior", "posterior_of_unknowns"]

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


def directions(photons: Array, pixels: Pixels) -> Array | None:
    """The columns of D of every box, ``(n_boxes, k, n_pixels)``, or None where everything is known.

    Args:
        photons: Bragg photons at the reference intensities, ``(n_boxes, n_pixels)``.
    """
    found = []
    if pixels.planes is not None:
        found.append(jnp.einsum("bij,ip->bjp", pixels.planes.factor, pixels.planes.design))
    if pixels.intensity_sd is not None:
        found.append((pixels.intensity_sd * photons)[:, None, :])
    return jnp.concatenate(found, axis=1) if found else None


def _projected(residual: Array, weight: Array, D: Array) -> tuple[Array, Array]:
    """Cholesky factor of M, ``(..., n_boxes, k, k)``, and its solution for u, ``(..., n_boxes, k)``."""
    M = jnp.eye(D.shape[1]) + jnp.einsum("bip,...bp,bjp->...bij", D, weight, D)
    u = jnp.einsum("bip,...bp->...bi", D, weight * residual)
    root = jnp.linalg.cholesky(M)
    return root, jax.scipy.linalg.solve_triangular(root, u[..., None], lower=True)[..., 0]


def gain_of_unknowns(residual: Array, weight: Array, D: Array) -> Array:
    """What the unknowns add to the log likelihood of known ones, ``(..., n_boxes)``.

    Args:
        residual: counts minus expectation at the prior mean, ``(..., n_boxes, n_pixels)``.
        weight: inverse variance; 0 where a pixel does not count.
        D: from `directions`.
    """
    root, v = _projected(residual, weight, D)
    diagonal = jnp.diagonal(root, axis1=-2, axis2=-1)
    return 0.5 * jnp.sum(v**2, axis=-1) - jnp.sum(jnp.log(diagonal), axis=-1)


def posterior_of_unknowns(residual: Array, weight: Array, D: Array) -> tuple[Array, Array]:
    """Posterior mean and standard deviation of the numbers z, ``(n_boxes, k)`` each; arguments as above."""
    root, v = _projected(residual, weight, D)
    inverse = jax.scipy.linalg.solve_triangular(root, jnp.broadcast_to(jnp.eye(D.shape[1]), root.shape), lower=True)
    return jnp.einsum("bji,bj->bi", inverse, v), jnp.sqrt(jnp.sum(inverse**2, axis=-2))
