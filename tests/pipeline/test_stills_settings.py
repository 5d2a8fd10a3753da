"""Parameters of `stills-process`: each has an effect, and the tutorial's file means what it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_stills import STILLS_PHIL

from bayesbragg.io.phil import load_phil
from bayesbragg.io.phil.stills_live import STILLS
from bayesbragg.model.errors import InputError
from bayesbragg.pipeline.stills_settings import StillsSettings, stills_settings
from bayesbragg.stills.ice import ice_ring_ranges

COMMAND = (Path(__file__).resolve().parents[2] / "cli" / "stills_process.py").read_text()
BY_THE_COMMAND = ("input.file_list", "input.glob", "input.image_tag", "input.max_images", "mp.method")
OTHER = {
    "dispatch.find_spots": "False",
    "dispatch.index": "False",
    "dispatch.integrate": "False",
    "dispatch.hit_finder.enable": "True",
    "skip_hopper": "True",
    "output.composite_output": "True",
    "output.shoeboxes": "False",
    "spotfinder.lookup.mask": "mask.h5",
    "spotfinder.threshold.algorithm": "dispersion_extended",
    "spotfinder.threshold.dispersion.kernel_size": "4,4",
    "spotfinder.filter.ice_rings.filter": "True",
    "spotfinder.filter.ice_rings.unit_cell": "4.4,4.4,7.3,90,90,120",
    "indexing.known_symmetry.unit_cell": "70,70,40,90,90,90",
    "indexing.known_symmetry.space_group": "P41",
    "reidx_obs": "True",
    "refinement.parameterisation.crystal.fix": "cell",
    "predictions.resolution_range": "2,30",
    "predictions.use_diffBragg_mtz": "True",
    "predictions.label_weak_col": "xyzcal.px",
    "predictions.Nabc_override": "9,9,9",
    "partial_correct": "True",
}


def settings(tmp_path: Path, *words: str) -> StillsSettings:
    phil = tmp_path / "process.phil"
    phil.write_text(STILLS_PHIL)
    return stills_settings(load_phil([phil], words, program="stills_process", warn=False))


@pytest.mark.parametrize("name", [n for n in STILLS if not STILLS[n][1].startswith("no choice")])
def test_every_name_has_an_effect(name: str, tmp_path: Path) -> None:
    if name in BY_THE_COMMAND:
        assert f".{name.split('.')[-1]}" in COMMAND
        return
    context: list[str] = []
    if "hit_finder" in name:
        context = ["dispatch.hit_finder.enable=True"] if not name.endswith("enable") else []
    if "ice_rings" in name and not name.endswith("filter"):
        context = ["spotfinder.filter.ice_rings.filter=True"]
    value = OTHER.get(name, "0.013" if "ice_rings.width" in name else "7")
    if name == "integration.summation.detector_gain":
        before = settings(tmp_path).spots
        phil = tmp_path / "gain.phil"
        phil.write_text("integration.summation.detector_gain = 7")
        found = stills_settings(load_phil([phil], [], program="stills_process", warn=False))
        assert (found.spots.gain, found.refine.counts.gain, before.gain) == (7.0, 7.0, 28.0)
        return
    try:
        other = settings(tmp_path, *context, f"{name}={value}")
    except InputError:
        return
    assert other != settings(tmp_path, *context)


def test_the_tutorials_parameters(shared: Path) -> None:
    """Unchanged, from the folder of the structure factors."""
    phil = shared / "tutorial/phil/process_verbatim.phil"
    found = stills_settings(load_phil([phil], [], program="stills_process", warn=False))
    assert found.spots.algorithm == "dispersion"
    assert (found.spots.gain, found.spots.global_threshold, found.spots.kernel_size) == (28.0, 40.0, (2, 2))
    assert (found.spots.sigma_strong, found.spots.sigma_background, found.spots.min_spot_size) == (1.0, 6.0, 2)
    assert found.lattice.cell == (79.1, 79.1, 38.4, 90.0, 90.0, 90.0)
    assert found.lattice.crystal().space_group == "P 43 21 2"
    assert found.lattice.rmsd_px == 4.0
    assert found.hits.least == 0
    assert found.do_index
    assert found.do_refine
    assert found.do_integrate
    assert not found.composite
    assert found.refine.counts.gain == 28.0


def test_ice_rings() -> None:
    """The first three rings of hexagonal ice, 3.90, 3.67 and 3.44 angstrom, lie in ranges; 3.2 does not."""
    ranges = np.array(ice_ring_ranges((4.498, 4.498, 7.338, 90, 90, 120), 0.002))
    for d, inside in ((3.895, True), (3.669, True), (3.441, True), (3.2, False), (10.0, False)):
        assert bool(np.any((ranges[:, 0] < d) & (d < ranges[:, 1]))) == inside
