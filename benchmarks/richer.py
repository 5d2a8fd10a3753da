"""Models with unknowns above the shot, on simulated data with known truth.

    python benchmarks/richer.py [gain] [population]

``gain``: a shot whose pixels have gains that are off by 5 %; how much is a parameter with a wide prior of its own,
sampled with the others. ``population``: six crystals whose cell edge a scatters by 0.03 angstrom about 79.13; mean and
scatter are sampled with the parameters of all shots (`bayesbragg.inference.population.population_model`). Boxes, model
and priors are those of the bright case of `calibration.py`. NUTS, two chains.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np


def with_counts(density: object, counts: np.ndarray) -> object:
    """The density with other data."""
    import jax.numpy as jnp

    pixels = density.problem.pixels  # type: ignore[attr-defined]
    return density.with_pixels(replace(pixels, counts=jnp.asarray(counts)))  # type: ignore[attr-defined]


def report(title: str, posterior: object, truth: dict[str, float]) -> None:
    """Every site whose truth is known: mean, sd, interval, error in sds."""
    print(f"{title}: verdict {posterior.verdict}, {posterior.seconds:.0f} s")  # type: ignore[attr-defined]
    intervals = posterior.interval()  # type: ignore[attr-defined]
    pulls = []
    for name, mean, sd, ends in zip(posterior.names, posterior.mean, posterior.sd, intervals, strict=True):  # type: ignore[attr-defined]
        if name not in truth:
            continue
        pulls.append((mean - truth[name]) / sd)
        if len(truth) < 15 or "mean" in name or "spread" in name:
            print(
                f"  {name}: truth {truth[name]:.5g}, mean {mean:.5g}, sd {sd:.2g}, 95 % interval {ends[0]:.5g} to "
                f"{ends[1]:.5g}, off by {pulls[-1]:+.2f} sd"
            )
    squares = np.sum(np.square(pulls))
    print(f"  all {len(pulls)} with a known truth: chi-square {squares:.1f} +- {(2 * len(pulls)) ** 0.5:.1f}")


def gain() -> None:
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist
    from calibration import make_density

    from bayesbragg.diagnostics.calibration import simulate
    from bayesbragg.inference.numpyro_model import default_priors, model_target, observe_pixels
    from bayesbragg.inference.nuts import NutsOptions, nuts

    density = make_density("bright")
    density = density.with_pixels(replace(density.problem.pixels, gain_sd=jnp.asarray(0.05)))
    simulations = simulate(density, 1, seed=5)
    shot = with_counts(density, simulations.counts[0])
    priors = default_priors(density.layout)

    def model() -> None:
        values = {name: jnp.asarray(numpyro.sample(name, prior)) for name, prior in priors.items()}
        observe_pixels(shot, values, gain_sd=numpyro.sample("sigma_gain", dist.HalfNormal(0.3)))

    truth = dict(zip(density.layout.names, simulations.truths[0].tolist(), strict=True)) | {"sigma_gain": 0.05}
    target = model_target(model, start=truth | {"sigma_gain": 0.1})
    report("gain", nuts(target, NutsOptions(n_chains=2, n_draws=500), seed=1), truth)


def population(n: int = 6) -> None:
    import jax
    import jax.numpy as jnp
    import numpyro.distributions as dist
    from calibration import make_density

    from bayesbragg.diagnostics.calibration import _data, simulate
    from bayesbragg.inference.nuts import NutsOptions, nuts
    from bayesbragg.inference.population import population_model

    density = make_density("bright")
    truths = simulate(density, n, seed=6).truths
    rng = np.random.default_rng(6)
    truths[:, density.layout.names.index("ucell_a")] = 79.13 + 0.03 * rng.standard_normal(n)
    keys = jax.random.split(jax.random.PRNGKey(7), n)
    counts = np.asarray(_data(jnp.asarray(truths), keys, density.problem, density.recipe))
    shots = [with_counts(density, one) for one in counts]
    hyper = {"ucell_a": (dist.Normal(79.0, 1.0), dist.HalfNormal(0.3))}
    truth = {"ucell_a_mean": 79.13, "ucell_a_spread": 0.03}
    truth |= {
        f"{name}_{i}": float(v)
        for i, row in enumerate(truths)
        for name, v in zip(density.layout.names, row, strict=True)
    }
    target = model_target_of(population_model(shots, hyper), truth)  # type: ignore[arg-type]
    report("population", nuts(target, NutsOptions(n_chains=2, n_draws=500, target_accept=0.8), seed=1), truth)
    a = truths[:, density.layout.names.index("ucell_a")]
    print(f"  the six crystals themselves: mean {a.mean():.4f}, scatter {a.std(ddof=1):.4f}")


def model_target_of(model: object, start: dict[str, float]) -> object:
    from bayesbragg.inference.numpyro_model import model_target

    return model_target(model, start=start)  # type: ignore[arg-type]


if __name__ == "__main__":
    import jax

    jax.config.update("jax_enable_x64", True)
    for what in sys.argv[1:] or ("gain", "population"):
        {"gain": gain, "population": population}[what]()
