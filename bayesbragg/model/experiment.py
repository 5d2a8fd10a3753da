"""One still as DIALS describes it: beam, detector, crystals, and where its image is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bayesbragg.model.beam import Beam
from bayesbragg.model.crystal import Crystal
from bayesbragg.model.detector import Detector

__all__ = ["Experiment", "ImageReference"]


@dataclass(frozen=True, eq=False)
class ImageReference:
    """An image: a file and the number of the image in it (0 for the first).

    Attributes:
        path: the file, as an absolute path.
        index: number of the image in the file.
        mask: mask file named by the experiment list, if any.
        document: the JSON imageset that it came from, or None.
    """

    path: Path
    index: int = 0
    mask: Path | None = None
    document: Mapping[str, Any] | None = field(default=None, repr=False)


@dataclass(frozen=True, eq=False)
class Experiment:
    """One lattice on one image. A shot with several lattices has several experiments that share the image.

    Attributes:
        identifier: unique name, as in the ``identifiers`` of reflection tables; may be empty in old files.
        beam, detector: always present.
        crystal: None before indexing.
        image: None for an experiment without image.
        document: the JSON experiment (for parts that we do not model, such as scaling models), or None.
    """

    identifier: str
    beam: Beam
    detector: Detector
    crystal: Crystal | None = None
    image: ImageReference | None = None
    document: Mapping[str, Any] | None = field(default=None, repr=False)

    def with_crystal(self, crystal: Crystal) -> Experiment:
        return replace(self, crystal=crystal)

    def with_detector(self, detector: Detector) -> Experiment:
        return replace(self, detector=detector)
