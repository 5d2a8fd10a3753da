"""Scenes for benchmarks of closed forms: boxes of 12 x 12 pixels on reflections of the virtual experiment."""

from __future__ import annotations

from typing import Any

import numpy as np

from bayesbragg.forward import Options, Parameters, Scene, build_scene
from bayesbragg.stills.prediction import predict
from bayesbragg.stills.virtual import blank_shot, virtual_experiment

__all__ = ["make_scene"]

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
    side: int = 12,
    **options: Any,
) -> tuple[Parameters, Scene, Options]:
    """Parameters, scene and options; boxes lie on predicted reflections, without regard to overlap.

    Args:
        side: pixels along a side of a box.
        fwhm_eV: width of the spectrum; its channels span three times that.
        options: fields of `Options`.
    """
    e = virtual_experiment(seed, n_channels=n_channels, fwhm_eV=fwhm_eV)
    switches = Options(**options)
    parameters = Parameters.start(CELL, n_abc=blocks, eta_deg=eta_deg, G=600.0)
    found = predict(e.crystal, e.beam, e.spectrum, e.detector, d_min=2.6, n_abc=blocks, eta_deg=eta_deg, widths=1.5)
    shot = blank_shot(found, e.detector, n_boxes=n_boxes, side=side)
    scene = build_scene(
        e.detector, e.beam, e.spectrum, [e.crystal], shot, e.factors, parameters, switches, n_mosaic=n_mosaic,
        margin=margin,
    )  # fmt: skip
    return parameters, scene, switches
