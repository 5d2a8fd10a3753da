"""bayesbragg: pixel models of serial-crystallography stills with honest error bars.

    import bayesbragg as bb

    settings = bb.RefineSettings(...)               # gain, spectrum, structure factors, model, priors
    still, = bb.load("shot.expt", "shot.refl", settings)
    result = bb.refine(still, settings)
    print(result.fit.summary())

Names are imported when they are first used, so that the command line starts at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bayesbragg.inference.map import MapOptions
    from bayesbragg.model.errors import InputError
    from bayesbragg.pipeline.api import demo_folder, load, refine, structure_factors
    from bayesbragg.pipeline.settings import (
        CountSettings,
        FactorSettings,
        ModelSettings,
        RefineSettings,
        SpectrumSettings,
        StartValues,
    )
    from bayesbragg.priors import Cell, Fixed, Normal, Positive, Priors, Shared, Uniform, Volume
    from bayesbragg.stills.boxes import BoxSettings

_HOME = {
    "bayesbragg.inference.map": ("MapOptions",),
    "bayesbragg.model.errors": ("InputError",),
    "bayesbragg.pipeline.api": ("demo_folder", "load", "refine", "structure_factors"),
    "bayesbragg.pipeline.settings": (
        "CountSettings",
        "FactorSettings",
        "ModelSettings",
        "RefineSettings",
        "SpectrumSettings",
        "StartValues",
    ),
    "bayesbragg.priors": ("Cell", "Fixed", "Normal", "Positive", "Priors", "Shared", "Uniform", "Volume"),
    "bayesbragg.stills.boxes": ("BoxSettings",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "BoxSettings",
    "Cell",
    "CountSettings",
    "FactorSettings",
    "Fixed",
    "InputError",
    "MapOptions",
    "ModelSettings",
    "Normal",
    "Positive",
    "Priors",
    "RefineSettings",
    "Shared",
    "SpectrumSettings",
    "StartValues",
    "Uniform",
    "Volume",
    "demo_folder",
    "load",
    "refine",
    "structure_factors",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'bayesbragg' has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULE_OF])
