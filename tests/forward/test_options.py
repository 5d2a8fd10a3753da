"""Switches that contradict themselves are refused."""

from __future__ import annotations

from typing import Any

import pytest

from bayesbragg.forward import Options


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"oversample": 0}, r"oversample \(0\) and sensor_layers \(1\) must be 1 or more"),
        ({"sensor_layers": 0}, r"oversample \(1\) and sensor_layers \(0\) must be 1 or more"),
        ({"diffuse": True, "complex_factors": True}, "is not defined"),
    ],
)
def test_contradictions(words: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Options(**words)


def test_each_alone_is_fine() -> None:
    assert Options(diffuse=True).diffuse
    assert Options(complex_factors=True).complex_factors
    assert Options(oversample=1, sensor_layers=1).oversample == 1
