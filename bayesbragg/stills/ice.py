"""Resolution ranges of ice rings: the reflections of hexagonal ice, each with a width in 1/d^2."""

from __future__ import annotations

import numpy as np

from bayesbragg.model.crystal import cell_matrix

__all__ = ["ice_ring_ranges"]


def ice_ring_ranges(
    cell: tuple[float, ...], width: float, d_min: float | None = None
) -> tuple[tuple[float, float], ...]:
    """Ranges of d (smaller, larger), angstrom, sorted from large d to small.

    Args:
        cell: of the ice, a, b, c (angstrom), alpha, beta, gamma (degree). Its absences are not looked at: a range too
            many costs few spots.
        width: of a ring in 1/d^2, 1/angstrom^2.
        d_min: rings of higher resolution are left out, angstrom; 1.5 if not given.
    """
    least = 1.5 if d_min is None else d_min
    axes = np.linalg.inv(cell_matrix(cell)).T
    reach = np.ceil(np.asarray(cell[:3]) / least).astype(int)
    grid = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij"), axis=-1).reshape(-1, 3)
    inverse = np.unique(np.round(np.sum((grid @ axes.T) ** 2, axis=1), 8))
    inverse = inverse[(inverse > width) & (inverse <= 1.0 / least**2)]
    return tuple((float(1 / np.sqrt(x + width / 2)), float(1 / np.sqrt(x - width / 2))) for x in inverse)
