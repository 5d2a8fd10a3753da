"""Lists of reflections, and how finely the spectrum must be kept: chosen beforehand, on the host.

Derivatives need a fixed list. It is laid around the parameters that a fit starts from, with a margin in orientation,
cell and block size, and `closed_holds` checks it where the fit ends.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from bayesbragg.forward.beam_spread import BeamSpread
from bayesbragg.forward.closed import ClosedScene, lacking_variance
from bayesbragg.forward.closed_support import check_closed
from bayesbragg.forward.listed import Margin, bucket, list_reflections, narrowest_window, places, thinned
from bayesbragg.forward.options import Options
from bayesbragg.forward.parameters import Parameters
from bayesbragg.forward.resolution import enough_subpixels, rule_size, table_widths
from bayesbragg.forward.scene import Channels, Scene
from bayesbragg.forward.spectrum_table import build_table, covered_widths
from bayesbragg.forward.spread import Reflexes, mixture_rule
from bayesbragg.forward.window import merge_channels

__all__ = ["Margin", "closed_holds", "prepare_closed"]

Array = Any
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

FEW_NODES = 6
"""Up to so many merged channels are summed one by one, more are tabulated."""

_HERE = Margin(0.0, 0.0, 1.0)


def prepare_closed(
    parameters: Parameters,
    scene: Scene,
    options: Options,
    margin: Margin | None = None,
    *,
    merge: bool = True,
    beam: BeamSpread | None = None,
    coarse_subpixels: bool = True,
    tabulate: bool = True,
) -> ClosedScene:
    """Lists of reflections and merged channels for `closed_photons`.

    Args:
        parameters: those that a fit starts from.
        margin: how far it may go.
        merge: merge channels; otherwise each is kept.
        beam: divergence and size of the lit volume; the exact sum knows neither.
        coarse_subpixels: sum fewer subpixels than the options ask for where the spots are wide enough.
        tabulate: look merged channels up in a table; otherwise they are summed one by one.

    Raises:
        ValueError: for options that have no closed form.
    """
    check_closed(options)
    margin = margin or Margin()
    box, lattice, hkl, brightness = list_reflections(parameters, scene, options, margin, beam, every_box=True)
    order = np.lexsort((-brightness, box))
    box, lattice, hkl = box[order], lattice[order], hkl[order]
    first = np.flatnonzero(np.diff(box, prepend=-1))
    others = np.setdiff1d(np.arange(len(box)), first)
    filler = bucket(len(others)) - len(others)
    rows = np.concatenate([first, others, np.zeros(filler, dtype=np.int64)])
    live = np.concatenate([np.ones(len(box)), np.zeros(filler)])
    box, lattice, hkl = box[rows], lattice[rows], hkl[rows]
    reflexes = Reflexes(box, lattice, hkl.astype(np.float64), places(scene, box, lattice, hkl), live)

    thick = thinned(parameters, 1.0 / margin.block)
    width = narrowest_window(thick, scene, options, reflexes)
    wavelengths, strength = np.asarray(scene.channels.wavelengths_A), np.asarray(scene.channels.strength)
    if merge:
        # Windows are widths of 1/lambda'; the nodes live on the wavelengths before their correction.
        scale = float(np.asarray(parameters.spectrum.scale))
        wavelengths, strength = merge_channels(wavelengths, strength, width * scale)
        short = bucket(len(strength), 4 if len(strength) <= FEW_NODES else 16) - len(strength)
        if len(strength) + short < len(scene.channels.strength):
            wavelengths, strength = np.pad(wavelengths, (0, short), "edge"), np.pad(strength, (0, short))
        else:
            wavelengths, strength = np.asarray(scene.channels.wavelengths_A), np.asarray(scene.channels.strength)
            width = 0.0
    rule = mixture_rule(rule_size(thick, scene, options, reflexes))
    subpixels = enough_subpixels(thick, scene, options, reflexes)
    if not coarse_subpixels:
        subpixels = options.oversample
    lacking = lacking_variance(subpixels, options.oversample)
    table = None
    if not merge:
        width = 0.0
    if merge and tabulate and len(strength) > FEW_NODES:
        narrowest, widest = table_widths(parameters, scene, options, reflexes, beam, lacking)
        room = 1.02 / margin.block
        table = build_table(wavelengths, strength, narrowest / room, widest * room)
    if table is not None:
        # The table stands for the nodes, of which the strongest alone still counts: one shape for all spectra.
        brightest = int(np.argmax(strength))
        wavelengths, strength = wavelengths[brightest : brightest + 1], strength[brightest : brightest + 1]
    nodes = Channels(wavelengths, strength)
    return ClosedScene(scene, nodes, reflexes, np.asarray(width), table, rule, beam, subpixels)


def closed_holds(parameters: Parameters, closed: ClosedScene, options: Options) -> bool:
    """Whether lists and nodes made elsewhere still serve at these parameters.

    No reflection that is missing may come near 1/8000 of the brightest of its box, and no window may be narrower than
    the channels were merged for.
    """
    scene, listed = closed.scene, closed.reflexes
    box, lattice, hkl, _ = list_reflections(parameters, scene, options, _HERE, closed.beam, every_box=False)
    live = np.asarray(listed.live) > 0
    known = np.column_stack([listed.box, listed.lattice, listed.hkl])[live].astype(np.int64)
    needed = np.column_stack([box, lattice, hkl])
    complete = {tuple(row) for row in needed.tolist()} <= {tuple(row) for row in known.tolist()}
    width = narrowest_window(parameters, scene, options, listed)
    if closed.table is not None:
        lacking = lacking_variance(closed.subpixels or options.oversample, options.oversample)
        narrowest, widest = table_widths(parameters, scene, options, listed, closed.beam, lacking)
        least, most = covered_widths(closed.table)
        complete = complete and least <= narrowest and widest <= most
    if closed.rule is not None and not options.mosaic_nodes:
        complete = complete and rule_size(parameters, scene, options, listed) <= len(closed.rule)
    if closed.subpixels:
        complete = complete and enough_subpixels(parameters, scene, options, listed) <= closed.subpixels
    return complete and width >= float(closed.width) * (1.0 - 1e-9)
