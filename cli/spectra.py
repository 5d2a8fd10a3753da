"""Show, draw and convert the spectra of images and .lam files, as a refinement would use them.

For every shot: the channels that its file holds, those that the parameters leave of them (down-sampling, stride, a
Gaussian or one line in their place), mean energy, width and photons. Without parameters a spectrum is used as it is.

examples:
  bayesbragg spectra image.h5
  bayesbragg spectra process.phil "images/*.h5" --plot spectra.png
  bayesbragg spectra process.phil shot.h5 downsamp_spec.skip=False downsamp_spec.delta_en=2 --output lam
  bayesbragg spectra measured.lam simulator.spectrum.stride=4 --output lam
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from bayesbragg.cli.common import add_logging_arguments, set_up_logging
from bayesbragg.cli.words import sort_words
from bayesbragg.model.errors import InputError

if TYPE_CHECKING:
    from bayesbragg.model import Spectrum
    from bayesbragg.pipeline.settings import SpectrumSettings

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """State the command's options."""
    parser.add_argument("words", metavar="FILE|PHIL|KEY=VALUE", nargs="+", help="images, .lam files, parameters")
    parser.add_argument("--plot", metavar="PNG", type=Path, help="draw the spectra (.png, .pdf or .svg by the ending)")
    parser.add_argument("--output", metavar="FOLDER", type=Path, help="write each used spectrum as a .lam file there")
    add_logging_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print, draw and write; 0 when done."""
    from bayesbragg.io.spectra import write_lam
    from bayesbragg.pipeline.show import spectrum_lines

    set_up_logging(quiet=arguments.quiet, verbose=arguments.verbose)
    settings, files = _read(arguments.words)
    spectra: list[tuple[str, Spectrum | None, Spectrum]] = []
    for path in files:
        spectra += _of_file(path, settings)
    for name, raw, used in spectra:
        print(f"{name}: {used.n_channels} channels used" + (f" of {raw.n_channels}" if raw is not None else ""))
        print("\n".join(f"  {line}" for line in spectrum_lines(used)))
    if arguments.output is not None:
        arguments.output.mkdir(parents=True, exist_ok=True)
        for name, _, used in spectra:
            path = arguments.output / f"{name}.lam"
            write_lam(used, path)
            if not arguments.quiet:
                print(f"wrote {path}")
    if arguments.plot is not None:
        from bayesbragg.diagnostics.figure_style import save
        from bayesbragg.diagnostics.spectrum_plot import spectra_figure

        try:
            save(spectra_figure(spectra), arguments.plot)
        except (OSError, ValueError) as error:
            raise InputError(f"{arguments.plot}: cannot be written ({error}); end the name in .png or .pdf") from None
        if not arguments.quiet:
            print(f"wrote {arguments.plot}")
    return 0


def _read(words: list[str]) -> tuple[SpectrumSettings | None, list[Path]]:
    """Settings, or None where no parameter was given, and files."""
    from bayesbragg.io.phil import load_phil
    from bayesbragg.pipeline.from_phil import settings_from_phil

    phil, files, values = sort_words(words)
    if not files:
        raise InputError("no image and no .lam file was named; give one or more")
    if not phil and not values:
        return None, files
    return settings_from_phil(load_phil(phil, values, program="refine")).spectrum, files


def _of_file(path: Path, settings: SpectrumSettings | None) -> list[tuple[str, Spectrum | None, Spectrum]]:
    """Name, the file's spectrum and the one that is used, of every shot of a file."""
    from bayesbragg.io.images import count_images, read_image, read_image_experiment
    from bayesbragg.io.spectra import read_lam
    from bayesbragg.pipeline.spectrum_choice import spectrum_of

    if path.suffix == ".lam":
        raw = read_lam(path)
        return [(path.stem, raw, raw if settings is None else read_lam(path, None, settings.stride))]
    n = count_images(path)
    rows: list[tuple[str, Spectrum | None, Spectrum]] = []
    for index in range(n):
        experiment = read_image_experiment(path, index)
        if experiment.image is None:
            raise InputError(f"{path}: names no image; give the image file")
        image = read_image(experiment.image, experiment.detector)
        name = path.stem if n == 1 else f"{path.stem}_{index:05d}"
        if settings is None:
            if image.spectrum is None:
                raise InputError(
                    f"{path}: holds no spectrum; give parameters that make one, such as gen_gauss_spec=True"
                )
            rows.append((name, image.spectrum, image.spectrum))
            continue
        rows.append((name, image.spectrum, spectrum_of(image, experiment, None, settings)[0]))
    return rows
