"""The few functions that most scripts need: load stills, refine one, find the bundled data."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from os import PathLike
from pathlib import Path

from bayesbragg.forward import Parameters
from bayesbragg.model import StructureFactors
from bayesbragg.pipeline.load import load_stills, structure_factors
from bayesbragg.pipeline.refine import Refined, refine_still
from bayesbragg.pipeline.settings import RefineSettings
from bayesbragg.pipeline.shot_files import ShotFiles
from bayesbragg.pipeline.still import Still

__all__ = ["demo_folder", "demo_shots", "load", "refine", "structure_factors"]


def load(
    experiments: str | PathLike[str],
    reflections: str | PathLike[str],
    settings: RefineSettings | None = None,
    *,
    reference_geometry: str | PathLike[str] | None = None,
) -> list[Still]:
    """The stills of an ``.expt`` and a ``.refl`` file, with their images and spectra.

    Args:
        settings: where spectrum, masks and pixels come from.
        reference_geometry: an ``.expt`` whose detector replaces the stills' own.

    Raises:
        InputError: naming the file, what is wrong with it, and the remedy.
    """
    pair = ShotFiles(Path(experiments), Path(reflections))
    reference = None if reference_geometry is None else Path(reference_geometry)
    return list(load_stills(pair, settings or RefineSettings(), reference_geometry=reference))


def refine(
    still: Still,
    settings: RefineSettings | None = None,
    *,
    factors: StructureFactors | None = None,
    start: Parameters | None = None,
) -> Refined:
    """The best fit of a still.

    Args:
        settings: everything that decides a refinement, its priors among them.
        factors: structure factors in memory instead of those that the settings name.
        start: parameters to start from, such as those of an earlier fit.
    """
    settings = settings or RefineSettings()
    return refine_still(still, factors or structure_factors(still, settings), settings, start=start)


def demo_folder() -> Path:
    """The folder of the bundled demonstration shots."""
    return Path(str(files("bayesbragg") / "data" / "demo"))


def demo_shots() -> Sequence[tuple[Path, Path]]:
    """The ``.expt`` and ``.refl`` of each bundled shot."""
    folder = demo_folder()
    return [(path, path.with_suffix(".refl")) for path in sorted(folder.glob("shot_*_indexed.expt"))]
