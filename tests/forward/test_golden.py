"""Values and derivatives of the exact sum against the classic program and its finite differences."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from forward.golden_scene import golden_setup, golden_shot
from golden import golden_cases, load_golden

from bayesbragg.forward import PointSpread, blur, expected_photons, window_holds
from bayesbragg.forward.psf import fibre_kernel
from bayesbragg.model import StructureFactors

PIXEL_CASES = [case for case in golden_cases() if not case.startswith(("16", "17", "18", "19"))]


@pytest.mark.parametrize("case", PIXEL_CASES)
def test_photons(case: str) -> None:
    g = load_golden(case)
    parameters, scene, options, shot = golden_setup(g)
    photons = np.asarray(expected_photons(parameters, scene, options))[shot.valid]
    assert np.abs(photons - g["I"]).max() < 1e-10 * g["I"].max()
    assert window_holds(parameters, scene)


@pytest.mark.parametrize(("case", "limit"), [("01", 1e-6), ("13a", 1e-6), ("13b", 1e-6)])
def test_float32_is_safe(case: str, limit: float) -> None:
    g = load_golden(case)
    parameters, scene, options, shot = golden_setup(g, precision="float32")
    photons = expected_photons(parameters, scene, options)
    assert photons.dtype == jnp.float32
    error = np.asarray(photons, float)[shot.valid] - g["I"]
    assert np.linalg.norm(error) < limit * np.linalg.norm(g["I"])


def _cell_tangent(name: str, g: dict[str, Any]) -> np.ndarray:
    """Which of a, b, c, alpha, beta, gamma move with a variable of the classic program."""
    letter = name.split("_")[1]
    tangent = np.zeros(6)
    if letter in "abc":
        tangent["abc".index(letter)] = 1.0
        number = g["meta"]["space_group_number"]
        if letter == "a" and 75 <= number <= 194:
            tangent[1] = 1.0
        if letter == "a" and number >= 195:
            tangent[1:3] = 1.0
    else:
        tangent[3 + ["alpha", "beta", "gamma"].index(letter)] = 1.0
    return tangent


def _directional(name: str, g: dict[str, Any], p: Any, scene: Any) -> tuple[Any, Any]:
    """Tangents of (parameters, scene) for a derivative that the golden files name."""
    dp, ds = jax.tree.map(jnp.zeros_like, p), jax.tree.map(lambda a: jnp.zeros(np.shape(a)), scene)
    lattice = int(m.group(1)) if (m := re.search(r"xtal(\d)", name)) else slice(None)
    short = re.sub(r"_xtal\d$", "", name)

    def unit(array: Any, index: Any) -> Any:
        return jnp.asarray(array).at[index].set(1.0)

    def crystal(**change: Any) -> Any:
        return replace(dp, crystal=replace(dp.crystal, **change))

    def mosaic(**change: Any) -> Any:
        return replace(dp, mosaic=replace(dp.mosaic, **change))

    def panels(**change: Any) -> Any:
        return replace(dp, panels=replace(dp.panels, **change))

    if short.startswith("Rot"):
        return crystal(rot_xyz=unit(dp.crystal.rot_xyz, (lattice, "XYZ".index(short[3])))), ds
    if short.startswith("ucell"):
        return crystal(cell=jnp.asarray(_cell_tangent(short, g))), ds
    if short == "N_iso":
        return mosaic(n_abc=jnp.ones_like(dp.mosaic.n_abc)), ds
    if short in ("Na", "Nb", "Nc"):
        return mosaic(n_abc=unit(dp.mosaic.n_abc, (lattice, "abc".index(short[1])))), ds
    if short in ("Nd", "Ne", "Nf"):
        return mosaic(n_def=unit(dp.mosaic.n_def, (lattice, "def".index(short[1])))), ds
    if short == "eta":
        return mosaic(eta_deg=jnp.ones(3)), ds
    if short.startswith("eta_"):
        return mosaic(eta_deg=unit(dp.mosaic.eta_deg, "abc".index(short[4]))), ds
    if short == "lambda_offset":
        return replace(dp, spectrum=replace(dp.spectrum, offset_A=jnp.ones(()))), ds
    if short == "lambda_scale":
        return replace(dp, spectrum=replace(dp.spectrum, scale=jnp.ones(()))), ds
    if short.startswith("PanelRot"):
        return panels(rotation_rad=unit(dp.panels.rotation_rad, (slice(None), "OFS".index(short[8])))), ds
    if short.startswith("Panel"):
        return panels(translation_m=unit(dp.panels.translation_m, (slice(None), "XYZ".index(short[5])))), ds
    if short.startswith("diffuse_"):
        field = short.split("_")[1] + "_A"
        tangent = unit(getattr(dp.diffuse, field), "abc".index(short[-1]))
        return replace(dp, diffuse=replace(dp.diffuse, **{field: tangent})), ds
    if short in ("spot_scale", "G"):
        return replace(dp, scale=replace(dp.scale, G=unit(dp.scale.G, lattice))), ds
    if short.startswith("fdblprime"):
        row = 0 if short.endswith("c") else 1
        atoms = replace(
            ds.factors.heavy_atoms,
            fprime=jnp.asarray(g["dfprime_dc_dd"][row]),
            fdoubleprime=jnp.asarray(g["dfdblprime_dc_dd"][row]),
        )
        return dp, replace(ds, factors=replace(ds.factors, heavy_atoms=atoms))
    raise AssertionError(f"no rule for the derivative {name!r}")


@pytest.mark.parametrize("case", PIXEL_CASES)
def test_derivatives(case: str) -> None:
    g = load_golden(case)
    parameters, scene, options, shot = golden_setup(g)
    as_float = jax.tree.map(lambda a: jnp.asarray(a), scene)
    numbers, rebuild = _split_floats(as_float)

    @jax.jit
    def derivative(dp: Any, ds: list[Any]) -> Any:
        def photons(p: Any, floats: list[Any]) -> Any:
            return expected_photons(p, rebuild(floats), options)

        return jax.jvp(photons, (jax.tree.map(jnp.asarray, parameters), numbers), (dp, ds))[1]

    names = [key[4:] for key in g if key.startswith("fd__")]
    assert names
    for name in names:
        dp, ds = _directional(name, g, parameters, as_float)
        ours = np.asarray(derivative(dp, _split_floats(ds, as_float)[0]))[shot.valid]
        reference = g[f"fd__{name}"]
        error = np.linalg.norm(ours - reference) / np.linalg.norm(reference)
        limit = 1e-6
        if case.startswith("13b") and name in ("PanelRotF", "PanelRotS"):
            # The stored difference itself is no better here (rounding); `test_extended_precision` takes its place.
            limit = 4 * next(q["fd_selfconsistency"] for q in g["meta"]["parameters"] if q["name"] == name)
        assert error < limit, f"{case} {name}: {error:.1e}"


@pytest.mark.parametrize("name", ["PanelRotF", "PanelRotS", "PanelRotO", "PanelZ"])
def test_extended_precision(name: str) -> None:
    """Panel derivatives of the finely sampled large cell against differences taken in 80-bit arithmetic."""
    g = load_golden("13b")
    parameters, scene, options, shot = golden_setup(g)
    dp, _ = _directional(name, g, parameters, scene)
    parameters = jax.tree.map(jnp.asarray, parameters)
    ours = jax.jvp(lambda p: expected_photons(p, scene, options), (parameters,), (dp,))[1]
    step = np.longdouble({"PanelZ": 1e-8, "PanelRotO": 1e-4}.get(name, 1e-3))
    difference = (
        8 * (_longdouble_photons(g, name, step) - _longdouble_photons(g, name, -step))
        - (_longdouble_photons(g, name, 2 * step) - _longdouble_photons(g, name, -2 * step))
    ) / (12 * step)
    error = np.linalg.norm(np.asarray(ours)[shot.valid] - difference.astype(float))
    assert error < 2e-8 * np.linalg.norm(difference.astype(float))


def _longdouble_photons(g: dict[str, Any], name: str, move: Any) -> np.ndarray:
    """One panel, one wavelength, one block: the classic sum written out in numpy's extended precision."""
    q = {key: np.asarray(g[key], np.longdouble) for key in g if key != "meta" and g[key].dtype.kind == "f"}
    panel = g["pixels_panel_fast_slow"][:, 0]
    o, F, S, N = (q[f"panels_{k}"][panel] for k in ("nominal_origin_mm", "nominal_fast", "nominal_slow", "normal"))
    if name.startswith("PanelRot"):
        axis = {"O": N, "F": F, "S": S}[name[-1]]

        def turn(v: Any) -> Any:
            along = (axis * v).sum(1)[:, None] * axis
            return v * np.cos(move) + np.cross(axis, v) * np.sin(move) + along * (1 - np.cos(move))

        N, F, S = turn(N), turn(F), turn(S)
    else:
        o = o + move * 1000 * np.eye(3)["XYZ".index(name[-1])]
    px, (f, s) = q["pixel_size_mm"], g["pixels_panel_fast_slow"][:, 1:].T.astype(np.longdouble)
    k, n_p = q["beam_unit_source_to_sample"], q["polarization_normal"]
    M = q["RXYZ"] @ q["U"] @ q["B_real_A"] @ q["O_matrix"].T
    factors = StructureFactors(g["hkl_p1"], g["F_p1"], 0.0, g["hkl_table_min"], g["hkl_table_max"])
    e = np.cross(k, n_p)
    b = np.cross(e, k)
    n = int(g["oversample"])

    def direction(df: Any, ds: Any) -> tuple[Any, Any]:
        p = o + ((f + df) * px)[:, None] * F + ((s + ds) * px)[:, None] * S
        r = np.sqrt((p * p).sum(1))
        return p / r[:, None], r

    total = np.zeros(len(f), np.longdouble)
    for i, j in itertools.product(range(n), repeat=2):
        u, r = direction((i + np.longdouble(0.5)) / n, (j + np.longdouble(0.5)) / n)
        h = (u - k) / q["wavelengths_A"][0] @ M
        h0 = np.ceil(h - 0.5)
        V = (h - h0) @ np.diag(q["Ncells_abc"])
        lattice = np.prod(q["Ncells_abc"]) ** 2 * np.exp(-2 * (V * V).sum(1) / np.longdouble("0.63"))
        total += lattice * factors.lookup(h0.astype(int)) ** 2 * px**2 * (o * N).sum(1) / r**3 / n**2
    u, _ = direction(np.longdouble(0.5), np.longdouble(0.5))
    polar = 0.5 * (1 + (u @ k) ** 2 - q["kahn_factor"] * ((u @ e) ** 2 - (u @ b) ** 2))
    return np.asarray(q["r_e_sqr_m2"] * q["fluence_photons_per_m2"] * q["spot_scale"] * polar * total)


def _split_floats(tree: Any, like: Any = None) -> tuple[list[Any], Any]:
    """The floating leaves of a tree, and a function that puts them back."""
    leaves, structure = jax.tree.flatten(tree)
    kinds = [jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in jax.tree.leaves(tree if like is None else like)]
    floats = [leaf for leaf, is_float in zip(leaves, kinds, strict=True) if is_float]

    def rebuild(new: list[Any]) -> Any:
        values = iter(new)
        return jax.tree.unflatten(
            structure, [next(values) if is_float else leaf for leaf, is_float in zip(leaves, kinds, strict=True)]
        )

    return floats, rebuild


@pytest.mark.parametrize("case", ["02a", "07", *(pytest.param(c, marks=pytest.mark.slow) for c in ("08", "11a", "14"))])
def test_reverse_mode_equals_forward_mode(case: str) -> None:
    """The recomputing backward pass through all folded sums gives the forward derivative."""
    g = load_golden(case)
    parameters, scene, options, shot = golden_setup(g)
    parameters = jax.tree.map(jnp.asarray, parameters)
    weight = jnp.asarray(np.random.default_rng(1).standard_normal(shot.counts.shape))

    def value(p: Any) -> Any:
        return jnp.sum(weight * expected_photons(p, scene, options))

    backward = jax.grad(value)(parameters)
    tangent = jax.tree.map(lambda a: 1e-3 * jnp.ones_like(a), parameters)
    _, forward = jax.jvp(value, (parameters,), (tangent,))
    products = jax.tree.map(lambda a, b: jnp.sum(a * b), backward, tangent)
    assert np.isclose(sum(jax.tree.leaves(products)), forward, rtol=1e-9)


def test_point_spread() -> None:
    g = load_golden("16_psf")
    for key in [k for k in g if re.fullmatch(r"model_convolved\d", k)]:
        index = int(key[-1])
        kernel = g[f"kernel{index}"]
        record = g["meta"]["kernels"][index]
        made = fibre_kernel(record["fwhm_um"], record["pixel_size_um"], record["radius_px"])
        assert np.allclose(made, kernel, atol=1e-12)
        shot = golden_shot(g)
        model = np.zeros(shot.counts.shape)
        model[shot.valid] = g["bragg"] + g["background"]
        spread = PointSpread(kernel, shot.valid.reshape(shot.n_boxes, *shot.shape).astype(float), model)
        ours = np.asarray(blur(spread, jnp.asarray(model)))[shot.valid]
        assert np.abs(ours - g[key]).max() < 1e-11 * g[key].max()
