"""Test set-up: 64-bit floats on the CPU, shared folders where they exist, a fresh logger for every test."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")

import jax
import pytest

from bayesbragg.forward import stored_jit
from bayesbragg.pipeline.device import forget_programs

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


@pytest.fixture(autouse=True, scope="module")
def _room_for_programs() -> Iterator[None]:
    """Hundreds of modules compile thousands of programs in one process: dropped before the system runs out of room."""
    yield
    forget_programs(share=0.2)


@pytest.fixture(autouse=True)
def _no_stored_programs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Commands open the store of programs; what the next test traces is traced, and nothing is loaded ahead."""
    monkeypatch.setattr(stored_jit, "FIRST", 0)
    yield
    stored_jit.close_store()


@pytest.fixture(autouse=True)
def _fresh_logger() -> Iterator[None]:
    """Commands set up the package's logger, some in fixtures of modules; the next test gets it fresh."""
    yield
    logger = logging.getLogger("bayesbragg")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.propagate = True
    logger.setLevel(logging.NOTSET)
