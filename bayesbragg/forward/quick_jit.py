"""Compilation for what runs once or twice per shot: little time to compile counts for more than little time to run."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import jax

from bayesbragg.forward.stored_jit import stored_jit

__all__ = ["quick_jit"]

WITHOUT_OPTIMIZATIONS: dict[str, Any] = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}


def quick_jit(static_argnames: str | tuple[str, ...] = ()) -> Callable[[Callable[..., Any]], Any]:
    """`stored_jit` without the compiler's optimizations: a third of the time to compile, about three times that to run.

    Only for functions that no other compiled function calls: a program is compiled in one way.
    """
    return stored_jit(static_argnames, compiler_options=understood_options)


@cache
def understood_options() -> dict[str, Any]:
    """Those of `WITHOUT_OPTIMIZATIONS` that the installed compiler knows; their names come and go with its releases."""
    return {name: value for name, value in WITHOUT_OPTIMIZATIONS.items() if _is_understood({name: value})}


def _is_understood(options: dict[str, Any]) -> bool:
    try:
        jax.jit(lambda: 0.0, compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
