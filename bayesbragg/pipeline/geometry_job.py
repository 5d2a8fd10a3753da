"""What every process of a joint fit knows: settings, the table's shots, and where results go."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bayesbragg.pipeline.geometry_settings import GeometrySettings

__all__ = ["GeometryJob", "ShotRow"]


@dataclass(frozen=True)
class ShotRow:
    """A shot of the table: its files, and where its fit starts.

    Attributes:
        tag: its name; experiments, reflections: its files.
        start: columns of the table that give the start, as plain numbers.
        places: numbers of its rows in the table, one for each lattice.
    """

    tag: str
    experiments: Path
    reflections: Path
    start: dict[str, Any]
    places: tuple[int, ...]


@dataclass(frozen=True)
class GeometryJob:
    """What every process of a run knows.

    Attributes:
        reference_geometry, reference_beam: ``.expt`` files whose detector and beam replace the shots' own.
        device: auto, cpu or gpu.
    """

    settings: GeometrySettings
    rows: tuple[ShotRow, ...]
    folder: Path
    reference_geometry: Path | None = None
    device: str = "auto"
    reference_beam: Path | None = None
