"""Spot finding and indexing together: images of 2.3 megapixels per second and core, and memory.

    python benchmarks/spotfinding.py IMAGE.h5 [IMAGE.h5 ...]

Give HDF5 stills of tetragonal lysozyme, such as those of `bayesbragg simulate` or the classic tutorial. Set
OMP_NUM_THREADS=1 and OPENBLAS_NUM_THREADS=1 for figures of one core. Reading is timed apart. Seconds are of the
processor, so that other work on the machine counts little; the load is printed beside them.
"""

from __future__ import annotations

import os
import resource
import sys
import time

import numpy as np

from bayesbragg.io.images import read_image, read_image_experiment
from bayesbragg.io.symmetry import lookup_space_group
from bayesbragg.model import Crystal
from bayesbragg.stills.indexing import index_still
from bayesbragg.stills.spotfinding import SpotfinderSettings, find_spots

SPOTS = SpotfinderSettings(
    gain=28, global_threshold=40, kernel_size=(2, 2), sigma_strong=1, sigma_background=6, min_spot_size=2
)
CELL = (79.1, 79.1, 38.4, 90, 90, 90)


def main(paths: list[str]) -> None:
    """Print a row for each image and the figures of all."""
    group = lookup_space_group("P43212")
    names = {"space_group": group.hm, "space_group_number": group.number, "hall_symbol": group.hall}
    reference = Crystal.from_cell(CELL, np.eye(3), to_primitive=group.to_primitive, **names)
    rows = []
    # The first image pays for imports and caches and is not counted.
    for path in [paths[0], *paths]:
        start = time.process_time()
        experiment = read_image_experiment(path)
        assert experiment.image is not None
        image = read_image(experiment.image, experiment.detector)
        read = time.process_time()
        spots = find_spots(image.raw, experiment.detector, experiment.beam, SPOTS, mask=image.mask)
        found = time.process_time()
        indexed = index_still(spots, experiment, reference, spectrum=image.spectrum)
        end = time.process_time()
        pixels = sum(panel.size for panel in image.raw)
        rows.append((read - start, found - read, end - found, pixels))
        print(
            f"{path}: {pixels / 1e6:.2f} megapixels, read {rows[-1][0]:.3f} s, {len(spots)} spots {rows[-1][1]:.3f} s, "
            f"{indexed.status} {len(indexed.reflections)} in {rows[-1][2]:.3f} s"
        )
    reading, finding, indexing, pixels_of = np.array(rows[1:]).T
    scale = pixels_of / 2.3e6
    rate = scale.sum() / (finding + indexing).sum()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0
    print(f"{rate:.2f} images of 2.3 megapixels per second and core (spot finding and indexing)")
    print(f"{scale.sum() / (reading + finding + indexing).sum():.2f} with reading; peak memory {memory:.0f} MB")
    print(
        f"medians: read {np.median(reading):.3f} s, spots {np.median(finding):.3f} s, index {np.median(indexing):.3f} s"
    )
    print(f"load of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main(sys.argv[1:])
