"""Thin the full golden files to a few whole boxes each, for tests in a bare clone.

    python tests/data/make_thinned_golden.py ../shared/golden tests/data/golden

Numbers are copied, never changed: every kept value is bit for bit that of the full file. Left out are whole boxes, the
classic analytic derivatives ``dI__*`` (``fd__*`` is the derivative that is trusted), and reflections far from the kept
boxes. The box of the structure-factor table (``hkl_table_min``, ``hkl_table_max``) stays that of the full file.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import numpy as np

BUDGET = 52_000
"""Bytes of pixel values that a file may hold (about; never fewer than two boxes)."""


def brightness(arrays: dict[str, np.ndarray], image: np.ndarray) -> np.ndarray:
    """Largest value of each box."""
    peaks = np.full(len(arrays["roi_panel_f1_f2_s1_s2"]), -np.inf)
    np.maximum.at(peaks, arrays["pixels_roi"], image)
    return peaks


def choose_boxes(arrays: dict[str, np.ndarray], image: np.ndarray, how_many: int) -> np.ndarray:
    """The brightest box, the brightest of each other panel group, one at high resolution, a weak one, bright ones."""
    peaks = brightness(arrays, image)
    order = np.argsort(-peaks, kind="stable")
    chosen = [order[0]]
    panels = arrays["roi_panel_f1_f2_s1_s2"][:, 0]
    if "panel_group_id" in arrays:
        groups = arrays["panel_group_id"][panels]
        bright = [box for box in order if peaks[box] > 0.02 * peaks.max()]
        for box in bright:
            if groups[box] not in groups[chosen] and len(chosen) < how_many - 1:
                chosen.append(box)
    if "roi_dspacing_A" in arrays:
        spacing = np.where(arrays["roi_dspacing_A"] > 0, arrays["roi_dspacing_A"], np.inf)
        far = np.argsort(spacing, kind="stable")[: max(3, len(spacing) // 3)]
        chosen.append(far[np.argmax(peaks[far])])
    chosen.append(order[len(order) * 3 // 4])
    unique = list(dict.fromkeys(int(box) for box in [*chosen, *order]))
    return np.sort(unique[:how_many])


def touched(arrays: dict[str, np.ndarray], pixels: np.ndarray, margin: int) -> np.ndarray:
    """Which listed reflections lie within `margin` (per index) of those that the pixels of each box can touch."""
    lattices = (
        [(u, r) for u, r in zip(arrays["crystal_U"], arrays["crystal_RXYZ"], strict=True)]
        if "crystal_U" in arrays
        else [(arrays["U"], arrays["RXYZ"])]
    )
    wavelengths = arrays["wavelengths_A"]
    if arrays["use_lambda_coefs"]:
        wavelengths = arrays["lambda_coefs"][0] + arrays["lambda_coefs"][1] * wavelengths
    extremes = (wavelengths.min(), wavelengths.max())
    boxes = arrays["pixels_roi"][pixels]
    panel, fast, slow = arrays["pixels_panel_fast_slow"][pixels].T
    keep = np.zeros(len(arrays["hkl_p1"]), bool)
    for u, rotation in lattices:
        hkl = []
        for df, ds, wavelength, mosaic in itertools.product((0.0, 1.0), (0.0, 1.0), extremes, arrays["umats"]):
            position = (
                arrays["panels_origin_mm"][panel]
                + ((fast + df) * arrays["pixel_size_mm"])[:, None] * arrays["panels_fast"][panel]
                + ((slow + ds) * arrays["pixel_size_mm"])[:, None] * arrays["panels_slow"][panel]
            )
            ray = position / np.linalg.norm(position, axis=1, keepdims=True)
            q = (ray - arrays["beam_unit_source_to_sample"]) / wavelength
            hkl.append(q @ (mosaic @ rotation @ u @ arrays["B_real_A"] @ arrays["O_matrix"].T))
        for box in np.unique(boxes):
            near = np.round(np.concatenate([h[boxes == box] for h in hkl]))
            low, high = near.min(0) - margin, near.max(0) + margin
            keep |= np.all((arrays["hkl_p1"] >= low) & (arrays["hkl_p1"] <= high), axis=1)
    return keep


def restrict_reflections(arrays: dict[str, np.ndarray], pixels: np.ndarray) -> None:
    """Drop reflections that the pixels do not touch, in the P1 list and in the asymmetric unit."""
    margin = 1 + int(arrays.get("diffuse_stencil", 0))
    keep = touched(arrays, pixels, margin)

    def magnitude(name: str) -> np.ndarray:
        imaginary = arrays.get(f"{name}_imag", np.zeros(1))
        return np.round(np.hypot(arrays[name], imaginary), 8)

    # Equivalents share their amplitude. In a centred lattice the two lists are in different bases: keep all of one.
    keep_asu = np.isin(magnitude("F_asu"), magnitude("F_p1")[keep])
    keep_asu |= not np.array_equal(arrays["O_matrix"], np.eye(3))
    for suffix, mask in (("p1", keep), ("asu", keep_asu)):
        for name in (f"hkl_{suffix}", f"F_{suffix}", f"F_{suffix}_imag"):
            if name in arrays:
                arrays[name] = arrays[name][mask]
    arrays["hkl_lists_restricted_to_touched"] = np.asarray(1)


def thin(arrays: dict[str, np.ndarray], budget: int = BUDGET) -> dict[str, np.ndarray]:
    """The arrays of one file with few boxes, few reflections and no classic derivatives."""
    dropped = ("dI__", "model_convolved_dials_padded")
    arrays = {name: array for name, array in arrays.items() if not name.startswith(dropped)}
    image = arrays["I"] if "I" in arrays else arrays["bragg"] + arrays["background"]
    n_pixels, n_boxes = len(image), len(arrays["roi_panel_f1_f2_s1_s2"])
    per_pixel = sum(a.dtype.itemsize * a.size // n_pixels for a in arrays.values() if a.ndim and n_pixels in a.shape)
    how_many = int(np.clip(budget * n_boxes // (per_pixel * n_pixels), 2, 6))
    boxes = choose_boxes(arrays, image, how_many)
    pixels = np.isin(arrays["pixels_roi"], boxes)
    if "hkl_p1" in arrays:
        restrict_reflections(arrays, pixels)
    for name, array in arrays.items():
        if name.startswith("roi_"):
            arrays[name] = array[boxes]
        elif name == "pixels_roi":
            arrays[name] = np.searchsorted(boxes, array[pixels]).astype(array.dtype)
        elif array.ndim and array.shape[0] == n_pixels:
            arrays[name] = array[pixels]
        elif array.ndim == 2 and array.shape[1] == n_pixels:
            arrays[name] = array[:, pixels]
    return arrays


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("full", type=Path, help="folder of the full files")
    parser.add_argument("thinned", type=Path, help="folder to write to")
    arguments = parser.parse_args()
    arguments.thinned.mkdir(parents=True, exist_ok=True)
    total = 0
    for path in sorted(arguments.full.glob("*.npz")):
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        if path.stem.startswith(("17", "18", "19b", "19c")):
            continue  # 17 and 18 have their own makers; a stored sum over pixels (19) cannot be thinned
        if not path.stem.startswith("19"):
            arrays = thin(arrays)
        target = arguments.thinned / path.name
        np.savez_compressed(target, **arrays)
        total += target.stat().st_size
        print(f"{target.stat().st_size:8d}  {path.stem}  {len(arrays['roi_panel_f1_f2_s1_s2'])} boxes")
    print(f"{total:8d}  bytes in all")


if __name__ == "__main__":
    main()
