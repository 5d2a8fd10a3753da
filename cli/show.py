"""Print what files hold, and draw them.

  .expt, .json     beam, detector, crystals: cell, orientation, geometry
  .refl            counts by experiment and flag, the range of every column
  image            geometry, counts, mask, spectrum; --index for one of several images
  .mtz             cell, space group, resolution, columns
  .lam             channels, mean and width of a spectrum
  .pkl, .parquet   table of shots; a run's folder, too
  .phil            parameters that differ from their defaults
  .npz             pixels of a fit (TAG_modeler.npz)

--plot draws: an image with its spots (give the image or an .expt, and a .refl for the spots: observed, predicted,
rejected; an image beside an .expt replaces the one that it names), or the boxes of a fit (observed, modelled,
residual).

examples:
  bayesbragg show shot_refined.expt shot_indexed.refl
  bayesbragg show image.cbf
  bayesbragg show shot_refined.expt shot_indexed.refl --plot shot.png
  bayesbragg show shot_refined.expt shot_indexed.refl --plot panel.png --panel 12
  bayesbragg show refined/modelers/shot_modeler.npz --plot boxes.png
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayesbragg.cli.common import add_logging_arguments, positive_integer, set_up_logging
from bayesbragg.model.errors import InputError

if TYPE_CHECKING:
    from bayesbragg.model import Experiment, Reflections

__all__ = ["add_arguments", "run"]

OUTLIER_BIT = 17


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """State the command's options."""
    parser.add_argument("files", metavar="FILE", nargs="+", type=Path, help="what to show")
    parser.add_argument("--plot", metavar="PNG", type=Path, help="draw the files (.png, .pdf or .svg by the ending)")
    parser.add_argument("--index", metavar="I", type=int, default=0, help="which image of a file, 0 for the first")
    parser.add_argument("--panel", metavar="N", type=int, help="draw only this panel, in its own pixels")
    parser.add_argument("--boxes", metavar="N", type=positive_integer, default=6, help="boxes of a fit to draw")
    parser.add_argument("--all", action="store_true", help="every panel and every experiment")
    add_logging_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print and draw; 0 when done."""
    from bayesbragg.pipeline.show import describe_file

    set_up_logging(quiet=arguments.quiet, verbose=arguments.verbose)
    for path in arguments.files:
        if not path.exists():
            raise InputError(f"{path}: no such file; check the name and the working directory")
        print("\n".join(describe_file(path, every=arguments.all, index=arguments.index)))
    if arguments.plot is not None:
        from bayesbragg.diagnostics.figure_style import save

        figure = _figure(arguments)
        try:
            save(figure, arguments.plot)
        except (OSError, ValueError) as error:
            raise InputError(f"{arguments.plot}: cannot be written ({error}); end the name in .png or .pdf") from None
        if not arguments.quiet:
            print(f"wrote {arguments.plot}")
    return 0


def _figure(arguments: argparse.Namespace) -> Any:
    from bayesbragg.pipeline.show import kind_of

    kinds = {kind_of(path): path for path in arguments.files}
    if "pixels" in kinds:
        from bayesbragg.diagnostics.box_plot import boxes_figure
        from bayesbragg.pipeline.write import read_modeler

        path = kinds["pixels"]
        shot, bragg = read_modeler(path)
        return boxes_figure(shot, bragg, n_boxes=arguments.boxes, title=path.stem.removesuffix("_modeler"))
    if not {"image", "experiments"} & set(kinds):
        raise InputError(f"{arguments.files[0]}: nothing to draw; give an image, an .expt, or a *_modeler.npz")
    return _spots_figure(kinds, arguments.index, arguments.panel)


def _spots_figure(kinds: dict[str, Path], index: int, panel: int | None) -> Any:
    from bayesbragg.diagnostics.image_plot import image_figure
    from bayesbragg.io.images import read_image, read_image_experiment
    from bayesbragg.io.reflections import read_reflections

    experiments = _experiments(kinds, index)
    experiment = experiments[0]
    detector = experiment.detector
    if panel is not None and not 0 <= panel < detector.n_panels:
        raise InputError(f"--panel {panel}: the detector has panels 0 to {detector.n_panels - 1}")
    reference = experiment.image
    if "image" in kinds:
        # The image that is given goes before the one that the list names, which may have moved.
        number = reference.index if reference is not None else index
        reference = read_image_experiment(kinds["image"], number).image
    if reference is None:
        raise InputError(f"{kinds['experiments']}: names no image; give the image file besides")
    image = read_image(reference, detector)
    spots = (
        _spots(read_reflections(kinds["reflections"]), experiments, len(detector.names))
        if "reflections" in kinds
        else {}
    )
    title = f"{reference.path.name}, image {reference.index}"
    return image_figure(image.raw, detector, spots, mask=image.mask, panel=panel, title=title)


def _experiments(kinds: dict[str, Path], index: int) -> list[Experiment]:
    """The experiments on one image."""
    from bayesbragg.io.experiments import read_experiments
    from bayesbragg.io.images import read_image_experiment

    if "experiments" not in kinds:
        return [read_image_experiment(kinds["image"], index)]
    found = read_experiments(kinds["experiments"])
    if not 0 <= index < len(found):
        raise InputError(f"{kinds['experiments']}: no experiment {index}; it has {len(found)}")
    first = found[index].image
    if first is None:
        return [found[index]]
    return [e for e in found if e.image is not None and (e.image.path, e.image.index) == (first.path, first.index)]


def _spots(table: Reflections, experiments: list[Experiment], n_panels: int) -> dict[str, Any]:
    """Observed, predicted and rejected spots of these experiments: rejected are outliers and spots without an index."""
    import numpy as np

    if "panel" not in table:
        raise InputError("the reflection table has no column 'panel'; give a table of spots")
    wanted = {e.identifier for e in experiments}
    numbers = [n for n, name in table.identifiers.items() if name in wanted]
    if numbers and "id" in table:
        table = table.select(np.isin(table["id"], [*numbers, -1]))
    panel = np.asarray(table["panel"], dtype=np.int64)
    if len(panel) and not (panel.min() >= 0 and panel.max() < n_panels):
        raise InputError(f"spots on panels {panel.min()} to {panel.max()}; the detector has {n_panels}")
    rejected = np.zeros(len(panel), dtype=bool)
    if "flags" in table:
        rejected |= (np.asarray(table["flags"], dtype=np.int64) >> OUTLIER_BIT & 1).astype(bool)
    if "miller_index" in table:
        rejected |= ~np.any(table["miller_index"] != 0, axis=1)
    spots = {}
    if "xyzobs.px.value" in table:
        observed = np.asarray(table["xyzobs.px.value"])[:, :2]
        spots["observed"] = (panel[~rejected], observed[~rejected])
        spots["rejected"] = (panel[rejected], observed[rejected])
    if "xyzcal.px" in table:
        spots["predicted"] = (panel[~rejected], np.asarray(table["xyzcal.px"])[~rejected, :2])
    return spots
