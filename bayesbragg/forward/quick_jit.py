"""Compilation for what runs once or twice per shot: little time to compile counts for more than little time to run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

__all__ = ["quick_jit"]

WITHOUT_OPTIMIZATIONS: dict[str, Any] = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}


def quick_jit(function: Callable[..., Any], static_argnames: str | tuple[str, ...] = ()) -> Callable[..., Any]:
    """`jax.jit` without the compiler's optimizations: a third of the time to compile, about three times that to run.

    Only for functions that no other compiled function calls: a program is compiled in one way.
    """
    return jax.jit(function, static_argnames=static_argnames, compiler_options=WITHOUT_OPTIMIZATIONS)
