"""Expected photons per pixel: pure JAX functions of arrays (PHYSICS is the reference for every formula).

Importing this room switches JAX to 64-bit floats: float64 is what every fit uses unless it asks for less.
"""

import jax

jax.config.update("jax_enable_x64", True)  # type: ignore[no-untyped-call]

from bayesbragg.forward.exact import expected_photons  # noqa: E402
from bayesbragg.forward.options import Options  # noqa: E402
from bayesbragg.forward.parameters import Parameters  # noqa: E402
from bayesbragg.forward.psf import PointSpread, blur  # noqa: E402
from bayesbragg.forward.scene import Scene, build_scene, window_holds  # noqa: E402

__all__ = [
    "Options",
    "Parameters",
    "PointSpread",
    "Scene",
    "blur",
    "build_scene",
    "expected_photons",
    "window_holds",
]
