"""Closed forms of the lattice sum: the spectrum as one quadratic per reflection, the mosaic spread as a few Gaussians.

Same geometry, solid angle, polarization, capture, structure factors and normalisation as the exact sum; only the
lattice sum differs. Instead of the nearest reflection at every wavelength and mosaic sample, the few reflections that
can light up a box are listed beforehand (`bayesbragg.forward.candidates`); each is summed over the spectrum at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from bayesbragg.forward.beam_spread import BeamSpread, blur_covariance
from bayesbragg.forward.closed_support import check_closed
from bayesbragg.forward.geometry import Directions, MovedBoxes
from bayesbragg.forward.options import Options
from bayesbragg.forward.parameters import Parameters
from bayesbragg.forward.pixels import Look, block_heights, fold_pixels
from bayesbragg.forward.rays import Tilts, coefficients, pixel_tilts, windows
from bayesbragg.forward.scene import Channels, Scene
from bayesbragg.forward.spectrum_table import SpectrumTable, row_tables, through_table
from bayesbragg.forward.spread import Reflexes, Shapes, shape_reflexes
from bayesbragg.forward.stored_jit import stored_jit
from bayesbragg.forward.window import WINDOW_NAME, through_window

__all__ = ["ClosedScene", "closed_photons", "lacking_variance"]

Array = Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ClosedScene:
    """A scene with what the closed forms need beforehand.

    Attributes:
        scene: as for the exact sum, with all channels.
        nodes: the channels merged for the windows of this shot (`bayesbragg.forward.window.merge_channels`); the
            strongest of them alone where there is a table.
        reflexes: reflections that can light up boxes; the first ``n_boxes`` rows are the strongest of each box.
        width: standard deviation in 1/wavelength of the narrowest window that the nodes serve, scalar, 1/angstrom; 0
            where no channels are merged.
        table: the nodes as a table to look up; None where they are few and summed one by one.
        rule: quadrature of the classic isotropic spread, ``(n_nodes, 2)``.
        beam: divergence and size of the lit volume; None for a beam without.
        subpixels: subpixels along each side of a pixel that are summed; what they lack of ``options.oversample`` is
            blurred in.
    """

    scene: Scene
    nodes: Channels
    reflexes: Reflexes
    width: Array
    table: SpectrumTable | None = None
    rule: Array | None = None
    beam: BeamSpread | None = None
    subpixels: int = field(default=0, metadata={"static": True})


def lacking_variance(subpixels: int, wanted: int) -> float:
    """Variance along each side of the square of ``wanted`` subpixels that coarser ones leave out, pixel^2."""
    return (1.0 / subpixels**2 - 1.0 / wanted**2) / 12.0


def _corrected_widths(parameters: Parameters, table: SpectrumTable, shapes: Shapes) -> tuple[Array, Array]:
    """1/lambda' of the table's middle, and tau of `bayesbragg.forward.spectrum_table`, ``(n_nodes, n_rows)``.

    A window at c in 1/lambda' is one at k = scale c / (1 - offset c) in 1/lambda, wider by the derivative.
    """
    offset, scale, middle = parameters.spectrum.offset_A, parameters.spectrum.scale, table.middle
    reference = middle / (scale + offset * middle)
    stretch = 1.0 - offset * reference
    return reference, jnp.log(shapes.variance / (shapes.length * stretch / middle) ** 2)


def _uncorrected(parameters: Parameters, centre: Array, reference: Array) -> Array:
    """1/lambda, relative to the table's middle, of 1/lambda' relative to ``reference``."""
    there = 1.0 - parameters.spectrum.offset_A * reference
    factor, slope = (a.astype(centre.dtype) for a in (parameters.spectrum.scale / there, parameters.spectrum.offset_A))
    return factor * centre / (there.astype(centre.dtype) - slope * centre)


@stored_jit("options")
def closed_photons(parameters: Parameters, closed: ClosedScene, options: Options) -> Array:
    """Bragg photons per pixel, without background, ``(n_boxes, n_pixels)``: `expected_photons` in closed form.

    Args:
        closed: from `bayesbragg.forward.candidates.prepare_closed`, with the same options.

    Raises:
        ValueError: for options that have no closed form (`bayesbragg.forward.closed_support.closed_unavailable`).
    """
    check_closed(options)
    parameters = jax.tree.map(jnp.asarray, parameters)
    scene, nodes, reflexes, table = closed.scene, closed.nodes, closed.reflexes, closed.table
    dtype = jnp.dtype(options.precision)
    n_boxes, n_rows = scene.boxes.fast_px.shape[0], reflexes.box.shape[0]
    _, height = block_heights(parameters, options)
    F = scene.factors.real.reshape(-1)[reflexes.position]
    strongest = jnp.max(nodes.strength)
    amplitude = (reflexes.live * F * F * height[reflexes.lattice] * strongest).astype(dtype)[:, None]
    subpixels = closed.subpixels or options.oversample
    lacking = lacking_variance(subpixels, options.oversample)
    blur = None
    if closed.beam is not None or lacking > 0:
        blur = partial(blur_covariance, parameters, scene, reflexes, spread=closed.beam, lacking=lacking)
    shapes = shape_reflexes(parameters, scene, options, reflexes, rule=closed.rule, blur=blur)
    if table is None:
        inverse = nodes.inverse(parameters.spectrum)
        k_reference = jnp.mean(inverse)
        k, strength = (inverse - k_reference).astype(dtype), (nodes.strength / strongest).astype(dtype)
        spectrum: tuple[Array, ...] = ()
    else:
        k_reference, tau = _corrected_widths(parameters, table, shapes)
        spectrum = tuple(a.astype(dtype) for a in (tau, *row_tables(table, tau)))
    columns = coefficients(parameters, options, shapes, dtype)
    log_weight = jnp.log(shapes.weight).astype(dtype)[..., None]

    def one_node(tilts: Tilts, node: Any) -> Array:
        columns, log_weight, spectrum = node
        window = windows(tilts, columns, k_reference.astype(dtype))
        miss = window.miss - log_weight
        if table is None:
            return through_window(miss, window.centre, window.sharpness, k, strength)
        tau, *tables = spectrum
        place = _uncorrected(parameters, window.centre, k_reference)
        return through_table(miss, place, tau, window.wider, tuple(tables))

    keep = jax.checkpoint_policies.save_only_these_names(WINDOW_NAME)

    def rows_sum(rows: slice, moved: MovedBoxes, point: Directions) -> Array:
        tilts = pixel_tilts(scene, shapes, rows, moved, point, k_reference)
        of_nodes = jax.tree.map(lambda a: a[:, rows], (columns, log_weight, spectrum))
        n_nodes = log_weight.shape[0]
        if n_nodes == 1:
            total = one_node(tilts, jax.tree.map(lambda a: a[0], of_nodes))
        else:
            add = jax.checkpoint(one_node, policy=keep)
            start = jnp.zeros_like(tilts.first)
            total, _ = jax.lax.scan(lambda total, node: (total + add(tilts, node), None), start, of_nodes)
        return amplitude[rows] * total

    def lattice_sum(moved: MovedBoxes, point: Directions, term: Array, look: Look) -> Array:
        del term
        total = rows_sum(slice(0, n_boxes), moved, point)
        if n_rows > n_boxes:
            # Directions are found anew from what belongs to a box: picked pixel by pixel they would have to be added
            # up pixel by pixel in a derivative, which is slow.
            box = reflexes.box[n_boxes:]
            again = moved.at(box)
            more = rows_sum(slice(n_boxes, n_rows), again, look(scene.boxes.at(box), again))
            total = total.at[box].add(more)
        return total

    return fold_pixels(parameters, scene, replace(options, oversample=subpixels), (), lattice_sum, keep)
