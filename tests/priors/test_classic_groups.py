"""Priors from classic groups against the prior objects that PHYSICS 9 asks for, written out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from bayesbragg.model.errors import InputError
from bayesbragg.priors import Cell, Fixed, Normal, Priors, Shared, Uniform, Volume, from_classic

TRIPLES = ("Nabc", "Ndef", "eta_abc", "diffuse_gamma", "diffuse_sigma")
NUMBERS = ("G", "B", "detz_shift")
INIT = {"RotXYZ": [0.1, 0.2, -0.3], "spec": [0.004, 1.01], "G": 5.0, "B": 2.0, "detz_shift": 1.5}
INIT |= {name: [10.0 * i + j for j in (1, 2, 3)] for i, name in enumerate(TRIPLES, start=1)}
MINS = {"RotXYZ": [-1.0, -2.0, -3.0], "spec": [-0.02, 0.9], "G": 1.0, "B": -4.0, "detz_shift": -7.0}
MINS |= {name: [10.0 * i - j for j in (4, 5, 6)] for i, name in enumerate(TRIPLES, start=1)}
MAXS = {"RotXYZ": [1.5, 2.5, 3.5], "spec": [0.03, 1.2], "G": 50.0, "B": 60.0, "detz_shift": 9.0}
MAXS |= {name: [10.0 * i + j for j in (7, 8, 9)] for i, name in enumerate(TRIPLES, start=1)}
SIGMAS = {"RotXYZ": [0.01, 0.02, 0.03], "spec": [0.5, 0.6], "G": 0.7, "B": 0.8, "detz_shift": 0.9}
SIGMAS |= {name: [0.1 * i, 0.2 * i, 0.3 * i] for i, name in enumerate(TRIPLES, start=1)}
FREE: dict[str, Any] = dict.fromkeys(INIT, False) | {"RotXYZ": [0, 0, 0]}
GROUPS: dict[str, Any] = {"init": INIT, "mins": MINS, "maxs": MAXS, "sigmas": SIGMAS, "fix": FREE}


def flat(name: str, i: int, unit: float = 1.0) -> Uniform:
    low, high, start, sigma = (np.atleast_1d(g[name])[i] for g in (MINS, MAXS, INIT, SIGMAS))
    return Uniform(low * unit, high * unit, start * unit, "ranged", sigma)


def same(found: Any, expected: Any) -> bool:
    return type(found) is type(expected) and found == expected


def test_every_number_goes_to_its_own_place() -> None:
    priors = from_classic(**GROUPS)
    for name in ("RotXYZ", *TRIPLES):
        assert same(getattr(priors, name), tuple(flat(name, i) for i in range(3))), name
    assert same(priors.G, flat("G", 0))
    assert same(priors.B, flat("B", 0))
    assert same(priors.detz_shift, flat("detz_shift", 0, 1e-3))
    assert same(priors.lambda_offset, flat("spec", 0))
    assert same(priors.lambda_scale, flat("spec", 1))
    assert priors.Nvol is None
    assert priors.panel_rotation == priors.panel_translation == Fixed()


def test_defaults_are_those_of_the_program() -> None:
    priors = from_classic()
    turn = Uniform(-3.1415926, 3.1415926, 0.0, "ranged", 1e-3)
    expected = Priors(
        RotXYZ=(turn,) * 3,
        cell=Cell(10.0, 5.0),
        Nabc=(Uniform(3, 300, 100.0, "ranged", 1.0),) * 3,
        Ndef=(Fixed(0.0),) * 3,
        eta_abc=(Fixed(0.0),) * 3,
        diffuse_gamma=(Fixed(1.0),) * 3,
        diffuse_sigma=(Fixed(0.01),) * 3,
        G=Uniform(0, 1e12, 1.0, "ranged", 1.0),
        B=Fixed(0.0),
        detz_shift=Fixed(0.0),
        lambda_offset=Fixed(0.0),
        lambda_scale=Fixed(1.0),
    )
    assert priors == expected


def test_restraints_count_only_when_asked_for() -> None:
    names = (*TRIPLES, "spec", *NUMBERS)
    centers: dict[str, Any] = {name: INIT[name] for name in names}
    betas: dict[str, Any] = {name: (3 + np.atleast_1d(INIT[name]) ** 2).tolist() for name in (*names, "RotXYZ")}
    betas |= {name: betas[name][0] for name in NUMBERS}
    plain = from_classic(**GROUPS, centers=centers, betas=betas)
    assert plain == from_classic(**GROUPS)
    priors = from_classic(**GROUPS, centers=centers, betas=betas, use_restraints=True)

    def restrained(name: str, i: int, unit: float = 1.0) -> Normal:
        p = flat(name, i, unit)
        center = 0.0 if name == "RotXYZ" else np.atleast_1d(INIT[name])[i] * unit
        beta = 3 + np.atleast_1d(INIT[name])[i] ** 2
        return Normal(center, math.sqrt(beta), p.low, p.high, p.start, "ranged", p.sigma, beta)

    for name in ("RotXYZ", *TRIPLES):
        assert getattr(priors, name) == tuple(restrained(name, i) for i in range(3)), name
    assert restrained("G", 0) == priors.G
    assert priors.detz_shift == restrained("detz_shift", 0, 1e-3)
    assert (priors.lambda_offset, priors.lambda_scale) == (restrained("spec", 0), restrained("spec", 1))


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("isotropic_blocks", "Nabc"),
        ("isotropic_mosaicity", "eta_abc"),
        ("isotropic_gamma", "diffuse_gamma"),
        ("isotropic_sigma", "diffuse_sigma"),
    ],
)
def test_one_number_for_three(word: str, name: str) -> None:
    priors = from_classic(**GROUPS, **{word: True})  # type: ignore[arg-type]
    assert getattr(priors, name) == Shared(flat(name, 0))
    for other in TRIPLES:
        assert isinstance(getattr(priors, other), Shared) == (other == name)


def test_fixed_numbers_and_types() -> None:
    fixed = {"RotXYZ": [1, 0, 1], "Nabc": True, "G": False, "detz_shift": True}
    priors = from_classic(**{**GROUPS, "fix": {**FREE, **fixed}}, types={"G": "positive", "B": "positive"})
    assert priors.RotXYZ == (Fixed(0.1), flat("RotXYZ", 1), Fixed(-0.3))
    assert priors.Nabc == (Fixed(11.0), Fixed(12.0), Fixed(13.0))
    assert priors.detz_shift == Fixed(1.5e-3)
    assert [p.kind for p in (priors.G, priors.B) if isinstance(p, Uniform)] == ["positive", "positive"]


def test_cell_and_volume() -> None:
    centers = {"ucell_a": 79.0, "ucell_c": 40.0, "ucell_beta": 101.0, "ucell_gamma": 99.0, "Nvol": 900.0}
    betas = {"ucell_a": 0.1, "ucell_c": 0.2, "ucell_beta": 1e-4, "ucell_gamma": 2e-4, "Nvol": 50.0}
    words: dict[str, Any] = {"centers": centers, "betas": betas, "ucell_edge_perc": 0.5, "ucell_ang_abs": 0.25}
    sigmas = {"ucell": [0.1, 0.2, 0.3]}  # one more than there are free numbers
    priors = from_classic(**words, sigmas=sigmas, cell_names=("ucell_a", "ucell_c"), use_restraints=True)
    assert isinstance(priors.cell, Cell)
    assert (priors.cell.edge_percent, priors.cell.angle_deg) == (0.5, 0.25)
    assert priors.cell.sigmas == {"ucell_a": 0.1, "ucell_c": 0.2}
    angles = {"ucell_beta": (101.0 * math.pi / 180, 1e-4), "ucell_gamma": (99.0 * math.pi / 180, 2e-4)}
    expected = {"ucell_a": (79.0, 0.1), "ucell_c": (40.0, 0.2), **angles}
    assert priors.cell.restraints.keys() == expected.keys()
    for name, numbers in expected.items():
        assert priors.cell.restraints[name] == pytest.approx(numbers, rel=1e-14)
    assert priors.Nvol == Volume(900.0, 50.0)
    plain = from_classic(**words)
    assert plain.Nvol is None
    assert plain.cell == Cell(0.5, 0.25)
    assert from_classic(**words, fix={"ucell": True}).cell == Fixed()


def test_panels() -> None:
    geometry: dict[str, Any] = {
        "optimize": True,
        "min": {"panel_rotations": [-5, -6, -7]},
        "max": {"panel_rotations": [1, 2, 3], "panel_translations": [4, 5, 6]},
        "fix": {"panel_translations": [False, True, False]},
        "betas": {"panel_rot": [0.1, None, 0.3], "panel_xyz": [0.4, 0.5, 0.6]},
    }
    d, mm = math.pi / 180, 1e-3
    priors = from_classic(geometry=geometry, use_restraints=True)
    rotation, translation = priors.panel_rotation, priors.panel_translation
    assert rotation == (
        Normal.from_beta(0.0, 0.1, -5 * d, d, kind="ranged"),
        Uniform(-6 * d, 2 * d),
        Normal.from_beta(0.0, 0.3, -7 * d, 3 * d, kind="ranged"),
    )
    shifts = [Normal.from_beta(0.0, b, -1 * mm, h * mm, kind="ranged") for b, h in ((0.4, 4), (0.6, 6))]
    assert translation == (shifts[0], Fixed(), shifts[1])
    plain = from_classic(geometry=geometry)
    assert plain.panel_rotation == (Uniform(-5 * d, d), Uniform(-6 * d, 2 * d), Uniform(-7 * d, 3 * d))
    bare = from_classic(geometry={"optimize": True})
    assert bare.panel_translation == (Uniform(-mm, mm),) * 3
    assert from_classic(geometry={**geometry, "optimize": False}).panel_rotation == Fixed()


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ({"mins": {"RotXYZ": [0, 1, 0]}, "maxs": {"RotXYZ": [1, 1, 1]}}, "RotXYZ: minimum 1 is not below maximum 1"),
        ({"mins": {"RotXYZ": [0, 0]}}, "mins.RotXYZ: expected 3 numbers, got 2"),
        ({"init": {"spec": [0, 1, 2]}}, "init.spec: expected 2 numbers, got 3"),
        ({"centers": {"G": 1.0}}, "centers.G is set but betas.G is not"),
        ({"betas": {"Nvol": 1.0}}, "betas.Nvol is set but centers.Nvol is not"),
        ({"centers": {"G": 1.0}, "betas": {"G": 0.0}}, "betas.G is a variance"),
        ({"betas": {"RotXYZ": [1.0, 0.0, 1.0]}}, "betas.RotXYZ is a variance"),
        ({"ucell_edge_perc": 0.0}, "must be positive"),
        ({"ucell_ang_abs": 0.0}, "must be positive"),
        ({"geometry": {"optimize": True, "min": {"panel_rotations": [0, 0]}}}, "geometry.min.panel_rotations"),
        ({"geometry": {"optimize": True, "min": {"panel_rotations": [0, 0, 1]}}}, "minimum 1 is not below maximum 1"),
        ({"geometry": {"optimize": True, "betas": {"panel_xyz": [1, 1, 0]}}}, "panel_xyz"),
    ],
)
def test_mistakes_are_named(groups: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as error:
        from_classic(**groups)
    assert words in str(error.value)


def test_a_list_of_one_is_a_number() -> None:
    priors = from_classic(init={"G": [5.0]}, centers={"G": [4.0]}, betas={"G": [0.25]}, use_restraints=True)
    assert Normal(4.0, 0.5, 0, 1e12, 5.0, "ranged", 1.0, 0.25) == priors.G


def test_an_accepted_beta_may_be_small() -> None:
    priors = from_classic(centers={"G": 1.0}, betas={"G": 0.5, "RotXYZ": 0.25}, use_restraints=True)
    assert Normal(1.0, math.sqrt(0.5), 0, 1e12, 1.0, "ranged", 1.0, 0.5) == priors.G
    assert isinstance(priors.RotXYZ, tuple)
    assert priors.RotXYZ[1] == Normal(0.0, 0.5, -3.1415926, 3.1415926, 0.0, "ranged", 1e-3, 0.25)
