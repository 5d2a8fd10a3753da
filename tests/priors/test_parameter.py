"""Transforms and restraints against the golden numbers of case 18."""

from __future__ import annotations

import json
import math
from pathlib import Path

import jax
import numpy as np
import pytest

from bayesbragg.model.errors import InputError
from bayesbragg.priors.parameter import Parameter

GOLDEN = Path(__file__).resolve().parents[1] / "data" / "golden" / "18_parameters.npz"


def _cases() -> list[tuple[int, dict]]:
    with np.load(GOLDEN) as g:
        return list(enumerate(json.loads(str(g["meta_json"]))["parameters"]))


@pytest.mark.parametrize(("index", "meta"), _cases(), ids=lambda v: f"p{v}" if isinstance(v, int) else v["kind"])
def test_golden_transform_and_restraint(index: int, meta: dict) -> None:
    with np.load(GOLDEN) as g:
        x = g["x"]
        golden = {key.split("_", 1)[1]: g[key] for key in g.files if key.startswith(f"p{index}_")}
    fixed = meta["kind"] == "ranged_fixed"
    p = Parameter(
        meta["init"],
        "ranged" if fixed else meta["kind"],
        meta["minval"],
        meta["maxval"],
        meta["sigma"],
        meta.get("center"),
        meta.get("beta"),
        fixed,
    )
    # A sine of the whole range: its rounding is that of the range, huge for the last of the ranged parameters.
    scale = np.abs(golden["value"]).max() + 0.01 * (meta["maxval_effective"] - meta["minval_effective"])
    np.testing.assert_allclose(p.value(x), golden["value"], rtol=1e-12, atol=1e-13 * scale)
    slope = jax.vmap(jax.grad(p.value))(x)
    np.testing.assert_allclose(slope, golden["dvalue_dx"], rtol=1e-10, atol=1e-12 * np.abs(slope).max())
    if "d2" in golden:
        curvature = jax.vmap(jax.grad(jax.grad(p.value)))(x)
        np.testing.assert_allclose(curvature, golden["d2"], rtol=1e-9, atol=1e-10 * np.abs(curvature).max())
    if "restraint" in golden:
        restraint = lambda y: -p.log_prior(p.value(y))  # noqa: E731
        pull = np.abs(meta["center"] - golden["value"]) / meta["beta"]
        error = np.abs(jax.vmap(restraint)(x) - golden["restraint"])
        assert np.all(error <= 1e-12 + 1e-11 * np.abs(golden["restraint"]) + pull * 1e-13 * scale)
        slope = jax.vmap(jax.grad(restraint))(x)
        np.testing.assert_allclose(
            slope, golden["drestraint_dx"], rtol=1e-9, atol=1e-10 * np.abs(golden["drestraint_dx"]).max()
        )


@pytest.mark.parametrize(
    "p",
    [
        Parameter(5.0, "ranged", 0.0, 20.0, 0.3),
        Parameter(5.0, "positive", sigma=0.3),
        Parameter(5.0, "normal"),
        Parameter(5.0, "log_ranged", 0.1, 1000.0, 0.3),
    ],
    ids=lambda p: p.kind,
)
def test_coordinates_invert_values(p: Parameter) -> None:
    assert float(p.value(p.start_x)) == pytest.approx(5.0, rel=1e-14)
    for value in (0.5, 4.0, 5.0, 11.0):
        assert float(p.value(p.x_of(value))) == pytest.approx(value, rel=1e-12)


def test_log_ranged_stays_inside_its_bounds() -> None:
    p = Parameter(5.0, "log_ranged", 0.1, 1000.0)
    values = np.asarray(p.value(np.linspace(-50, 50, 4001)))
    assert values.min() >= 0.1 * (1 - 1e-12)
    assert values.max() <= 1000 * (1 + 1e-12)
    assert values.min() < 0.1001
    assert values.max() > 999


@pytest.mark.parametrize(
    "p",
    [
        Parameter(1e4, "positive", 0.0, 1e12),
        Parameter(12.0, "positive", 3.0, 1600.0),
        Parameter(300.0, "positive", 3.0, 300.0),
        Parameter(3.0, "positive", 3.0, 300.0),
        Parameter(300.0, "positive", 0.0, 300.0),
        Parameter(3.0, "log_ranged", 3.0, 300.0),
        Parameter(0.0, "ranged", -15.0, 15.0),
        Parameter(0.0, "ranged", 0.0, 10.0),
        Parameter(2.0, "normal", 0.0),
        Parameter(2.0, "normal"),
    ],
    ids=str,
)
def test_searchable_keeps_the_prior_and_has_a_slope_at_its_start(p: Parameter) -> None:
    q = p.searchable()
    assert q.start == pytest.approx(p.start, rel=2e-5, abs=2e-5)
    assert (q.center, q.beta) == (p.center, p.beta)
    assert abs(float(jax.grad(q.value)(float(q.start_x)))) > 1e-3 * min(abs(q.start), 1.0)
    values = np.asarray(q.value(np.linspace(-30, 30, 1001)))
    assert np.all(values >= p.low - 1e-9)
    assert np.all(values <= p.high * (1 + 1e-9) + 1e-9)


@pytest.mark.parametrize(
    ("p", "words"),
    [
        (Parameter(1.0, "ranged", 3.0, 2.0), "minimum 3 is not below maximum 2"),
        (Parameter(1.0, "ranged", 2.0, 3.0), "outside its bounds 2 to 3"),
        (Parameter(1.0, beta=1.0), "center is missing"),
        (Parameter(1.0, center=1.0), "beta is missing"),
        (Parameter(1.0, center=1.0, beta=-1.0), "variance"),
        (Parameter(-1.0, "positive"), "above 0"),
        (Parameter(math.nan), "not a finite number"),
        (Parameter(1.0, "ranged"), "finite minimum and maximum"),
        (Parameter(1.0, sigma=0.0), "sigma"),
    ],
)
def test_bad_numbers_are_named(p: Parameter, words: str) -> None:
    with pytest.raises(InputError, match="Nabc") as error:
        p.check("Nabc")
    assert words in str(error.value)
    assert "\n" not in str(error.value)
