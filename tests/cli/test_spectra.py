"""`bayesbragg spectra`: what is printed, written and drawn, and one line for what cannot be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_run import make_shot
from small_stills import write_inputs, write_raw

from bayesbragg.cli.main import main
from bayesbragg.io.spectra import read_lam, write_lam
from bayesbragg.model.spectra import gaussian_spectrum


def test_channels_are_counted_converted_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_inputs(tmp_path)
    shot = make_shot(2, tmp_path / "factors.mtz")
    write_raw([shot, shot], tmp_path / "two.h5")
    true, out = shot.world.spectrum, tmp_path / "lam"
    assert main(["spectra", f"{tmp_path}/tw*.h5", "--output", str(out), "--plot", str(tmp_path / "s.png")]) == 0
    said = capsys.readouterr().out
    assert said.count(f"{true.n_channels} channels used of {true.n_channels}") == 2
    for n in range(2):
        again = read_lam(out / f"two_0000{n}.lam")
        np.testing.assert_array_equal(again.wavelengths_A, true.wavelengths_A)
        np.testing.assert_array_equal(again.photons, true.photons)
    assert (tmp_path / "s.png").stat().st_size > 5000
    assert main(["spectra", str(tmp_path / "two.h5"), "gen_gauss_spec=True", "gauss_spec.nchannels=7"]) == 0
    assert f"7 channels used of {true.n_channels}" in capsys.readouterr().out


def test_strides_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_lam(gaussian_spectrum(1.3, 20.0, 12, 4.0), tmp_path / "a.lam")
    assert main(["spectra", str(tmp_path / "a.lam"), "simulator.spectrum.stride=5"]) == 0
    assert "3 channels used of 12" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["nothing.h5"], ["spectrum_from_imageset=True"]])
def test_nothing_to_show(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["spectra", *words]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
