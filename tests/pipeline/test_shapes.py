"""Shots of a run share a few compiled programs: counted, not timed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bayesbragg.model.shot import bucket_size


def test_few_buckets_of_boxes() -> None:
    assert len({bucket_size(n) for n in range(150, 385)}) <= 3
    for n in range(1, 3000):
        size = bucket_size(n)
        assert size >= n
        assert size < (2 * n if n <= 128 else 1.5 * n) or size == 8
        assert bucket_size(size) == size


@pytest.mark.slow
@pytest.mark.parametrize("forward", ["auto", "exact"])
def test_tutorial_has_at_most_four_shapes(shared: Path, forward: Any) -> None:
    """A program is compiled for each shape; shots that can be fitted together share theirs."""
    import bayesbragg as bb
    from bayesbragg.inference.map import can_be_fitted_together
    from bayesbragg.pipeline.api import structure_factors
    from bayesbragg.pipeline.refine import prepare

    tutorial = shared / "tutorial"
    settings = bb.RefineSettings(
        counts=bb.CountSettings(28.0, 3.0),
        spectrum=bb.SpectrumSettings(source="image"),
        factors=bb.FactorSettings(
            mtz=tutorial / "structure_factors" / "iobs_all.mtz", columns="I(+),SIGI(+),I(-),SIGI(-)"
        ),
        model=bb.ModelSettings(oversample=1, forward=forward),
    )
    shapes: list[Any] = []
    for expt in sorted((tutorial / "indexed").glob("*.expt")):
        refl = expt.with_name(expt.name.replace("_refined.expt", "_indexed.refl"))
        (still,) = bb.load(expt, refl, settings)
        prepared = prepare(still, structure_factors(still, settings), settings)
        assert prepared.form.closed is (forward == "auto")
        if not any(can_be_fitted_together(prepared.density, other) for other in shapes):
            shapes.append(prepared.density)
    assert len(shapes) <= 4
