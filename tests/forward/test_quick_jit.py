"""Compiler options come and go with releases: those that are not known must be left out."""

from __future__ import annotations

import numpy as np
import pytest

from bayesbragg.forward import quick_jit as module


def test_options_that_the_compiler_does_not_know_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WITHOUT_OPTIMIZATIONS", {**module.WITHOUT_OPTIMIZATIONS, "xla_no_such_option": 1})
    module.understood_options.cache_clear()
    try:
        assert "xla_no_such_option" not in module.understood_options()
        assert float(module.quick_jit()(lambda x: x + np.float64(1.0))(2.0)) == 3.0
    finally:
        module.understood_options.cache_clear()
