"""Scenes for benchmarks of closed forms: boxes of 12 x 12 pixels on reflections of the virtual experiment."""

from __future__ import annotations

from typing import Any

import numpy as np

from bayesbragg.forward import Options, Parameters, Scene, build_scene
from bayesbragg.model import Shot
from bayesbragg.stills.prediction import predict
from bayesbragg.stills.virtual import virtual_experiment

__all__ = ["CELL", "make_scene"]

CELL = np.array([79.1, 79.1, 38.4, np.pi / 2, np.pi / 2, np.pi / 2])


def make_scene(
    *,
    n_boxes: int = 100,
    n_channels: int = 30,
    fwhm_eV: float = 30.0,
    blocks: tuple[float, float, float] = (13.0, 14.0, 15.0),
    eta_deg: float = 0.0,
    n_mosaic: int = 1,
    seed: int = 0,
    margin: int = 1,
    **options: Any,
) -> tuple[Parameters, Scene, Options]:
    """Parameters, scene and options; boxes lie on predicted reflections, without regard to overlap.

    Args:
        fwhm_eV: width of the spectrum; its channels span three times that.
        options: fields of `Options`.
    """
    e = virtual_experiment(seed, n_channels=n_channels, fwhm_eV=fwhm_eV)
    switches = Options(**options)
    parameters = Parameters.start(CELL, n_abc=blocks, eta_deg=eta_deg, G=600.0)
    found = predict(e.crystal, e.beam, e.spectrum, e.detector, d_min=2.6, n_abc=blocks, eta_deg=eta_deg, widths=1.5)
    corner = np.floor(found.position).astype(int) - 6
    inside = np.flatnonzero(np.all((corner >= 0) & (corner < e.detector.image_size[0] - 12), axis=1))
    rows = inside[np.linspace(0, len(inside) - 1, n_boxes).astype(int)]
    f, s = corner[rows].T
    blank = np.zeros((n_boxes, 144))
    shot = Shot(
        panel=found.panel[rows],
        bounds=np.column_stack([f, f + 12, s, s + 12]),
        shape=(12, 12),
        counts=blank,
        background=blank,
        trusted=np.ones_like(blank, dtype=bool),
        readout_sd=np.asarray(1.0),
        miller_index=found.miller_index[rows],
        reflection_row=np.arange(n_boxes),
        lattice=np.zeros(n_boxes, int),
        tilt=np.zeros((n_boxes, 3)),
    )
    scene = build_scene(
        e.detector, e.beam, e.spectrum, [e.crystal], shot, e.factors, parameters, switches, n_mosaic=n_mosaic,
        margin=margin,
    )  # fmt: skip
    return parameters, scene, switches
