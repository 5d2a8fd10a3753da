"""Background planes inferred with the rest: do the error bars hold, where the planes come from few pixels?

    python benchmarks/planes.py [N_SHOTS] [--pad 3] [--level 1.0]

Shots of the virtual experiment, boxes about the brightest predicted reflections (chosen before the noise), images with
Poisson and readout noise, background planes from the image: fitted once for all (``poisson``), from the pixels around
the box alone and integrated out with those in it (``inferred``), and the true ones (``known``). A small pad leaves few
pixels for the planes. Prints coverage of the Gaussian's intervals, standard errors from the scatter between shots.
"""

from __future__ import annotations

import argparse

import numpy as np


def pulls_of(seed: int, kind: str, pad: int, level: float) -> np.ndarray | None:
    """Errors of a shot's fit over its error bars, or None if it did not converge."""
    from trials import CELL, PRIORS

    import bayesbragg as bb
    from bayesbragg.forward import Options, Parameters, build_scene
    from bayesbragg.forward.candidates import Margin, prepare_closed
    from bayesbragg.forward.closed import closed_photons
    from bayesbragg.inference.density import LogDensity
    from bayesbragg.inference.map import fit_map
    from bayesbragg.inference.pixels import Pixels
    from bayesbragg.model import Reflections
    from bayesbragg.pipeline.pixel_model import pixels_of
    from bayesbragg.priors import CellConstraint, make_layout
    from bayesbragg.stills.boxes import BoxSettings
    from bayesbragg.stills.shot import make_shot
    from bayesbragg.stills.simulation import Camera, known_background_shot, simulate_still
    from bayesbragg.stills.virtual import virtual_experiment

    world = virtual_experiment(seed, n_channels=8)
    truth = Parameters.start(CELL, n_abc=(10.0, 11.0, 14.0), G=600.0)
    still = simulate_still(
        truth, world.detector, world.beam, world.spectrum, [world.crystal], world.factors, Options(),
        background=level, camera=Camera(), seed=seed,
    )  # fmt: skip
    if kind == "known":
        shot = known_background_shot(still, side=12, least_photons=20.0, most=56).padded(64)
        pixels = Pixels.from_shot(shot)
    else:
        order = np.argsort(-still.photons, kind="stable")
        rows = order[still.photons[order] >= 20.0][:56]
        place = np.column_stack([still.centroid, np.zeros(len(still.centroid))])
        table = Reflections({
            "panel": still.predictions.panel[rows], "miller_index": still.predictions.miller_index[rows],
            "xyzobs.px.value": place[rows], "id": np.zeros(len(rows), dtype=np.int64),
        })  # fmt: skip
        others = order[(still.photons[order] >= 2.0)][len(rows) :]
        boxes = BoxSettings(pad_shoebox_for_background_estimation=pad, mask_outside_trusted_range=False)
        cut, report = make_shot(
            still.panels(), world.detector, table, boxes, gain=28.0, sigma_readout_adu=3.0, background=kind,
            beam=world.beam, other_spots=(still.predictions.panel[others], still.centroid[others]),
        )  # fmt: skip
        shot = cut.padded(64)
        settings = bb.RefineSettings(counts=bb.CountSettings(28.0, 3.0), background=kind)  # type: ignore[arg-type]
        pixels = pixels_of(shot, report, settings, [world.crystal])
    layout, base = make_layout(PRIORS, truth, CellConstraint.for_space_group(96, CELL))
    scene = build_scene(
        world.detector, world.beam, world.spectrum, [world.crystal], shot, world.factors, truth, Options()
    )
    closed = prepare_closed(truth, scene, Options(), Margin(0.05, 0.001, 0.6))
    density = LogDensity(closed_photons, closed, Options(), pixels, layout, base)
    fit = fit_map(density)
    known = {"rotX": 0.0, "rotY": 0.0, "rotZ": 0.0, "ucell_a": CELL[0], "ucell_c": CELL[2], "G": 600.0}
    known |= {"Na": 10.0, "Nb": 11.0, "Nc": 14.0}
    off = fit.values - np.array([known[name] for name in fit.names])
    return np.append(off / fit.standard_errors, shot.n_boxes) if fit.converged else None


def main() -> None:
    import jax

    jax.config.update("jax_enable_x64", True)
    from bayesbragg.pipeline.device import remember_programs

    remember_programs()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("n", nargs="?", type=int, default=60)
    parser.add_argument("--pad", type=int, default=3)
    parser.add_argument("--level", type=float, default=1.0)
    parser.add_argument("--kinds", default="known,poisson,inferred")
    arguments = parser.parse_args()
    for kind in arguments.kinds.split(","):
        rows = [pulls_of(seed, kind, arguments.pad, arguments.level) for seed in range(arguments.n)]
        pulls = np.array([row[:-1] for row in rows if row is not None])
        n = len(pulls)
        words = [f"{kind}, pad {arguments.pad}, {arguments.level:g} photon per pixel: {n} of {len(rows)} converged"]
        for probability, z in ((0.68, 0.9945), (0.95, 1.9600)):
            inside = np.mean(np.abs(pulls) < z, axis=1)
            words.append(f"{probability:.0%} intervals {inside.mean():.3f} +- {inside.std(ddof=1) / n**0.5:.3f}")
        squares = np.mean(pulls**2, axis=1)
        words.append(f"mean square pull {squares.mean():.3f} +- {squares.std(ddof=1) / n**0.5:.3f}")
        print(", ".join(words), flush=True)
        print("   mean pulls (+- %.2f): " % n**-0.5 + " ".join(f"{v:+.2f}" for v in pulls.mean(axis=0)), flush=True)


if __name__ == "__main__":
    main()
