"""Products of three-vectors and rotations against numpy and scipy."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from bayesbragg.forward.rotations import axis_rotation, misorientation
from bayesbragg.forward.small import cross, determinant

GENERATOR = np.random.default_rng(0)


def test_products() -> None:
    a, b = GENERATOR.standard_normal((2, 4, 3))
    matrices = GENERATOR.standard_normal((2, 4, 3, 3))
    np.testing.assert_allclose(cross(a, b), np.cross(a, b), atol=1e-14)
    np.testing.assert_allclose(cross(a[0], b[0]), np.cross(a[0], b[0]), atol=1e-14)
    np.testing.assert_allclose(determinant(matrices), np.linalg.det(matrices), atol=1e-13)


def test_rotations() -> None:
    axes, angles = GENERATOR.standard_normal((4, 3)), GENERATOR.uniform(-3, 3, 4)
    axes = axes / np.linalg.norm(axes, axis=-1, keepdims=True)
    ours = axis_rotation(axes, angles)
    np.testing.assert_allclose(ours, Rotation.from_rotvec(axes * angles[:, None]).as_matrix(), atol=1e-14)
    turns = GENERATOR.uniform(-1, 1, (2, 3))
    # Rx(a) Ry(b) Rz(c), each by minus its angle.
    expected = Rotation.from_euler("XYZ", -turns).as_matrix()
    np.testing.assert_allclose(misorientation(turns), expected, atol=1e-14)
