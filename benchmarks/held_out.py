"""Real stills: spots held out of a pixel refinement without structure factors, predicted, against DIALS' own fit.

python benchmarks/held_out.py REAL_FOLDER [shot=801] [fwhm=25,40,60] [folds=5] [picture=FOLDER]

Four thermolysin stills (CSPAD, LCLS). DIALS' indexed spots and models are the start; its predictions come from a
fit to all of them. Ours leave out a fifth of the spots at a time, five times. Each box scatters from its own reflection
with an unknown intensity; mosaic rotations have any covariance. ``fwhm`` are the widths of a Gaussian spectrum that are
tried (eV): each fit takes the one of them with the highest log density of the pixels that it was given. All other
settings are the same for every shot. Pictures show the brightest spots as fits that have not seen them predict them.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

import bayesbragg as bb
from bayesbragg.diagnostics.box_plot import boxes_figure
from bayesbragg.inference.map import MapOptions
from bayesbragg.io.symmetry import lookup_space_group
from bayesbragg.model import StructureFactors
from bayesbragg.pipeline.api import structure_factors
from bayesbragg.pipeline.device import remember_programs
from bayesbragg.pipeline.held_out import HeldOut, hold_out
from bayesbragg.pipeline.refine import Prepared, prepare
from bayesbragg.pipeline.settings import FactorSettings, StartValues
from bayesbragg.pipeline.still import Still
from bayesbragg.priors import Cell, Positive, Priors, Shared, Uniform
from bayesbragg.stills.boxes import BoxSettings

SHOTS = ("401", "601", "701", "801")


def settings_of(fwhm: float) -> bb.RefineSettings:
    """The same for every shot.

    Args:
        fwhm: of the spectrum, electronvolt.
    """
    return bb.RefineSettings(
        counts=bb.CountSettings(25.0, 6.0, outlier_fraction=0.01),
        boxes=BoxSettings(shoebox_size=10, centroid="cal"),
        spectrum=bb.SpectrumSettings(source="gaussian", fwhm_eV=fwhm, n_channels=31, resolution_eV=fwhm / 10),
        factors=FactorSettings(intensities="wilson"),
        model=bb.ModelSettings(oversample=3, n_mosaic=2, spread="general", forward="closed"),
        start=StartValues(n_abc=(60.0,) * 3, eta_deg=(0.06,) * 3),
        likelihood="shifted_poisson",
        priors=Priors(
            RotXYZ=Uniform(-0.02, 0.02),
            cell=Cell(edge_percent=2.0),
            Nabc=Shared(Uniform(3.0, 1000.0)),
            G=Positive(),
            eta_abc=Uniform(0.001, 0.5),
            eta_def=Uniform(-0.5, 0.5),
            B=Uniform(-20.0, 120.0),
        ),
        fit=MapOptions(max_iterations=40, change=1e-6, method="lm"),
    )


def load(folder: Path, shot: str, settings: bb.RefineSettings) -> Still:
    """The still as DIALS left it, in the space group that it was indexed with."""
    name = f"idx-20130301060858{shot}"
    with tempfile.TemporaryDirectory() as place:
        # The experiment lists name the images as if they stood beside them.
        here = Path(place)
        (here / f"{name}.cbf").symlink_to((folder / f"{name}.cbf").resolve())
        for end in ("_refined.expt", "_indexed.refl"):
            (here / f"{name}{end}").write_bytes((folder / "dials" / f"{name}{end}").read_bytes())
        (still,) = bb.load(here / f"{name}_refined.expt", here / f"{name}_indexed.refl", settings)
    group = lookup_space_group("P6122")
    symmetry = {"space_group": group.hm, "space_group_number": group.number, "hall_symbol": group.hall}
    experiments = tuple(replace(e, crystal=replace(e.crystal, **symmetry)) for e in still.experiments if e.crystal)
    return replace(still, experiments=experiments)


def rmsd(offset: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.sum(offset**2, axis=1))))


def report(shot: str, prepared: Prepared, held: HeldOut, seconds: float) -> None:
    """Figures of one shot, in pixels."""
    rows, table = prepared.shot.reflection_row, prepared.still.reflections
    observed, dials = (np.asarray(table[name])[:, :2] for name in ("xyzobs.px.value", "xyzcal.px"))
    unseen, seen = held.centroid_px - observed[rows], held.seen_px - observed[rows]
    theirs = (dials - observed)[rows]
    better = np.mean(np.linalg.norm(unseen, axis=1) < np.linalg.norm(theirs, axis=1))
    statuses = ", ".join(sorted({fit.status.value for fit in (held.whole, *held.fits)}))
    print(
        f"{shot}: {len(rows)} of {len(table)} spots; RMSD held out {rmsd(unseen):.3f}, in sample {rmsd(seen):.3f}, "
        f"DIALS {rmsd(theirs):.3f} (all its spots {rmsd(dials - observed):.3f}) pixels; median "
        f"{np.median(np.linalg.norm(unseen, axis=1)):.3f}, {np.median(np.linalg.norm(seen, axis=1)):.3f}, "
        f"{np.median(np.linalg.norm(theirs, axis=1)):.3f}; nearer than DIALS {better:.0%}; {statuses}; {seconds:.0f} s"
    )
    values = zip(held.whole.names, held.whole.values, held.whole.standard_errors, strict=True)
    print("    " + ", ".join(f"{n} {v:.5g} +- {e:.1g}" for n, v, e in values)
          + f"; sigma-Z {held.whole.sigma_z:.3f}, target {held.whole.target:.1f}", flush=True)  # fmt: skip


def best_of(tried: list[tuple[float, Prepared, HeldOut]]) -> tuple[Prepared, HeldOut, list[float]]:
    """The fits with the highest log density of what they were given, and their widths (eV), the whole one's first."""
    whole = min(range(len(tried)), key=lambda i: tried[i][2].whole.target)
    prepared, held = tried[whole][1:]
    centroid, fits, widths = held.centroid_px.copy(), list(held.fits), [tried[whole][0]]
    for k in range(len(fits)):
        i = min(range(len(tried)), key=lambda i: tried[i][2].fits[k].target)
        hidden = held.fold == k
        centroid[hidden], fits[k] = tried[i][2].centroid_px[hidden], tried[i][2].fits[k]
        widths.append(tried[i][0])
    return prepared, replace(held, centroid_px=centroid, fits=tuple(fits)), widths


def held_out_photons(cases: list[Prepared], held: HeldOut) -> np.ndarray:
    """Photons of each box by the fit that has not seen it, ``(n_boxes, n_pixels)``.

    The box's own pixels tell its intensity alone; where its spot lies and what shape it has is predicted.
    """
    shown = [np.asarray(p.density.fitted(fit.x).bragg) for p, fit in zip(cases, held.fits, strict=True)]
    return np.stack([shown[k][box] for box, k in enumerate(held.fold)])


def main(folder: Path, words: dict[str, str]) -> None:
    remember_programs()
    for shot in words.get("shot", ",".join(SHOTS)).split(","):
        tried, clock = [], time.perf_counter()
        for fwhm in (float(w) for w in words.get("fwhm", "25,40,60").split(",")):
            settings = settings_of(fwhm)
            still = load(folder, shot, settings)
            factors: StructureFactors = structure_factors(still, settings)
            prepared = prepare(still, factors, settings)
            held = hold_out(prepared, n_folds=int(words.get("folds", 5)))
            tried.append((fwhm, prepared, held))
            rows = prepared.shot.reflection_row
            offset = held.centroid_px - np.asarray(still.reflections["xyzobs.px.value"])[rows, :2]
            print(f"    {fwhm:g} eV: target {held.whole.target:.2f}, RMSD held out {rmsd(offset):.3f}", flush=True)
        prepared, held, widths = best_of(tried)
        report(shot, prepared, held, time.perf_counter() - clock)
        print(f"    widths taken: {', '.join(f'{w:g}' for w in widths)} eV", flush=True)
        if "picture" in words:
            cases = {width: case for width, case, _ in tried}
            bragg = held_out_photons([cases[width] for width in widths[1:]], held)
            figure = boxes_figure(prepared.shot, bragg, n_boxes=10, title=f"thermolysin {shot}: brightest, held out")
            path = Path(words["picture"])
            path.mkdir(parents=True, exist_ok=True)
            figure.savefig(path / f"held_out_{shot}.png", dpi=80)


if __name__ == "__main__":
    main(Path(sys.argv[1]), dict(word.split("=", 1) for word in sys.argv[2:]))
