"""The tutorial's shots and the settings of its classic runs, for benchmarks that fit them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bayesbragg as bb
from bayesbragg.pipeline.still import Still

TUTORIAL = Path(__file__).resolve().parents[2] / "shared" / "tutorial"
RUNS = {"procPoly": "indexed", "procBad": "indexed_badGeo"}
N_SHOTS = 10


def classic_settings(fit: bb.MapOptions | None = None, **model: Any) -> bb.RefineSettings:
    """Start values, planes and subpixels of the classic runs."""
    return bb.RefineSettings(
        counts=bb.CountSettings(28.0, 3.0),
        boxes=bb.BoxSettings(reject_roi_with_hotpix=False, mask_outside_trusted_range=False),
        spectrum=bb.SpectrumSettings(source="image"),
        factors=bb.FactorSettings(
            mtz=TUTORIAL / "structure_factors" / "iobs_all.mtz", columns="I(+),SIGI(+),I(-),SIGI(-)"
        ),
        model=bb.ModelSettings(oversample=1, kahn="classic", **model),
        start=bb.StartValues(n_abc=(13, 14, 15), G=100),
        background="classic",
        fit=fit or bb.MapOptions(),
    )


def tutorial_stills(run: str, numbers: range = range(N_SHOTS)) -> Iterator[tuple[str, Still]]:
    """Shots as they were indexed, with the geometry that a classic run started from."""
    for number in numbers:
        stem = TUTORIAL / RUNS[run] / f"shot_{number:03d}"
        (still,) = bb.load(Path(f"{stem}_refined.expt"), Path(f"{stem}_indexed.refl"), classic_settings())
        yield f"{run}/shot_{number:03d}", still


def classic_seconds(run: str) -> dict[str, float]:
    """Seconds of the classic program's fit of each shot, from the tutorial's own record."""
    record = json.loads((TUTORIAL / "classic" / run / "fits.json").read_text())
    rows = record if isinstance(record, list) else list(record.values())
    return {f"{run}/shot_{int(row['shot']):03d}": float(row["t_minimize"]) for row in rows}
