"""Densities from the golden target files (cases 19a to 19d), in the classic coordinates."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
from forward.golden_scene import golden_setup

from bayesbragg.forward import expected_photons
from bayesbragg.inference.density import LogDensity
from bayesbragg.priors import Cell, CellConstraint, Fixed, Normal, Priors, Uniform, Volume, make_layout
from bayesbragg.priors.parameter import Parameter

NAMES = {
    **{f"RotXYZ{i}_xtal0": n for i, n in enumerate(("rotX", "rotY", "rotZ"))},
    **{f"Nabc{i}": n for i, n in enumerate(("Na", "Nb", "Nc"))},
    **{f"Ndef{i}": n for i, n in enumerate(("Nd", "Ne", "Nf"))},
    **{f"eta_abc{i}": f"eta_{n}" for i, n in enumerate("abc")},
    **{n: n for n in ("detz_shift", "lambda_offset", "lambda_scale")},
    "G_xtal0": "G",
    "ucell0": "ucell_a",
    "ucell1": "ucell_c",
}
KINDS = {"RangedParameter": "ranged", "PositiveParameter": "positive"}


def _prior(p: dict[str, Any], restraints: bool) -> Any:
    if p["fixed"]:
        return Fixed(p["init"])
    kind = KINDS[p["kind"]]
    if restraints and p["center"] is not None:
        return Normal.from_beta(p["center"], p["beta"], p["minval"], p["maxval"], p["init"], kind, p["sigma"])
    return Uniform(p["minval"], p["maxval"], p["init"], kind, p["sigma"])


def golden_density(g: dict[str, Any]) -> tuple[LogDensity, np.ndarray]:
    """The density, and the position in the classic vector of each of its numbers."""
    meta = json.loads(str(g["meta_json"]))
    listed = {p["name"]: p for p in meta["parameters"]}
    prior = {name: _prior(p, meta["restraints"]) for name, p in listed.items()}
    triple = lambda stem: tuple(prior[f"{stem}{i}"] for i in range(3))  # noqa: E731
    start, scene, options, shot = golden_setup({**g, "eta_deg": g.get("eta_deg", np.zeros(3))})
    spread = options.spread
    priors = Priors(
        RotXYZ=tuple(prior[f"RotXYZ{i}_xtal0"] for i in range(3)),
        cell=Cell(priors={"ucell_a": prior["ucell0"], "ucell_c": prior["ucell1"]}),
        Nabc=triple("Nabc"),
        Ndef=triple("Ndef"),
        eta_abc=triple("eta_abc") if spread != "none" else Fixed(),
        G=prior["G_xtal0"],
        detz_shift=prior["detz_shift"],
        lambda_offset=prior["lambda_offset"],
        lambda_scale=prior["lambda_scale"],
        Nvol=Volume(meta["Nvol_center"], meta["Nvol_beta"]) if meta["Nvol_center"] and meta["restraints"] else None,
    )
    constraint = CellConstraint.for_space_group(meta["space_group_number"], np.asarray(start.crystal.cell))
    layout, base = make_layout(priors, start, constraint)
    shot = replace(shot, readout_sd=np.asarray(g["sigma_readout_photons"], float))
    density = LogDensity(expected_photons, scene, options, shot, layout, base)
    classic = {NAMES[p["name"]]: p["xpos"] for p in meta["parameters"] if p["name"] in NAMES}
    return density, np.array([classic[name] for name in layout.names])


__all__ = ["Parameter", "golden_density"]
