"""Why the pulls of the tutorial's shots are what they are: one step from the truth, for several beliefs.

    python benchmarks/pull_causes.py [TUTORIAL_FOLDER] [--shots 0,1,2] [--photons 0,1e9] [--work FOLDER]

The model's photons and their derivatives are taken at the true parameters (the scale that of the fit), with the
reference structure factors and with those that made the images. One scoring step from there with a likelihood's score
and information gives the errors of its fit in its own error bars, without a fit: they equal those of fits to
0.07 error bars. Beliefs: ``plain``; ``gain`` (3 % of a pixel); ``both`` (and 3 % of a reference intensity); ``free``
intensities; ``true_F`` and ``true_F_gain`` with the amplitudes that made the images; ``linear``, as the last but
without the variance's share of the Gaussian score, which is what weighted least squares with known weights would do.
``--photons`` keeps boxes with an expectation between two numbers; ``joint`` is the square of a shot's error in all
parameters but the scale together, whatever the scale is: 8 on average if all is right.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from posterior import NAMES, TUTORIAL, tutorial_settings

FloatArray = np.ndarray
BELIEFS: dict[str, tuple[str, float, float, bool]] = {
    "plain": ("reference", 0.0, 0.0, False),
    "gain": ("reference", 0.03, 0.0, False),
    "both": ("reference", 0.03, 0.03, False),
    "free": ("reference", 0.03, 5.0, False),
    "true_F": ("true", 0.0, 0.0, False),
    "true_F_gain": ("true", 0.03, 0.0, False),
    "linear": ("true", 0.03, 0.0, True),
}
"""Amplitudes, relative errors of pixels and of intensities, and whether the score is linear in the counts."""


def at_the_truth(folder: Path, number: int) -> dict[str, Any]:
    """Pixels of a shot, and photons and derivatives by central differences at its truth."""
    from wilson import misorientation

    import bayesbragg as bb
    from bayesbragg.inference.density import _parameters

    tag, found = f"shot_{number:03d}", {}
    truth = json.loads((folder / "truth" / f"{tag}.json").read_text())
    for kind, true_F in (("reference", False), ("true", True)):
        settings = tutorial_settings(folder, sigma_gain=0.03, true_F=true_F)
        files = [folder / "indexed" / f"{tag}_{end}" for end in ("refined.expt", "indexed.refl")]
        (still,) = bb.load(*files, settings)
        refined = bb.refine(still, settings)
        fit, density = refined.fit, refined.prepared.density
        turn = misorientation(refined.crystals[0], np.reshape(truth["U"], (3, 3)))
        values = dict(zip(fit.names, fit.values, strict=True))
        true = {name: values[name] - angle for name, angle in zip(NAMES[:3], turn, strict=True)}
        true |= {"ucell_a": 79.1, "ucell_c": 38.4, "Na": 10.0, "Nb": 10.0, "Nc": 10.0, "G": values["G"]}
        at = np.array([true[name] for name in fit.names])

        def photons(theta: FloatArray, density: Any = density) -> FloatArray:
            parameters = _parameters(theta, density.problem)
            return np.asarray(density.recipe.forward(parameters, density.problem.scene, density.recipe.options))

        steps = 0.05 * np.diag(fit.standard_errors)
        found[kind] = photons(at)
        slopes = [(photons(at + s) - photons(at - s)) / (2 * s.max()) for s in steps]
        found[f"{kind}_slopes"] = np.stack(slopes, axis=1).astype(np.float32)
    pixels = density.problem.pixels
    for name in ("counts", "background", "trusted", "variance"):
        found[name] = np.broadcast_to(np.asarray(getattr(pixels, name)), found["true"].shape)
    return found | {"names": np.array(fit.names)}


def step(shot: dict[str, Any], belief: str, photons: tuple[float, float]) -> tuple[FloatArray, float]:
    """Errors over error bars of the parameters ``NAMES``, and the joint square."""
    kind, gain, intensity, linear = BELIEFS[belief]
    total = np.sum(np.where(shot["trusted"], shot[kind], 0.0), axis=1, keepdims=True)
    trusted = shot["trusted"] & (total >= photons[0]) & (total < photons[1])
    bragg, J = shot[kind], shot[f"{kind}_slopes"].astype(float)
    mu = np.where(trusted, bragg + shot["background"], 1.0)
    residual = np.where(trusted, shot["counts"] - mu, 0.0)
    V = mu + shot["variance"] + (gain * mu) ** 2
    slope = 0.0 if linear else 1.0 + 2.0 * gain**2 * mu
    score = np.where(trusted, residual / V + 0.5 * (residual**2 / V - 1.0) * slope / V, 0.0)
    weight = np.where(trusted, 1.0 / V + 0.5 * (slope / V) ** 2, 0.0)
    S, F = np.einsum("bkp,bp->k", J, score), np.einsum("bkp,bp,blp->kl", J, weight, J)
    if intensity:
        D = intensity * bragg
        M, cross, own = 1.0 + np.sum(D * D * weight, 1), np.einsum("bkp,bp->bk", J, weight * D), np.sum(D * score, 1)
        S, F = S - cross.T @ (own / M), F - (cross.T / M) @ cross
    keep = [name != "G" or intensity < 1.0 for name in shot["names"]]
    S, F, names = S[keep], F[np.ix_(keep, keep)], list(shot["names"][keep])
    C = np.linalg.inv(F)
    pulls = C @ S / np.sqrt(np.diag(C))
    at = [names.index(name) for name in NAMES]
    errors = (C @ S)[at]
    return pulls[at], float(errors @ np.linalg.solve(C[np.ix_(at, at)], errors))


def main() -> None:
    import jax

    jax.config.update("jax_enable_x64", True)
    from bayesbragg.pipeline.device import remember_programs

    remember_programs()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=TUTORIAL)
    parser.add_argument("--shots", default=",".join(str(n) for n in range(16)))
    parser.add_argument("--photons", default="0,1e9")
    parser.add_argument("--work", type=Path, default=Path("pull_causes"))
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    shots = []
    for number in (int(word) for word in arguments.shots.split(",")):
        path = arguments.work / f"shot_{number:03d}.npz"
        if not path.is_file():
            np.savez(path, **at_the_truth(arguments.folder, number))
        shots.append(dict(np.load(path)))
    n, limits = len(shots), [float(word) for word in arguments.photons.split(",")]
    print(f"| belief | | {' | '.join(NAMES)} | all | joint | inside 95 % |\n" + "|---" * (5 + len(NAMES)) + "|")
    for belief in BELIEFS:
        found = [step(shot, belief, (limits[0], limits[1])) for shot in shots]
        pulls, joint = np.array([pair[0] for pair in found]), sum(pair[1] for pair in found)
        chi, share = np.sum(pulls**2, axis=0), np.mean(np.abs(pulls) < 1.96)
        error = (0.05 * 0.95 / pulls.size) ** 0.5
        rows = (
            ("mean", [f"{v:+.2f}" for v in pulls.mean(axis=0)], f"{pulls.mean():+.2f}", "", ""),
            ("sd", [f"{v:.2f}" for v in pulls.std(axis=0, ddof=1)], f"{pulls.std():.2f}", "", ""),
            (
                "chi-square",
                [f"{v:.0f}" for v in chi],
                f"{chi.sum():.0f}",
                f"{joint:.0f}",
                f"{share:.3f} +- {error:.3f}",
            ),
        )
        for what, cells, whole, together, inside in rows:
            first = belief if what == "mean" else ""
            print(f"| {first} | {what} | {' | '.join(cells)} | {whole} | {together} | {inside} |")
    print(f"\nExpected of {n} shots: mean 0 +- {n**-0.5:.2f}, sd 1 +- {(2 * (n - 1)) ** -0.5:.2f}, chi-square {n} +- "
          f"{(2 * n) ** 0.5:.0f} for a parameter and {8 * n} +- {(16 * n) ** 0.5:.0f} for the joint one.")  # fmt: skip


if __name__ == "__main__":
    main()
