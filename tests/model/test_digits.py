"""Numbers have the digits that their errors leave them."""

from __future__ import annotations

import math

import pytest

from bayesbragg.model.digits import to_digits_of


@pytest.mark.parametrize(
    ("sd", "value", "text"),
    [
        (0.0028, 79.10168, "79.1017"),
        (0.0996, 79.10168, "79.102"),
        (0.1, 79.10168, "79.10"),
        (5.5, 401.1679, "401.2"),
        (5500.0, 401167.9, "401168"),
        (3.6e-5, -0.000663, "-0.000663"),
        (2e-12, 0.123456789, "0.1234568"),
        (0.0, 0.123456789, "0.1234568"),
        (math.nan, 79.10168, "79.10168"),
        (math.inf, 1e12, "1e+12"),
        (1.0, math.nan, "nan"),
    ],
)
def test_to_the_second_digit_of_the_error(sd: float, value: float, text: str) -> None:
    assert to_digits_of(sd, [value, value]) == [text, text]
