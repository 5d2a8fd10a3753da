"""Lists that tell the same detector share it; what a caller does to its document afterwards changes none."""

from __future__ import annotations

import copy

import numpy as np
from inference.test_centroid_joint import grid_detector

from bayesbragg.io.detectors import detector_from_document, detector_text, detector_to_document


def test_shared_while_the_same_and_never_stale() -> None:
    document = detector_to_document(grid_detector(2))
    first = detector_from_document(document)
    assert detector_from_document(copy.deepcopy(document)) is first
    document["panels"][0]["origin"][0] += 1.0
    moved = detector_from_document(document)
    assert moved is not first
    np.testing.assert_allclose(moved.origin_mm[0] - first.origin_mm[0], [1.0, 0.0, 0.0], atol=1e-12)
    assert detector_text(moved) != detector_text(first)
