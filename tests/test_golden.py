"""The thinned golden files are faithful: same values as the full ones, same physics at their boundaries."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from golden import THINNED, golden_cases, golden_path, load_golden

PIXEL_CASES = [path.stem for path in sorted(THINNED.glob("*.npz")) if path.stem[:2] not in ("16", "17", "18", "19")]


def thinned(case: str) -> dict[str, np.ndarray]:
    with np.load(THINNED / f"{case}.npz") as file:
        return dict(file)


def test_every_pixel_case_is_there() -> None:
    prefixes = {case[:2] for case in golden_cases()}
    assert {f"{i:02d}" for i in range(1, 17)} | {"19", "20"} <= prefixes
    assert len(PIXEL_CASES) == 30


def test_a_case_is_found_by_a_unique_beginning() -> None:
    assert load_golden("01")["meta"]["case"] == "01_mono"
    with pytest.raises(FileNotFoundError, match="ambiguous"):
        golden_path("10")
    with pytest.raises(FileNotFoundError, match="no golden case 'nonsense'"):
        golden_path("nonsense")


def test_data_stay_small() -> None:
    folder = THINNED.parent
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 4_000_000


@pytest.mark.parametrize("case", PIXEL_CASES)
def test_boxes_are_whole_and_values_are_those_of_the_full_file(case: str, shared: Path) -> None:
    small = thinned(case)
    with np.load(shared / "golden" / f"{case}.npz") as file:
        full = dict(file)
    place = {tuple(pixel): i for i, pixel in enumerate(full["pixels_panel_fast_slow"])}
    rows = np.array([place[tuple(pixel)] for pixel in small["pixels_panel_fast_slow"]])
    for name in full:
        if name.startswith("fd__") or name in ("I", "I_bragg_only"):
            assert np.array_equal(small[name], full[name][rows]), name
    assert small["I"].max() == full["I"].max()
    sides = small["roi_panel_f1_f2_s1_s2"]
    areas = (sides[:, 2] - sides[:, 1]) * (sides[:, 4] - sides[:, 3])
    assert np.array_equal(np.bincount(small["pixels_roi"]), areas)
    panel = sides[small["pixels_roi"], 0]
    assert np.array_equal(panel, small["pixels_panel_fast_slow"][:, 0])


@pytest.mark.parametrize("case", PIXEL_CASES)
def test_left_out_reflections_touch_no_pixel(case: str, shared: Path) -> None:
    small = thinned(case)
    with np.load(shared / "golden" / f"{case}.npz") as file:
        full = {tuple(h): F for h, F in zip(file["hkl_p1"], file["F_p1"], strict=True)}
    kept = {tuple(h): F for h, F in zip(small["hkl_p1"], small["F_p1"], strict=True)}
    wavelengths = small["wavelengths_A"]
    if small["use_lambda_coefs"]:
        wavelengths = small["lambda_coefs"][0] + small["lambda_coefs"][1] * wavelengths
    if "crystal_U" in small:
        lattices = list(zip(small["crystal_U"], small["crystal_RXYZ"], strict=True))
    else:
        lattices = [(small["U"], small["RXYZ"])]
    reach = int(small.get("diffuse_stencil", 0))
    panel, fast, slow = small["pixels_panel_fast_slow"].T
    touched: set[tuple[int, ...]] = set()
    for sub in (0.1, 0.9):
        position = (
            small["panels_origin_mm"][panel]
            + ((fast + sub) * small["pixel_size_mm"])[:, None] * small["panels_fast"][panel]
            + ((slow + sub) * small["pixel_size_mm"])[:, None] * small["panels_slow"][panel]
        )
        ray = position / np.linalg.norm(position, axis=1, keepdims=True)
        for U, R in lattices:
            for mosaic in small["umats"]:
                M = mosaic @ R @ U @ small["B_real_A"] @ small["O_matrix"].T
                for wavelength in wavelengths[:: max(1, len(wavelengths) // 4)]:
                    h = (ray - small["beam_unit_source_to_sample"]) / wavelength @ M
                    touched |= {tuple(row) for row in np.ceil(h - 0.5).astype(int)}
    steps = np.array(list(np.ndindex(*(2 * reach + 1,) * 3))) - reach
    for h in touched:
        for step in steps:
            index = tuple(np.add(h, step))
            assert kept.get(index) == full.get(index)
