"""One row of the table of `run.py`, measured in a process of its own, so that memory and programs are its own.

    python benchmarks/bench_row.py '{"what": "sum", "form": "closed", "n_channels": 30}'

Prints the row as JSON. Times are of compiled programs that have run before. Operations are counted in the program as it
is traced, loops times their length: one for each number that an addition, product or comparison makes, exponentials and
roots apart. Bytes are those that the compiler says its program touches; it counts a loop once, so that programs with
loops have none.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import bench_work
import jax
import jax.numpy as jnp
import numpy as np
from closed_scene import make_scene

from bayesbragg.forward import expected_photons
from bayesbragg.forward.approximation import approximation_error
from bayesbragg.forward.candidates import prepare_closed
from bayesbragg.forward.closed import closed_photons
from bayesbragg.pipeline.device import remember_programs

N_PARAMETERS = 8
SECONDS = 1.0
"""For how long a program is run again and again."""
ROOTS = {"exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "sin", "cos", "tanh", "pow", "asinh", "sinh", "cosh"}
FREE = {"broadcast_in_dim", "reshape", "squeeze", "transpose", "convert_element_type", "slice", "concatenate", "copy"}
FREE |= {"iota", "gather", "dynamic_slice", "name", "stop_gradient", "pad", "rev", "device_put", "split"}


def target(x: Any, start: Any, scene: Any, counts: Any, forward: Any, options: Any) -> Any:
    """The classic target of 8 parameters: orientation, two cell edges, block size, scale, distance."""
    cell = start.crystal.cell + jnp.array([1.0, 1, 0, 0, 0, 0]) * x[3] + jnp.array([0.0, 0, 1, 0, 0, 0]) * x[4]
    p = replace(
        start,
        crystal=replace(start.crystal, rot_xyz=start.crystal.rot_xyz + x[None, :3], cell=cell),
        mosaic=replace(start.mosaic, n_abc=start.mosaic.n_abc + x[5]),
        scale=replace(start.scale, G=start.scale.G * (1 + x[6])),
        panels=replace(start.panels, detz_m=start.panels.detz_m + x[7]),
    )
    mu = forward(p, scene, options).astype(jnp.float64)
    return jnp.sum(0.5 * jnp.log(mu + 2.0) + 0.5 * (counts - mu) ** 2 / (mu + 2.0))


def sum_row(
    form: str = "closed", shots: int = 1, forward_too: bool = True, count: bool = False, **size: Any
) -> dict[str, Any]:
    """Photons, and value and gradient of the target, of one scene or of copies of it in one program.

    Args:
        form: closed or exact.
        shots: copies.
        forward_too: time the photons alone as well.
        count: operations and bytes too, and the machine's peaks.
        size: of the scene (`closed_scene.make_scene`).
    """
    start, scene, options = make_scene(**size)
    given, forward = scene, expected_photons
    if form == "closed":
        given, forward = prepare_closed(start, scene, options), closed_photons
    n_boxes, n_pixels = scene.boxes.fast_px.shape
    counts = np.random.default_rng(0).uniform(0, 5, (n_boxes, n_pixels))
    photons = lambda start, given: forward(start, given, options)  # noqa: E731
    gradient = jax.value_and_grad(partial(target, forward=forward, options=options))
    start, given, counts, x = jax.device_put((start, given, counts, np.zeros(N_PARAMETERS)))
    if shots > 1:
        start, given, counts, x = jax.tree.map(lambda a: jnp.stack([a] * shots), (start, given, counts, x))
        photons, gradient = jax.vmap(photons), jax.vmap(gradient)
    row: dict[str, Any] = {}
    if forward_too:
        compiled = jax.jit(photons).lower(start, given).compile()
        row["forward_ms"], row["forward_least_ms"] = timed(partial(compiled, start, given))
    lowered = jax.jit(gradient).trace(x, start, given, counts)
    compiled = lowered.lower().compile()
    row["gradient_ms"], row["gradient_least_ms"] = timed(partial(compiled, x, start, given, counts))
    row["pixels"] = shots * n_boxes * n_pixels
    row["work"] = work(form, start, given, options, shots, n_boxes * n_pixels)
    if form == "closed" and shots == 1:
        row["error_of_peak"] = approximation_error(start, given, options, 1.0).of_peak
    elif options.precision == "float32":
        double, scene64, options64 = make_scene(**(size | {"precision": "float64"}))
        exact = np.asarray(expected_photons(double, scene64, options64))
        row["error_of_peak"] = float(np.abs(np.asarray(photons(start, given)) - exact).max() / exact.max())
    if count:
        row |= counted(lowered.jaxpr, compiled, row["gradient_least_ms"])
    return row


def work(form: str, start: Any, given: Any, options: Any, shots: int, pixels: int) -> str:
    """What is summed, in words."""
    if form == "exact":
        n = given.channels.wavelengths_A.shape[-1]
        mosaic = 2 * given.mosaic.axes.shape[-2] if options.spread != "none" else 1
        return f"{pixels * n * mosaic * options.oversample**2 * shots:.3g} terms"
    rows = given.reflexes.box.shape[-1] * (pixels // given.scene.boxes.fast_px.shape[-2])
    nodes = given.rule.shape[-2] if options.spread == "isotropic" else 1
    return f"{rows * given.subpixels**2 * nodes * shots:.3g} windows"


def timed(call: Callable[[], Any]) -> tuple[float, float]:
    """Median and least milliseconds."""
    jax.block_until_ready(call())
    times: list[float] = []
    end = time.perf_counter() + SECONDS
    while len(times) < 3 or (time.perf_counter() < end and len(times) < 300):
        clock = time.perf_counter()
        jax.block_until_ready(call())
        times.append(1e3 * (time.perf_counter() - clock))
    return float(np.median(times)), min(times)


def counted(jaxpr: Any, compiled: Any, ms: float) -> dict[str, Any]:
    """Operations and bytes of a program, and which share of the machine's peaks they are."""
    plain, roots = operations(jaxpr.jaxpr)
    flops, exponentials, bandwidth = peaks()
    cost = compiled.cost_analysis()
    cost = cost[0] if isinstance(cost, list) else cost
    touched = None if "scan[" in str(jaxpr) else float(cost["bytes accessed"])
    rate = 1e3 / ms
    return {
        "operations": plain, "exponentials": roots, "bytes": touched, "peak_flops": flops,
        "peak_exponentials": exponentials, "peak_bandwidth": bandwidth, "share_flops": rate * plain / flops,
        "share_exponentials": rate * roots / exponentials,
        "share_bandwidth": None if touched is None else rate * touched / bandwidth,
    }  # fmt: skip


def operations(jaxpr: Any) -> tuple[float, float]:
    """Plain operations, and exponentials, logarithms, roots and angles; matrix products count two per term."""
    plain = roots = 0.0
    for equation in jaxpr.eqns:
        parts = [p for p in equation.params.values() if hasattr(p, "eqns") or hasattr(p, "jaxpr")]
        if parts:
            times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
            for part in parts:
                a, b = operations(part if hasattr(part, "eqns") else part.jaxpr)
                plain, roots = plain + times * a, roots + times * b
            continue
        name, size = equation.primitive.name, sum(float(np.prod(v.aval.shape)) for v in equation.outvars)
        if name in ROOTS:
            roots += size
        elif name == "dot_general":
            (left, _), _ = equation.params["dimension_numbers"]
            plain += 2.0 * size * float(np.prod([equation.invars[0].aval.shape[i] for i in left]))
        elif name.startswith("reduce_"):
            plain += float(np.prod(equation.invars[0].aval.shape))
        elif name not in FREE:
            plain += size
    return plain, roots


def peaks() -> tuple[float, float, float]:
    """What the device reaches in float64: operations of a matrix product, exponentials, and bytes of a triad, per s."""
    big, n = 4 * 1024 * 1024, 1024
    a, b = (jnp.asarray(np.random.default_rng(i).uniform(0.5, 1.0, (n, n))) for i in range(2))
    x, y = jnp.ones(big), jnp.full(big, 0.5)
    product, triad, power = jax.jit(jnp.matmul), jax.jit(lambda x, y: x + 1.01 * y), jax.jit(jnp.exp)
    small = jnp.linspace(-1.0, 0.0, 1 << 16)
    flops = 2.0 * n**3 / timed(partial(product, a, b))[1] * 1e3
    exponentials = small.size / timed(partial(power, small))[1] * 1e3
    return flops, exponentials, 24.0 * big / timed(partial(triad, x, y))[1] * 1e3


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    spec = json.loads(sys.argv[1])
    if "programs" in spec:
        remember_programs(Path(spec.pop("programs")))
    compiled: list[float] = []

    def heard(event: str, duration: float, **_: Any) -> None:
        if event.endswith("backend_compile_duration"):
            compiled.append(duration)

    jax.monitoring.register_event_duration_secs_listener(heard)
    what = spec.pop("what")
    clock = time.perf_counter()
    kinds = {"sum": sum_row, "fits": bench_work.fits_row, "draws": bench_work.draws_row, "share": bench_work.share_row}
    row = kinds[what](**spec)
    statistics = jax.devices()[0].memory_stats() or {}
    row["peak_GB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    row["device_peak_GB"] = statistics.get("peak_bytes_in_use", 0) / 1e9 or None
    row |= {"programs": len(compiled), "seconds": time.perf_counter() - clock, "load": os.getloadavg()[0]}
    print(json.dumps(row))


if __name__ == "__main__":
    main()
