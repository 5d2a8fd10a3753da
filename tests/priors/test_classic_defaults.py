"""The classic defaults for people who write mappings are those of the PHIL files."""

from __future__ import annotations

from typing import Any

import pytest

from bayesbragg.io.phil import load_phil
from bayesbragg.priors.classic import CLASSIC_DEFAULTS


def cases() -> list[tuple[str, str, Any]]:
    return [(group, name, value) for group, names in CLASSIC_DEFAULTS.items() for name, value in names.items()]


@pytest.fixture(scope="module")
def phil() -> Any:
    return load_phil()


@pytest.mark.parametrize(("group", "name", "value"), cases())
def test_default_is_that_of_the_phil_files(phil: Any, group: str, name: str, value: Any) -> None:
    stated = getattr(getattr(phil, group), name)
    if (group, name) == ("fix", "RotXYZ"):
        assert bool(stated) is bool(any(value))
    else:
        assert stated == value
