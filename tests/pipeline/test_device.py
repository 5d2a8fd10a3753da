"""The programs held in memory: dropped in time, with the same results afterwards."""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from bayesbragg.pipeline import device
from bayesbragg.pipeline.device import forget_programs

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux alone tells its mappings")


def mappings() -> int:
    with Path("/proc/self/maps").open("rb") as listing:
        return sum(1 for _ in listing)


def test_programs_are_dropped_above_the_share_and_give_the_same_afterwards() -> None:
    def value(x: jax.Array) -> jax.Array:
        return jnp.sum(jnp.sin(x) * jnp.cumsum(x))

    functions = [jax.jit(value) for _ in range(20)]
    results = [float(f(jnp.linspace(0.0, 1.0, 10 + i))) for i, f in enumerate(functions)]
    crowded = mappings()
    assert not forget_programs(share=1.0)
    assert mappings() >= crowded
    assert forget_programs(share=0.0)
    assert mappings() < crowded - 20 * 5
    assert [float(f(jnp.linspace(0.0, 1.0, 10 + i))) for i, f in enumerate(functions)] == results


def test_a_system_that_does_not_tell_keeps_its_programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(device, "_MAPPINGS", tmp_path / "none")
    assert not forget_programs(share=0.0)
