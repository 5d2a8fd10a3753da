"""The vector of a fit: names, order, round trips, ties, and the classic rules."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from bayesbragg.forward.parameters import Parameters
from bayesbragg.model.errors import InputError
from bayesbragg.priors import (
    Cell,
    CellConstraint,
    Fixed,
    Normal,
    Positive,
    Priors,
    Shared,
    Uniform,
    Volume,
    from_classic,
    make_layout,
)

CELL = np.array([79.1, 79.1, 38.4, *[np.pi / 2] * 3])
TETRAGONAL = CellConstraint("tetragonal")


def start(**kwargs: object) -> Parameters:
    return Parameters.start(CELL, **kwargs)  # type: ignore[arg-type]


def test_names_units_and_round_trip() -> None:
    priors = Priors(
        RotXYZ=Normal(0, 0.001),
        cell=Cell(),
        Nabc=Uniform(3, 300),
        Ndef=(Uniform(-5, 5), Fixed(), Normal(0, 1)),
        eta_abc=Positive(start=0.1),
        G=Positive(),
        B=Uniform(-10, 50),
        detz_shift=Normal(0, 1e-4),
        lambda_offset=Normal(0, 1e-3),
        lambda_scale=Normal(1, 1e-3),
        panel_rotation=(Fixed(), Normal(0, 1e-3), Fixed()),
    )
    layout, base = make_layout(priors, start(n_abc=12, G=50.0, n_groups=2), TETRAGONAL)
    assert layout.names == (
        *("rotX", "rotY", "rotZ", "G", "ucell_a", "ucell_c", "Na", "Nb", "Nc", "Nd", "Nf", "eta_a", "eta_b", "eta_c"),
        *("B", "detz_shift", "lambda_offset", "lambda_scale", "group0_RotFast", "group1_RotFast"),
    )
    assert dict(zip(layout.names, layout.units, strict=True))["detz_shift"] == "metre"
    values = np.asarray(layout.start) + 0.01 * (1 + np.arange(layout.n)) * np.where(np.asarray(layout.start), 1, 1e-3)
    parameters = layout.place(values, base)
    np.testing.assert_allclose(layout.values_of(parameters), values, rtol=1e-15)
    np.testing.assert_allclose(layout.values(layout.from_parameters(parameters)), values, rtol=1e-10)
    assert parameters.crystal.cell[0] == parameters.crystal.cell[1] != CELL[0]
    np.testing.assert_array_equal(parameters.mosaic.n_def[0, 1], 0.0)
    np.testing.assert_allclose(layout.values(layout.initial()), layout.start, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(
        layout.values_of(layout.to_parameters(layout.initial(), base)), layout.start, rtol=1e-12, atol=1e-13
    )


def test_isotropic_blocks_and_several_lattices() -> None:
    priors = Priors(RotXYZ=Normal(0, 0.01), Nabc=Shared(Uniform(3, 300)), G=Positive())
    layout, base = make_layout(priors, start(n_lattices=2), TETRAGONAL)
    assert layout.names == (
        *("rotX_xtal0", "rotY_xtal0", "rotZ_xtal0", "rotX_xtal1", "rotY_xtal1", "rotZ_xtal1"),
        *("G_xtal0", "G_xtal1", "N"),
    )
    parameters = layout.place(np.arange(9.0), base)
    np.testing.assert_array_equal(parameters.mosaic.n_abc, np.full((2, 3), 8.0))
    np.testing.assert_array_equal(parameters.crystal.rot_xyz, [[0, 1, 2], [3, 4, 5]])
    each, _ = make_layout(Priors(Nabc=Uniform(3, 300), per_lattice_blocks=True), start(n_lattices=2), TETRAGONAL)
    assert each.names == ("Na_xtal0", "Nb_xtal0", "Nc_xtal0", "Na_xtal1", "Nb_xtal1", "Nc_xtal1")


def test_log_prior_is_the_sum_of_normals_and_the_volume() -> None:
    priors = Priors(cell=Cell(edge_sd=0.1), Nabc=Uniform(3, 300), Nvol=Volume(1000, 100.0))
    layout, base = make_layout(priors, start(n_abc=10), TETRAGONAL)
    values = np.array([79.3, 38.4, 10.0, 10.0, 11.0])
    expected = -np.log(2 * np.pi * 0.01) - 0.5 * (0.2 / 0.1) ** 2 - 0.5 * 100.0**2 / 100.0
    assert float(layout.log_prior(values, layout.place(values, base))) == pytest.approx(expected, rel=1e-10)


def test_searchable_coordinates_hold_the_same_prior_and_bounds() -> None:
    priors = Priors(RotXYZ=Normal(0, 0.01), Nabc=Uniform(3, 300), G=Uniform(0, 1e12))
    layout, base = make_layout(priors, start(G=100.0), TETRAGONAL)
    own = layout.searchable()
    np.testing.assert_allclose(own.values(own.initial()), layout.start, rtol=1e-9, atol=1e-12)
    values = np.asarray(own.values(own.initial() + 0.3))
    parameters = layout.place(values, base)
    assert float(own.log_prior(values, parameters)) == float(layout.log_prior(values, parameters))
    far = np.asarray(own.values(own.initial() + 40.0))[3:]
    assert np.all((far >= [0, 3, 3, 3]) & (far <= [1e12, 300, 300, 300]))


def test_layouts_with_equal_structure_share_a_compilation() -> None:
    traces = []

    @jax.jit
    def f(x, layout):  # type: ignore[no-untyped-def]
        traces.append(1)
        return layout.values(x)

    for a in (79.0, 80.0):
        cell = np.array([a, a, 38.4, *[np.pi / 2] * 3])
        layout, _ = make_layout(Priors(cell=Cell(edge_sd=a / 100)), Parameters.start(cell), TETRAGONAL)
        np.testing.assert_allclose(f(layout.initial(), layout), [a, 38.4], rtol=1e-12)
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("priors", "words"),
    [
        ({"Nabc": Uniform(300, 3)}, "minimum 300 is not below maximum 3"),
        ({"Nabc": Uniform(20, 300)}, "outside its bounds"),
        ({"RotXYZ": (Normal(0, 1), Normal(0, 1))}, "one prior or 3"),
        ({"G": Positive(start=0.0)}, "above 0"),
    ],
)
def test_bad_priors_are_named(priors: dict, words: str) -> None:
    with pytest.raises(InputError) as error:
        make_layout(Priors(**priors), start(), TETRAGONAL)
    assert words in str(error.value)


class TestClassic:
    """The rules of the classic PHIL."""

    def layout(self, **groups: object):  # type: ignore[no-untyped-def]
        return make_layout(from_classic(**groups), start(), TETRAGONAL)  # type: ignore[arg-type]

    def test_tutorial(self) -> None:
        layout, base = self.layout(
            init={"Nabc": [13, 14, 15], "G": 100},
            mins={"Nabc": [3, 3, 3], "detz_shift": -1.5, "RotXYZ": [-15, -15, -15], "G": 0},
            maxs={"RotXYZ": [15, 15, 15], "Nabc": [1600] * 3, "G": 1e12, "detz_shift": 1.5},
            fix={"detz_shift": True},
        )
        assert layout.names == ("rotX", "rotY", "rotZ", "G", "ucell_a", "ucell_c", "Na", "Nb", "Nc")
        np.testing.assert_array_equal(base.mosaic.n_abc, [[13, 14, 15]])
        np.testing.assert_allclose(layout.bounds()[:3], [[-15, 15]] * 3)
        np.testing.assert_allclose(layout.bounds()[4], [71.19, 87.01])
        assert all(site.kind == "ranged" for site in layout.sites)
        assert not any(site.restrained for site in layout.sites)

    def test_units_of_restraints(self) -> None:
        constraint = CellConstraint("monoclinic")
        cell = np.array([50, 60, 70, np.pi / 2, np.radians(100), np.pi / 2])
        priors = from_classic(
            fix={"detz_shift": False},
            init={"detz_shift": 0.5, "Nabc": [10, 10, 10]},
            centers={"ucell_beta": 101.0, "detz_shift": 0.2},
            betas={"ucell_beta": 1e-4, "RotXYZ": 1e-5, "detz_shift": 1e-8},
            use_restraints=True,
        )
        layout, _ = make_layout(priors, Parameters.start(cell), constraint)
        found = {name: layout.parameter(i) for i, name in enumerate(layout.names)}
        assert found["ucell_beta"].center == pytest.approx(np.radians(101.0))
        assert found["ucell_beta"].beta == 1e-4
        assert (found["rotX"].center, found["rotX"].beta) == (0.0, 1e-5)
        assert found["detz_shift"].start == pytest.approx(5e-4)
        assert (found["detz_shift"].center, found["detz_shift"].beta) == (pytest.approx(2e-4), 1e-8)
        assert found["detz_shift"].high == pytest.approx(0.01)
        assert found["ucell_beta"].low == pytest.approx(np.radians(95.0))

    def test_panels(self) -> None:
        geometry = {"optimize": True, "min": {"panel_rotations": [-5, -1, -1]}, "max": {"panel_rotations": [5, 1, 1]}}
        geometry["betas"] = {"panel_rot": [1, 1, 1], "panel_xyz": [1, 1, 1]}  # type: ignore[dict-item]
        layout, _ = self.layout(geometry=geometry, use_restraints=True)
        p = layout.parameter(layout.names.index("group0_RotOrth"))
        assert (p.low, p.center, p.beta) == (pytest.approx(-np.radians(5)), 0.0, 1.0)
        assert layout.parameter(layout.names.index("group0_ShiftX")).high == pytest.approx(1e-3)

    @pytest.mark.parametrize(
        ("groups", "words"),
        [
            ({"mins": {"Nabc": [30, 3, 3]}, "maxs": {"Nabc": [3, 30, 30]}}, "Nabc: minimum 30"),
            ({"betas": {"G": 1.0}}, "centers.G"),
            ({"centers": {"ucell_a": 79.0}}, "betas.ucell_a"),
            ({"betas": {"RotXYZ": -1.0}}, "variance"),
            ({"init": {"Nabc": [10, 10]}}, "expected 3 numbers"),
        ],
    )
    def test_bad_groups(self, groups: dict, words: str) -> None:
        with pytest.raises(InputError) as error:
            from_classic(**groups)
        assert words in str(error.value)
