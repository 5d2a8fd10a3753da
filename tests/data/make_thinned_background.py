"""Thin the full golden file of boxes and background planes (case 17), for tests in a bare clone.

    python tests/data/make_thinned_background.py ../shared/golden tests/data/golden

Numbers are copied, never changed. Left out are ``image_photons`` (image over gain) and the background images,
which are the planes over again, but for those of two runs; ``background_pixels_used`` is cut to its valid part.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

CASE = "17_background.npz"
BACKGROUND_RUNS = (0, 5)
"""Runs (a constant and a plane) whose background image is kept."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    with np.load(arguments.source / CASE) as full:
        kept = {}
        for key in full.files:
            array = full[key]
            if key == "image_photons" or (
                key.endswith("_background") and key not in [f"run{run}_background" for run in BACKGROUND_RUNS]
            ):
                continue
            if key.endswith("_background_pixels_used"):
                array = array[:, : np.max(np.nonzero(array)[1]) + 1, : np.max(np.nonzero(array)[2]) + 1]
            kept[key] = array
    np.savez_compressed(arguments.target / CASE, **kept)


if __name__ == "__main__":
    main()
