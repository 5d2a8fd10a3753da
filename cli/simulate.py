"""Simulate stills: images with noise, the truth beside them.

Structure factors come from an MTZ file or from coordinates, the detector and the beam from an .expt file or an image (a
small virtual detector if none is given). Bragg photons are the forward model's own on every pixel. The seed and a
shot's number decide everything random about it: the same words make the same files, in parallel or not. Parameters
have the names that refinement gives them, and those of the scope simulate (`bayesbragg phil simulate` lists them).

units: angstrom, degree, millimetre, electronvolt; photons per pixel; detector units (ADU) in the images.

examples:
  bayesbragg simulate outdir=sim simulate.n_shots=4 simulator.structure_factors.mtz_name=iobs_all.mtz \\
      simulator.structure_factors.mtz_column="I(+),SIGI(+),I(-),SIGI(-)" init.Nabc=10,10,10 init.G=1000 \\
      simulate.background.ring=2 refiner.adu_per_photon=28
  bayesbragg simulate sim.phil simulate.experiment=cspad.expt simulate.spectrum=sase \\
      simulate.background.water=0.1 nproc=8
  bayesbragg simulate sim.phil simulate.errors.group_shift_sd=0.05,0.05,0 joint.groups=single

output folder (outdir):
  PREFIX_00000.h5, ...             images, geometry and spectrum; the group truth holds the crystals
  truth/PREFIX_00000.json          every true value, with units in the names
  truth/PREFIX_00000.expt, .refl   true crystals, detector and strong spots, for DIALS and for refine
  geometry_true.expt               the detector that made the images; geometry_stated.expt where files state another
  background.npz                   photons of every pixel, for simulate.background.file
  run.json, bayesbragg.log         settings, versions, input hashes
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayesbragg.cli.common import add_logging_arguments, progress, provenance, set_up_folder, set_up_logging, write_json
from bayesbragg.cli.words import is_parameter
from bayesbragg.model.errors import InputError

if TYPE_CHECKING:
    from bayesbragg.pipeline.simulate import MadeShot
    from bayesbragg.pipeline.simulate_settings import SimulateSettings

__all__ = ["add_arguments", "run"]

log = logging.getLogger("bayesbragg.simulate")
DEFAULT_FOLDER = "simulated"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """State the command's options."""
    parser.add_argument("words", nargs="*", metavar="PHIL|KEY=VALUE", help="parameter files and single parameters")
    parser.add_argument("--show-phil", action="store_true", help="print the resolved parameters and stop")
    add_logging_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Make the files; 0 when all are there."""
    from bayesbragg.io.phil import load_phil

    set_up_logging(None, quiet=arguments.quiet, verbose=arguments.verbose)
    files = [word for word in arguments.words if not is_parameter(word)]
    parameters = load_phil(files, list(filter(is_parameter, arguments.words)), program="refine")
    if arguments.show_phil:
        print(parameters.resolved_text())
        return 0
    from bayesbragg.pipeline.simulate import make_world, write_geometry
    from bayesbragg.pipeline.simulate_settings import simulate_settings

    settings = simulate_settings(parameters)
    folder = Path(parameters.outdir or DEFAULT_FOLDER)
    set_up_folder(parameters, folder, quiet=arguments.quiet, verbose=arguments.verbose)
    log.info("parameters that differ from their defaults:\n%s", parameters.changed_text())
    world = make_world(settings)
    write_geometry(world, folder)
    factors = settings.shared.factors
    inputs = [p for p in (factors.mtz, factors.pdb, settings.experiment, settings.background.file) if p is not None]
    configuration = {"phil": parameters.changed_text()}
    record = provenance(configuration=configuration, inputs=inputs, seed=settings.seed)
    write_json(folder / "run.json", record)
    numbers = range(settings.first, settings.first + settings.n_shots)
    tasks = [list(numbers[i : i + settings.images_per_file]) for i in range(0, len(numbers), settings.images_per_file)]
    n_workers = min(parameters.n_processes, len(tasks))
    lost: list[str] = []
    with progress(len(numbers), "simulating", quiet=arguments.quiet) as bar:
        for shot in _shots(tasks, settings, folder, n_workers):
            if isinstance(shot, str):
                lost.append(shot)
                log.error("%s", shot)
                continue
            log.info("shot %d: %d strong spots, brightest %.0f photons", shot.number, shot.n_spots, shot.brightest)
            if not arguments.quiet:
                print(
                    f"{shot.path.name} shot {shot.number}: {shot.n_spots} strong spots, brightest pixel "
                    f"{shot.brightest:.0f} Bragg photons"
                )
            bar.advance(shot.path.name)
    return 1 if lost else 0


def _shots(
    tasks: Sequence[list[int]], settings: SimulateSettings, folder: Path, n_workers: int
) -> Iterable[MadeShot | str]:
    """Every shot as it is finished; a text for a file that failed."""
    if n_workers <= 1:
        make = _prepare((settings, folder))
        for task in tasks:
            yield from make(task)
        return
    from bayesbragg.pipeline.workers import share_out

    yield from share_out(tasks, _prepare, (settings, folder), n_workers, _lost)


def _lost(task: list[int], how: str) -> MadeShot | str:
    return f"shots {task[0]} to {task[-1]} were not made: {how}"


def _prepare(argument: tuple[Any, Path]) -> Callable[[list[int]], Iterable[MadeShot | str]]:
    from bayesbragg.pipeline.simulate import make_world

    settings, folder = argument
    return partial(_make, make_world(settings), settings, folder)


def _make(world: Any, settings: Any, folder: Path, numbers: list[int]) -> Iterable[MadeShot | str]:
    from bayesbragg.pipeline.simulate import simulate_file

    try:
        return list(simulate_file(world, settings, numbers, folder))
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}); name another folder with outdir") from None
