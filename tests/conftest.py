"""Test set-up: 64-bit floats, rank promotion is an error, shared folders where they exist."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")

import jax
import pytest

jax.config.update("jax_enable_x64", True)

REPOSITORY = Path(__file__).resolve().parents[1]
DATA = Path(__file__).resolve().parent / "data"
SHARED = REPOSITORY.parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of full-size reference data beside the checkout; tests that need it skip where it is absent."""
    if not (SHARED / "golden").is_dir():
        pytest.skip("the full reference data are not beside this checkout")
    return SHARED
