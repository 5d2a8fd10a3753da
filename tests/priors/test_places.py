"""Where the numbers of a fit go, and their transforms and log prior, against indices and formulas written out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest
from scipy.stats import norm

from bayesbragg.forward.parameters import Parameters
from bayesbragg.model.errors import InputError
from bayesbragg.priors import (
    Cell,
    CellConstraint,
    Fixed,
    Layout,
    Normal,
    Parameter,
    Positive,
    Priors,
    Shared,
    Uniform,
    Volume,
    make_layout,
)
from bayesbragg.priors.flatten import columns

CELL = np.array([60.0, 70.0, 80.0, np.pi / 2, 1.7, np.pi / 2])
MONOCLINIC = CellConstraint("monoclinic")
BLOCKS = np.array([[10.0, 11.0, 12.0], [14.0, 15.0, 17.0]])
OFF = np.array([[1.0, 2.0, 3.0], [-2.0, 0.5, 4.0]])


def start(**words: Any) -> Parameters:
    given = {
        "n_lattices": 2,
        "n_abc": BLOCKS,
        "n_def": OFF,
        "G": [50.0, 60.0],
        "n_groups": 2,
        "eta_deg": [0.1, 0.2, 0.3],
    }
    return Parameters.start(CELL, **(given | words))


def layout_of(priors: Priors) -> tuple[Layout, Parameters]:
    return make_layout(priors, start(), MONOCLINIC)


EVERYTHING: dict[str, Any] = {
    "RotXYZ": Normal(0, 0.01),
    "cell": Cell(),
    "Nabc": Uniform(3, 300),
    "Ndef": Normal(None, 3.0),
    "eta_abc": Positive(),
    "eta_def": Normal(0, 1),
    "G": Positive(),
    "B": Normal(0, 1),
    "detz_shift": Normal(0, 1e-3),
    "lambda_offset": Normal(0, 1e-3),
    "lambda_scale": Normal(1, 1e-3),
    "diffuse_gamma": Positive(),
    "diffuse_sigma": Normal(0, 1),
    "panel_rotation": Normal(0, 0.01),
    "panel_translation": Normal(0, 1e-3),
}
# prior: concept, field, unit, names of the first lattice's or group's numbers (of two), names of the others.
TABLE = {
    "RotXYZ": ("crystal", "rot_xyz", "radian", ["rotX_xtal0", "rotY_xtal0", "rotZ_xtal0"], "rotX_xtal1"),
    "G": ("scale", "G", "1", ["G_xtal0"], "G_xtal1"),
    "Nabc": ("mosaic", "n_abc", "cells", ["Na", "Nb", "Nc"], None),
    "Ndef": ("mosaic", "n_def", "cells", ["Nd", "Ne", "Nf"], None),
    "eta_abc": ("mosaic", "eta_deg", "degree", ["eta_a", "eta_b", "eta_c"], None),
    "eta_def": ("mosaic", "eta_def_deg", "degree", ["eta_d", "eta_e", "eta_f"], None),
    "diffuse_gamma": ("diffuse", "gamma_A", "angstrom", [f"diffuse_gamma_{i}" for i in "abc"], None),
    "diffuse_sigma": ("diffuse", "sigma_A", "angstrom", [f"diffuse_sigma_{i}" for i in "abc"], None),
    "B": ("scale", "b_factor_A2", "angstrom^2", ["B"], None),
    "detz_shift": ("panels", "detz_m", "metre", ["detz_shift"], None),
    "lambda_offset": ("spectrum", "offset_A", "angstrom", ["lambda_offset"], None),
    "lambda_scale": ("spectrum", "scale", "1", ["lambda_scale"], None),
    "panel_rotation": ("panels", "rotation_rad", "radian", ["group0_RotOrth", "group0_RotFast", "group0_RotSlow"], ""),
    "panel_translation": ("panels", "translation_m", "metre", ["group0_ShiftX", "group0_ShiftY", "group0_ShiftZ"], ""),
}


@pytest.mark.parametrize("name", TABLE)
def test_every_prior_has_its_place(name: str) -> None:
    layout, base = layout_of(Priors(**{name: EVERYTHING[name]}))
    concept, field, unit, names, others = TABLE[name]
    n = len(names)
    assert layout.names[:n] == tuple(names)
    assert layout.n == (n if others is None else 2 * n)
    if others:
        assert layout.names[n] == others
    assert set(layout.units) == {unit}
    assert {site.place for site in layout.sites} == {(concept, field)}
    values = 1.0 + np.arange(layout.n)
    placed = layout.place(values, base)
    found = np.asarray(getattr(getattr(placed, concept), field))
    expected = values if others is not None else np.tile(values, found.size // n)
    np.testing.assert_array_equal(found.ravel(), expected)
    np.testing.assert_array_equal(layout.values_of(placed), values)
    # Nothing else moves.
    for other_concept in ("crystal", "mosaic", "scale", "spectrum", "panels", "diffuse"):
        for key, old in vars(getattr(base, other_concept)).items():
            if (other_concept, key) != (concept, field):
                np.testing.assert_array_equal(getattr(getattr(placed, other_concept), key), old)


def test_all_in_order_with_the_cell_behind_the_scale() -> None:
    layout, base = layout_of(Priors(**EVERYTHING))
    cell = ["ucell_a", "ucell_b", "ucell_c", "ucell_beta"]
    order = [n for name in TABLE for n in (cell if name == "cell" else _names(name)) + (cell if name == "G" else [])]
    assert list(layout.names) == order
    assert [layout.units[order.index(n)] for n in cell] == ["angstrom"] * 3 + ["radian"]
    placed = layout.place(np.arange(1.0, 1.0 + layout.n), base)
    k = order.index("ucell_a") + 1.0
    np.testing.assert_allclose(placed.crystal.cell, [k, k + 1, k + 2, np.pi / 2, k + 3, np.pi / 2])
    np.testing.assert_array_equal(layout.values_of(placed), np.arange(1.0, 1.0 + layout.n))
    assert make_layout(Priors(cell=Fixed()), start(), MONOCLINIC)[0].n == 0


def _names(name: str) -> list[str]:
    _, _, _, first, others = TABLE[name]
    if others is None:
        return first
    old, new = ("_xtal0", "_xtal1") if others else ("group0", "group1")
    return first + [n.replace(old, new) for n in first]


def test_starts_ties_and_single_numbers() -> None:
    priors = Priors(
        Nabc=(Uniform(3, 300, 20.0), Fixed(), Fixed(30.0)),
        Ndef=Shared(Normal(0, 3)),
        G=(Shared(Positive())),
        eta_abc=Shared(Positive(start=0.5)),
        cell=Cell(priors={"ucell_b": Fixed()}),
    )
    layout, base = layout_of(priors)
    assert layout.names == ("G_xtal0", "G_xtal1", "ucell_a", "ucell_c", "ucell_beta", "Na", "Ndef", "eta")
    # Blocks that the lattices share start at the first one's.
    np.testing.assert_array_equal(base.mosaic.n_abc, [[20.0, 11.0, 30.0]] * 2)
    np.testing.assert_array_equal(base.mosaic.n_def, np.full((2, 3), 1.0))
    np.testing.assert_array_equal(base.mosaic.eta_deg, np.full(3, 0.5))
    placed = layout.place(np.array([5.0, 6.0, 61.0, 81.0, 1.6, 21.0, 2.0, 0.7]), base)
    np.testing.assert_array_equal(placed.mosaic.n_abc, [[21.0, 11.0, 30.0]] * 2)
    np.testing.assert_array_equal(placed.mosaic.n_def, np.full((2, 3), 2.0))
    np.testing.assert_allclose(placed.crystal.cell, [61.0, 70.0, 81.0, np.pi / 2, 1.6, np.pi / 2])
    each, base = layout_of(replace(priors, per_lattice_blocks=True, eta_abc=Fixed(), Nabc=Shared(Uniform(3, 300))))
    assert each.names[5:] == ("N_xtal0", "N_xtal1", "Ndef_xtal0", "Ndef_xtal1")
    np.testing.assert_array_equal(base.mosaic.n_abc, [[10.0] * 3, [14.0] * 3])
    tied = Shared(Normal(0, 1))
    plain = Priors(RotXYZ=Normal(0, 1), eta_def=tied, B=tied, panel_rotation=tied)
    single, _ = make_layout(plain, Parameters.start(CELL), MONOCLINIC)
    assert single.names == ("rotX", "rotY", "rotZ", "eta_def", "B", "group0_panel_rotation")


def test_transforms_slopes_and_bounds() -> None:
    priors = Priors(Nabc=Uniform(3, 300, sigma=0.5), G=Positive(), RotXYZ=Normal(0.001, 0.01), B=Uniform(1, 9, 2.0))
    layout, base = layout_of(replace(priors, Ndef=(Uniform(-9, 9), Fixed(), Fixed())))
    x = layout.initial() + 0.05 * (1 + np.arange(layout.n))
    expected = [layout.parameter(i).value(x[i]) for i in range(layout.n)]
    np.testing.assert_allclose(layout.values(x), expected, rtol=1e-13)
    np.testing.assert_allclose(layout.coordinates(layout.values(x)), x, rtol=1e-11)
    values, slope = layout.values_and_slope(x)
    np.testing.assert_allclose(values, expected, rtol=1e-13)
    step = 1e-5
    difference = (np.asarray(layout.values(x + step)) - np.asarray(layout.values(x - step))) / (2 * step)
    np.testing.assert_allclose(slope, difference, rtol=1e-7)
    np.testing.assert_allclose(layout.from_parameters(layout.to_parameters(x, base)), x, rtol=1e-11)
    names = list(layout.names)
    assert [site.kind for site in layout.sites] == ["normal"] * 6 + ["positive"] * 2 + ["ranged"] * 5
    np.testing.assert_array_equal(layout.initial(), [0.0] * 6 + [1.0] * 7)
    np.testing.assert_array_equal(layout.bounds()[names.index("Nb")], [3, 300])
    np.testing.assert_array_equal(layout.bounds()[names.index("B")], [1, 9])
    rot = layout.parameter(1)
    assert rot == Parameter(0.0, "normal", center=0.001, beta=0.01**2)
    assert layout.parameter(names.index("Na")) == Parameter(10.0, "ranged", 3.0, 300.0, 0.5)
    plain = layout.physical()
    np.testing.assert_array_equal(plain.values(expected), expected)
    np.testing.assert_array_equal(plain.initial(), layout.start)
    moved = layout.with_start(np.full(layout.n, 5.0))
    np.testing.assert_array_equal(moved.start, np.full(layout.n, 5.0))
    np.testing.assert_array_equal(layout.with_start(np.full(layout.n, 400.0)).start[-5:], [300, 300, 300, 9, 9])
    np.testing.assert_array_equal(layout.with_start(np.full(layout.n, -400.0)).start[-5:], [3, 3, 3, -9, 1])
    assert layout_of(Priors())[0].values_of(base).shape == (0,)


@pytest.mark.parametrize("per_lattice", [False, True])
def test_log_prior(per_lattice: bool) -> None:
    priors = Priors(
        RotXYZ=Normal(0.001, 0.01), Nabc=Uniform(3, 300), B=Normal(3, 0.5), Nvol=Volume(2000.0, 9e3),
        per_lattice_blocks=per_lattice,
    )  # fmt: skip
    layout, base = layout_of(priors)
    values = np.asarray(layout.start) + 0.003 * (1 + np.arange(layout.n))
    placed = layout.place(values, base)
    expected = norm.logpdf(values[:6], 0.001, 0.01).sum() + norm.logpdf(values[-1], 3, 0.5)
    for (a, b, c), (d, e, f) in list(zip(np.asarray(placed.mosaic.n_abc), OFF, strict=True))[: 1 + per_lattice]:
        block = np.linalg.det([[a, d, f], [d, b, e], [f, e, c]])
        expected -= 0.5 * (2000.0 - block) ** 2 / 9e3
    assert float(layout.log_prior(values, placed)) == pytest.approx(expected, rel=1e-12)
    # What decides how a program looks is part of its structure.
    other = replace(layout, per_lattice_blocks=not per_lattice)
    assert jax.tree.structure(other) != jax.tree.structure(layout)
    assert jax.tree.structure(replace(layout, start=values)) == jax.tree.structure(layout)


def test_searchable() -> None:
    priors = Priors(G=Uniform(0, 1e6), Nabc=(Uniform(-1, 300), Uniform(0, 300), Fixed()), B=Uniform(0, 9, 2.0))
    layout, _ = make_layout(priors, Parameters.start(CELL, G=0.5), MONOCLINIC)
    assert [site.kind for site in layout.searchable().sites] == ["log_ranged", "ranged", "log_ranged", "ranged"]
    dark, _ = make_layout(replace(priors, G=Uniform(0, 1e6, 0.0)), Parameters.start(CELL), MONOCLINIC)
    assert dark.searchable().sites[0].kind == "ranged"
    parts = [layout.parameter(i).searchable() for i in (1, 3)]
    own = layout.searchable()
    for name in ("start", "low", "high", "sigma"):
        np.testing.assert_array_equal(getattr(own, name)[[1, 3]], [getattr(p, name) for p in parts])
    np.testing.assert_array_equal(own.center, 0.0)
    np.testing.assert_array_equal(own.beta, 1.0)


def test_columns() -> None:
    found = columns([Parameter(1.0, "ranged", -2.0, 3.0, 0.5), Parameter(4.0, center=6.0, beta=7.0)])
    assert {name: list(column) for name, column in found.items()} == {
        "start": [1.0, 4.0], "low": [-2.0, -np.inf], "high": [3.0, np.inf], "sigma": [0.5, 1.0],
        "center": [0.0, 6.0], "beta": [1.0, 7.0],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("priors", "words"),
    [
        (Priors(G=(Positive(), Positive())), "prior of G: expected one prior or 1, got 2"),
        (Priors(RotXYZ=(Normal(0, 1), Fixed())), "prior of RotXYZ: expected one prior or 3, got 2"),
        (Priors(cell=Cell(priors={"ucell_beta": Uniform(3, 2)})), "ucell_beta: minimum 3"),
        (Priors(panel_rotation=Uniform(3, 2)), "group0_RotOrth: minimum 3"),
    ],
)
def test_mistakes_are_named(priors: Priors, words: str) -> None:
    with pytest.raises(InputError) as error:
        layout_of(priors)
    assert words in str(error.value)


def test_a_cell_that_is_no_number() -> None:
    with pytest.raises(InputError, match=r"cell .* is not finite"):
        make_layout(Priors(), Parameters.start([60, np.nan, 80, 1.5, 1.5, 1.5]), MONOCLINIC)
