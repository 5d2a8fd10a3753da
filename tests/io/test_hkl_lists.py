"""Lists of reflections: the same structure factors as from arrays, and one line for what is no list."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bayesbragg.io.hkl_lists import read_hkl
from bayesbragg.io.structure_factors import structure_factors_from_arrays
from bayesbragg.model.errors import InputError

HKL = np.array([[1, 0, 2], [3, -1, 4], [0, 2, 5]])
F = np.array([12.5, 300.0, 7.25])
CRYSTFEL = """CrystFEL reflection list version 2.0
Symmetry: 4/mmm
   h    k    l          I    phase   sigma(I)   nmeas
   1    0    2     156.25        -       3.00       7
   3   -1    4   90000.00        -      20.00       9
   0    2    5   52.5625         -       1.00       2
   0    0    4      -3.00        -       2.00       5
End of reflections
anything
"""


def test_amplitudes_and_intensities(tmp_path: Path) -> None:
    plain, list_ = tmp_path / "P1.hkl", tmp_path / "merged.hkl"
    plain.write_text("\n".join(f"{h} {k} {l} {f}" for (h, k, l), f in zip(HKL, F, strict=True)))
    list_.write_text(CRYSTFEL)
    expected = structure_factors_from_arrays(HKL, F, "P 43 21 2", default_F=1.0)
    for path in (plain, list_):
        found = read_hkl(path, "P 43 21 2", default_F=1.0)
        for hkl in ([2, 0, 1], [0, 1, 2], [1, 3, -4], [0, -1, -2], [5, 5, 5]):
            if hkl != [5, 5, 5]:
                assert found.lookup(np.array([hkl]))[0] == pytest.approx(expected.lookup(np.array([hkl]))[0], rel=1e-12)
    assert read_hkl(plain, "P 43 21 2", default_F=1.0).lookup(np.array([[9, 9, 9]]))[0] == 1.0
    assert read_hkl(list_, "P 43 21 2").lookup(np.array([[0, 0, 4]]))[0] == 0.0


@pytest.mark.parametrize("text", ["", "1 2\n", "a b c d\n", "1 2 3 nan\n", "1.5 2 3 4\n", "1 2 99999999 4\n"])
def test_what_is_no_list(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.hkl"
    path.write_text(text)
    with pytest.raises(InputError, match=r"bad.hkl") as caught:
        read_hkl(path)
    assert "\n" not in str(caught.value)
