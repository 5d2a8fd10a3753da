"""Scenes and parameters from golden files, for tests of the forward model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import numpy as np

from bayesbragg.forward import Options, Parameters, Scene, build_scene
from bayesbragg.forward.diffuse import DiffuseModel
from bayesbragg.forward.factors import HeavyAtoms
from bayesbragg.forward.mosaic import MosaicSamples
from bayesbragg.forward.scene import PanelGroups
from bayesbragg.model import Beam, Crystal, Detector, Shot, Spectrum, StructureFactors


def golden_detector(g: dict[str, Any]) -> Detector:
    n = len(g["panels_nominal_origin_mm"])
    return Detector(
        origin_mm=g["panels_nominal_origin_mm"],
        fast=g["panels_nominal_fast"],
        slow=g["panels_nominal_slow"],
        pixel_size_mm=np.full((n, 2), float(g["pixel_size_mm"])),
        image_size=g["image_size_fast_slow"],
        trusted_range=np.tile([-1e9, 1e9], (n, 1)),
        thickness_mm=np.full(n, float(g["detector_thick_mm"])),
        attenuation_per_mm=np.zeros(n),
        gain=np.ones(n),
        names=tuple(str(i) for i in range(n)),
    )


def golden_shot(g: dict[str, Any]) -> Shot:
    panel, *bounds = g["roi_panel_f1_f2_s1_s2"].T
    bounds = np.stack(bounds, axis=-1)
    shape = (int((bounds[:, 3] - bounds[:, 2]).max()), int((bounds[:, 1] - bounds[:, 0]).max()))
    n, p = len(panel), shape[0] * shape[1]
    shot = Shot(
        panel=panel,
        bounds=bounds,
        shape=shape,
        counts=np.zeros((n, p)),
        background=np.zeros((n, p)),
        trusted=np.zeros((n, p), bool),
        readout_sd=np.asarray(0.0),
        miller_index=np.zeros((n, 3), int),
        reflection_row=np.arange(n),
        lattice=np.zeros(n, int),
        tilt=np.zeros((n, 3)),
    )
    pixels = g["pixels_panel_fast_slow"]
    assert np.array_equal(shot.fast[shot.valid], pixels[:, 1])
    assert np.array_equal(shot.slow[shot.valid], pixels[:, 2])
    arrays = {}
    for name, key in (("counts", "data_photons"), ("background", "background_photons"), ("trusted", "trusted")):
        if key in g:
            array = np.zeros((n, p), g[key].dtype)
            array[shot.valid] = g[key]
            arrays[name] = array
    return replace(shot, trusted=arrays.pop("trusted", shot.valid), **arrays)


def golden_setup(
    g: dict[str, Any], spread: str | None = None, **changes: Any
) -> tuple[Parameters, Scene, Options, Shot]:
    """Parameters, scene and options that should give ``g["I"]``."""
    n_lattices = len(g["crystal_U"]) if "crystal_U" in g else 1
    if spread is None:
        spread = "none"
        if "umat_axes" in g:
            spread = "anisotropic" if np.size(g["eta_deg"]) == 3 and len(set(g["eta_deg"].ravel())) > 1 else "isotropic"
    diffuse = "diffuse_gamma_A" in g
    options = Options(
        **{
            "oversample": int(g["oversample"]),
            "sensor_layers": int(g["detector_thicksteps"]),
            "oversample_omega": bool(g["flag_oversample_omega"]),
            "polarization": not bool(g["flag_nopolar"]),
            "block_scale": not bool(g["flag_no_Nabc_scale"]),
            "spread": spread,
            "complex_factors": "F_p1_imag" in g,
            "diffuse": diffuse,
            "diffuse_stencil": int(g.get("diffuse_stencil", 0)),
            **changes,
        }
    )
    F = g["F_p1"] + (1j * g["F_p1_imag"] if "F_p1_imag" in g else 0)
    factors = StructureFactors(g["hkl_p1"], F, float(g["default_F"]), g["hkl_table_min"], g["hkl_table_max"])
    cell = np.array(g["unit_cell_A_deg"], float)
    us = g["crystal_U"] if "crystal_U" in g else g["U"][None]
    crystals = [Crystal.from_cell(cell, U, to_primitive=g["O_matrix"]) for U in us]
    groups = None
    moves = np.zeros((1, 6))
    if "panel_group_id" in g:
        groups = PanelGroups(g["panel_group_id"], g["panel_group_reference_mm"])
        moves = g["panel_group_OFS_rad_XYZ_m"]
    eta = np.broadcast_to(np.asarray(g["eta_deg"], float).ravel(), 3) if spread != "none" else np.zeros(3)
    parameters = Parameters.start(
        np.concatenate([cell[:3], np.radians(cell[3:])]),
        n_lattices=n_lattices,
        rot_xyz=g["crystal_rotXYZ_rad"] if n_lattices > 1 else g["rotXYZ_rad"],
        n_abc=g["Ncells_abc"],
        n_def=g["Ncells_def"],
        eta_deg=eta,
        G=g["crystal_scale"] if n_lattices > 1 else g["spot_scale"],
        lambda_offset_A=g["lambda_coefs"][0] if g["use_lambda_coefs"] else 0.0,
        lambda_scale=g["lambda_coefs"][1] if g["use_lambda_coefs"] else 1.0,
        n_groups=len(moves),
        panel_rotation_rad=moves[:, :3],
        panel_translation_m=moves[:, 3:],
        gamma_A=g.get("diffuse_gamma_A", 50.0),
        sigma_A=g.get("diffuse_sigma_A", 0.0),
    )
    atoms = None
    if "heavy_atoms_xyz_B_occ" in g:
        atoms = HeavyAtoms(g["heavy_atoms_xyz_B_occ"], g["fprime"], g["fdblprime"])
    mosaic = None
    if spread != "none":
        vectors = g.get("mosaicity_crystal_real_vectors_A", np.eye(3))
        directions = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        mosaic = MosaicSamples(g["umat_axes"], g["umat_cdf_index"], directions)
    shot = golden_shot(g)
    thick = bool(g["detector_thick_mm"] > 0)
    scene = build_scene(
        golden_detector(g),
        Beam(g["beam_unit_source_to_sample"], float(g["wavelengths_A"].mean()), g["polarization_normal"]),
        Spectrum(g["wavelengths_A"], g["fluxes_photons"]),
        crystals,
        shot,
        factors,
        parameters,
        options,
        beam_size_mm=float(g["beam_size_mm"]),
        kahn_factor=float(g["kahn_factor"]),
        groups=groups,
        mosaic=mosaic,
        heavy_atoms=atoms,
        diffuse=DiffuseModel(g["diffuse_laue_matrices"]) if diffuse else None,
        thickstep_mm=float(g["detector_thickstep_mm"]) if thick else 0.0,
        attenuation_length_mm=float(g["detector_attenuation_length_mm"]) if thick else 0.0,
    )
    return parameters, jax.tree.map(np.asarray, scene), options, shot
