"""freephil, imported quietly: it asks setuptools for a module that newer releases warn about."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import freephil

__all__ = ["freephil"]
