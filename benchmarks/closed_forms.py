"""Time, error and memory of the closed forms: value and gradient of the classic target, 14,400 pixels, 8 parameters.

    python benchmarks/closed_forms.py [repeats]

Each row runs in a process of its own, so that its peak memory is its own. Times are the least of many, without
compilation. Error: largest estimated error relative to the shot's brightest pixel. Writes results/closed_forms.md.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from closed_scene import make_scene

from bayesbragg.forward import expected_photons
from bayesbragg.forward.approximation import approximation_error
from bayesbragg.forward.candidates import prepare_closed
from bayesbragg.forward.closed import closed_photons

SPREAD = {"spread": "isotropic", "eta_deg": 0.1, "n_mosaic": 20, "oversample": 2}
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "exact sum, 30 channels": ("exact", {"n_channels": 30}),
    "closed, 30 channels": ("closed", {"n_channels": 30}),
    "closed, 1000 channels": ("closed", {"n_channels": 1000}),
    "closed, 100 channels, spread, 4 subpixels": ("closed", {"n_channels": 100, **SPREAD}),
}


@partial(jax.jit, static_argnames=("forward", "options"))
def _target(x: Any, start: Any, scene: Any, counts: Any, forward: Any, options: Any) -> Any:
    def target(x: Any) -> Any:
        cell = start.crystal.cell + jnp.array([1.0, 1, 0, 0, 0, 0]) * x[3] + jnp.array([0.0, 0, 1, 0, 0, 0]) * x[4]
        p = replace(
            start,
            crystal=replace(start.crystal, rot_xyz=start.crystal.rot_xyz + x[None, :3], cell=cell),
            mosaic=replace(start.mosaic, n_abc=start.mosaic.n_abc + x[5]),
            scale=replace(start.scale, G=start.scale.G * (1 + x[6])),
            panels=replace(start.panels, detz_m=start.panels.detz_m + x[7]),
        )
        mu = forward(p, scene, options)
        return jnp.sum(0.5 * jnp.log(mu + 2.0) + 0.5 * (counts - mu) ** 2 / (mu + 2.0))

    return jax.value_and_grad(target)(x)


def measure(name: str, repeats: int) -> dict[str, Any]:
    kind, size = ROWS[name]
    start, scene, options = make_scene(**size)
    error, nodes = 0.0, len(scene.channels.strength)
    forward, given = expected_photons, scene
    if kind == "closed":
        given = prepare_closed(start, scene, options)
        nodes, forward = len(given.nodes.strength), closed_photons
    start, given = jax.device_put((start, given))
    counts = jnp.asarray(np.random.default_rng(0).uniform(0, 5, (100, 144)))
    x = jnp.zeros(8)
    jax.block_until_ready(_target(x, start, given, counts, forward, options))
    walls = []
    cpu = time.process_time()
    for _ in range(repeats):
        clock = time.perf_counter()
        jax.block_until_ready(_target(x, start, given, counts, forward, options))
        walls.append(time.perf_counter() - clock)
    cpu = (time.process_time() - cpu) / repeats
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    if kind == "closed":
        error = approximation_error(start, given, options, 1.0).of_peak
    wall, median = min(walls) * 1e3, float(np.median(walls)) * 1e3
    return {"wall": wall, "median": median, "cpu": cpu * 1e3, "nodes": nodes, "error": error, "rss": rss}


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 and sys.argv[1].isdigit() else 100
    if len(sys.argv) > 3 and sys.argv[2] == "--row":
        print(json.dumps(measure(sys.argv[3], repeats)))
        return
    lines = [
        "| case | least ms | median ms | processor ms | nodes | error of peak | peak GB | load |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in ROWS:
        command = [sys.executable, __file__, str(repeats), "--row", name]
        row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        load = os.getloadavg()[0]
        lines.append(
            f"| {name} | {row['wall']:.2f} | {row['median']:.2f} | {row['cpu']:.2f} | {row['nodes']} "
            f"| {row['error']:.1e} | {row['rss']:.2f} | {load:.1f} |"
        )
        print(lines[-1], flush=True)
    where = f"{os.cpu_count()} cores, jax {jax.__version__}"
    title = f"# Closed forms: value and gradient, 14,400 pixels, 8 parameters ({where})"
    text = "\n".join([title, "", *lines, ""])
    (Path(__file__).parent / "results" / "closed_forms.md").write_text(text)


if __name__ == "__main__":
    main()
