"""Time, error and memory of the closed forms: value and gradient of the classic target, 14,400 pixels, 8 parameters.

    python benchmarks/closed_forms.py [repeats]

Each row runs in a process of its own, so that its peak memory is its own. Times are the least of many, without
compilation; the least processor time of a call, over all threads, says what a busy machine hides. Error: largest
estimated error relative to the shot's brightest pixel. Work: windows of spectra evaluated per call (subpixels x nodes
of the spread x rows of pixels), each an exponential and a look-up in a table, or as many exponentials as channels.
Writes results/closed_forms.md and .json.
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
    compiled: list[str] = []

    def count(event: str, duration: float, **_: Any) -> None:
        if event.endswith("backend_compile_duration"):
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(count)
    start, scene, options = make_scene(**size)
    error, nodes, spread = 0.0, len(scene.channels.strength), size.get("n_mosaic", 1)
    table, subpixels = "", options.oversample
    forward, given = expected_photons, scene
    if kind == "closed":
        given = prepare_closed(start, scene, options)
        nodes, forward = len(given.nodes.strength), closed_photons
        spread = len(given.rule) if options.spread == "isotropic" else 1
        table = "" if given.table is None else "x".join(map(str, given.table.values.shape))
        subpixels = given.subpixels
    pixels = scene.boxes.fast_px.size
    rows = (
        pixels // len(scene.boxes.fast_px) * (len(given.reflexes.box) if kind == "closed" else len(scene.boxes.fast_px))
    )
    work = rows * subpixels**2 * spread
    start, given = jax.device_put((start, given))
    counts = jnp.asarray(np.random.default_rng(0).uniform(0, 5, (100, 144)))
    x = jnp.zeros(8)
    jax.block_until_ready(_target(x, start, given, counts, forward, options))
    walls, processor = [], []
    for _ in range(repeats):
        clock, used = time.perf_counter(), time.process_time()
        jax.block_until_ready(_target(x, start, given, counts, forward, options))
        walls.append(time.perf_counter() - clock)
        processor.append(time.process_time() - used)
    cpu, programs = min(processor), len(compiled)
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    if kind == "closed":
        error = approximation_error(start, given, options, 1.0).of_peak
    wall, median = min(walls) * 1e3, float(np.median(walls)) * 1e3
    return {
        "wall": wall, "median": median, "cpu": cpu * 1e3, "nodes": nodes, "spread": spread, "table": table,
        "work": work, "error": error, "rss": rss, "programs": programs,
    }  # fmt: skip


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 and sys.argv[1].isdigit() else 100
    if len(sys.argv) > 3 and sys.argv[2] == "--row":
        print(json.dumps(measure(sys.argv[3], repeats)))
        return
    lines = [
        "| case | least ms | median ms | least processor ms | channels kept | nodes of spread | table | windows "
        "| error of peak | peak GB | programs | load |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    table = {}
    for name in ROWS:
        command = [sys.executable, __file__, str(repeats), "--row", name]
        row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        row["load"] = os.getloadavg()[0]
        table[name] = row
        lines.append(
            f"| {name} | {row['wall']:.2f} | {row['median']:.2f} | {row['cpu']:.2f} | {row['nodes']} | {row['spread']} "
            f"| {row['table']} | {row['work']} | {row['error']:.1e} | {row['rss']:.2f} | {row['programs']} "
            f"| {row['load']:.1f} |"
        )
        print(lines[-1], flush=True)
    where = f"{os.cpu_count()} cores, jax {jax.__version__}"
    title = f"# Closed forms: value and gradient, 14,400 pixels, 8 parameters ({where})"
    text = "\n".join([title, "", *lines, ""])
    results = Path(__file__).parent / "results"
    (results / "closed_forms.md").write_text(text)
    (results / "closed_forms.json").write_text(json.dumps({"where": where, "rows": table}, indent=1) + "\n")


if __name__ == "__main__":
    main()
