"""Error bars and full posteriors of refined shots, or of a joint geometry.

Give the output folder of bayesbragg refine, or single shots in it (TAG_refined.expt). Each shot is prepared again as
its refinement did, from the settings and inputs that run.json names, seen from where the refinement ran. Given the
output folder of bayesbragg geometry-refine, panels and shots have one posterior (docs/geometry.md).

settings (KEY=VALUE):
  inference=laplace    a Gaussian about the best fit, corrected by importance weights: seconds; or nuts, the full
                       posterior by Markov chains: minutes, and right where the posterior is not Gaussian; or hmc,
                       chains that take fewer steps where the Gaussian is nearly right
  draws=2000           draws (laplace); of each chain (nuts and hmc, there 500 by default)
  chains=4 warmup=75   of nuts and hmc
  target_accept=0.6    of nuts (hmc: 0.8; both 0.95 near a bound): raise it towards 0.99 where there are divergences
  exact_hessian=False  of laplace: the exact second derivative in place of the expected one
  seed=0               of all randomness
  parameters=A,B       which ones are plotted; all by default
  plots=False          also write TAG_trace.png, TAG_pairs.png, TAG_prior.png, TAG_predicted.png, TAG_residuals.png, and
                       forest_NAME.png for the cell of several shots

Every posterior has a verdict: k-hat of the weights (laplace), or R-hat, effective sample sizes, divergences and E-BFMI
of the chains (nuts, hmc). With --strict a verdict that fails is exit code 1.

examples:
  bayesbragg posterior refined
  bayesbragg posterior refined/shot_000_refined.expt inference=nuts plots=True --strict
  bayesbragg posterior geom inference=nuts plots=True parameters=group3,shot_000_ucell_a

output, in the folder of the run (of a joint geometry: panels_posterior.nc, .csv and pictures):
  TAG_posterior.nc                 draws and all that ArviZ needs: arviz.from_netcdf reads it
  posterior_summary.pkl/.parquet   the table of shots with standard deviations: a_sd, rotX_sd, ncells_sd, ...
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayesbragg.cli.common import (
    EXIT_BAD_INPUT,
    EXIT_INTERRUPTED,
    add_logging_arguments,
    count_draws,
    progress,
    provenance,
    set_up_logging,
)
from bayesbragg.cli.earlier_run import EarlierRun, compare_inputs, read_run, shot_files, wanted_tags
from bayesbragg.cli.posterior_geometry import explore_folder, is_geometry
from bayesbragg.cli.posterior_words import PosteriorWords, read_words
from bayesbragg.cli.words import is_parameter
from bayesbragg.model.errors import InputError

if TYPE_CHECKING:
    from bayesbragg.model.posterior import Posterior
    from bayesbragg.pipeline.shot_files import ShotFiles

__all__ = ["add_arguments", "run"]

log = logging.getLogger("bayesbragg.posterior")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="+", metavar="DIR|SHOT|KEY=VALUE", help="a refined folder or shots in it")
    parser.add_argument("--strict", action="store_true", help="exit code 1 if a shot fails or a verdict does")
    add_logging_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    settings, folder, tags = _sorted(arguments.words)
    set_up_logging(None, quiet=arguments.quiet, verbose=arguments.verbose)
    if is_geometry(folder):
        return _geometry(settings, folder, tags, arguments)
    earlier = read_run(folder)
    wanted = wanted_tags(earlier, tags)

    from bayesbragg.io.tables import read_table
    from bayesbragg.pipeline.device import choose_device, remember_programs
    from bayesbragg.pipeline.posterior_table import write_posteriors

    choose_device(earlier.parameters.device)
    remember_programs(purpose="posterior")
    set_up_logging(folder, quiet=arguments.quiet, verbose=arguments.verbose)
    compare_inputs(earlier.record)
    columns: dict[str, list[dict[str, Any]]] = {}
    failed = unconvincing = 0
    interrupted = False
    try:
        for tag, outcome in _explore(earlier, wanted, settings, quiet=arguments.quiet):
            if isinstance(outcome, str):
                print(f"bayesbragg: error: {outcome}", file=sys.stderr)
                log.info("%s: %s", tag, outcome)
                failed += 1
                continue
            posterior, columns[tag] = outcome
            unconvincing += not posterior.verdict.passed
            print(f"{tag}\n{posterior.summary()}")
            log.info("%s: %s", tag, posterior.summary())
    except KeyboardInterrupt:
        # The posteriors that are there go into the table.
        interrupted = True
        print("bayesbragg: interrupted; name the shots that are missing to go on", file=sys.stderr)
    if not columns:
        return EXIT_INTERRUPTED if interrupted else EXIT_BAD_INPUT
    path = write_posteriors(read_table(earlier.folder), columns, earlier.folder)
    if settings.plots and len(columns) > 1:
        _plot_forests(earlier.folder, list(columns), settings.names)
    good = len(columns) - unconvincing
    print(f"{len(columns)} of {len(wanted)} posteriors, {good} with a verdict that passed; {path} has their sds")
    return EXIT_INTERRUPTED if interrupted else int(arguments.strict and bool(failed or unconvincing))


def _geometry(settings: PosteriorWords, folder: Path, tags: list[str], arguments: argparse.Namespace) -> int:
    """The posterior of a joint geometry."""
    if tags:
        raise InputError(f"{folder}: the shots of a joint geometry have one posterior; give the folder")
    set_up_logging(folder, quiet=arguments.quiet, verbose=arguments.verbose)
    passed = explore_folder(
        folder, settings.how, settings.seed, settings.names, plots=settings.plots, quiet=arguments.quiet
    )
    return int(arguments.strict and not passed)


def _sorted(words: list[str]) -> tuple[PosteriorWords, Path, list[str]]:
    """Settings, the folder, and the tags of shots that were named (none: all)."""
    settings = read_words(filter(is_parameter, words))
    folders: list[Path] = []
    tags: list[str] = []
    for word in words:
        path = Path(word)
        if is_parameter(word):
            continue
        elif path.is_dir():
            folders.append(path)
        elif path.is_file() and path.name.endswith("_refined.expt"):
            folders.append(path.parent)
            tags.append(path.name.removesuffix("_refined.expt"))
        elif path.exists():
            raise InputError(f"{path}: expected the output folder of bayesbragg refine, or a TAG_refined.expt in it")
        else:
            raise InputError(f"{path}: no such file or folder; give the output folder of bayesbragg refine")
    if not folders:
        raise InputError("no shots: give the output folder of bayesbragg refine, or a TAG_refined.expt in it")
    if len({folder.resolve() for folder in folders}) > 1:
        raise InputError(f"{folders[0]} and {folders[1]}: shots of two runs; ask for one run at a time")
    return settings, folders[0], tags


def _explore(earlier: EarlierRun, wanted: list[str], settings: PosteriorWords, *, quiet: bool) -> Any:
    """Tag, and the posterior with its columns for every lattice, or the reason why there is none."""
    from bayesbragg.pipeline.from_phil import reference_geometry
    from bayesbragg.pipeline.load import find_stills

    geometry, beam = reference_geometry(earlier.parameters), earlier.parameters.path(earlier.parameters.opt_beam)
    left = set(wanted)
    for files in shot_files(earlier):
        # Several stills of one file have the file's name and a number as their tags.
        if not any(tag == files.name or tag.startswith(f"{files.name}_") for tag in left):
            continue
        try:
            sources = find_stills(files, earlier.settings, reference_geometry=geometry, reference_beam=beam)
        except Exception as error:
            named = {tag for tag in left if tag == files.name or tag.startswith(f"{files.name}_")}
            yield from ((tag, _reason(tag, files, error)) for tag in sorted(named))
            left -= named
            continue
        for source in sources:
            if source.tag not in left:
                continue
            left.discard(source.tag)
            try:
                yield source.tag, _one(earlier, source, settings, quiet=quiet)
            except Exception as error:
                yield source.tag, _reason(source.tag, files, error)
    for tag in sorted(left):
        yield tag, f"{earlier.folder}: shot {tag}: its inputs are not among those that run.json names"


def _reason(tag: str, files: ShotFiles, error: Exception) -> str:
    """Why a shot has no posterior, in one line; one bad shot does not take those of the others away."""
    log.debug("%s: no posterior", tag, exc_info=error)
    text = " ".join(str(error).split())
    return text if isinstance(error, InputError) else f"{files.experiments}: {type(error).__name__}: {text}"


def _one(
    earlier: EarlierRun, source: Any, settings: PosteriorWords, *, quiet: bool
) -> tuple[Posterior, list[dict[str, Any]]]:
    from bayesbragg.diagnostics.arviz_container import write_netcdf
    from bayesbragg.diagnostics.inference_data import inference_data
    from bayesbragg.inference.laplace import target_of_fit
    from bayesbragg.pipeline.error_bars import posterior_columns
    from bayesbragg.pipeline.posterior import fit_again

    tag, rows = source.tag, earlier.rows[source.tag]
    if str(rows[0].get("status")) == "failed":
        raise InputError(f"{earlier.folder}: shot {tag}: its fit failed ({rows[0].get('reason')}); refine it again")
    prepared, fit = fit_again(source.read(), earlier.settings, rows, f"{earlier.folder}: shot {tag}")
    chosen = settings.names or None
    for name in chosen or ():
        if name not in fit.names:
            raise InputError(f"parameters={name}: not a parameter of shot {tag}; choose among {', '.join(fit.names)}")
    posterior = _sample(target_of_fit(prepared.density, fit), settings, tag, quiet=quiet)
    record = provenance(
        configuration={"phil": earlier.record["configuration"]["phil"], "posterior": vars(settings)},
        seed=settings.seed,
    )
    record["inputs_sha256"] = earlier.record["inputs_sha256"]
    data = inference_data(posterior, prepared.density, prepared.shot, provenance=record)
    write_netcdf(data, earlier.folder / f"{tag}_posterior.nc")
    if settings.plots:
        from bayesbragg.diagnostics.figure_style import save
        from bayesbragg.diagnostics.posterior_plots import pair_plot, prior_plot, trace_plot
        from bayesbragg.diagnostics.predictive_plots import predictive_plot, residual_plot

        for name, plot in (("trace", trace_plot), ("pairs", pair_plot), ("prior", prior_plot)):
            save(plot(data, chosen), earlier.folder / f"{tag}_{name}.png")
        for name, picture in (("predicted", predictive_plot), ("residuals", residual_plot)):
            save(picture(data), earlier.folder / f"{tag}_{name}.png")
    constraint = prepared.layout.constraint
    return posterior, [posterior_columns(posterior, constraint, number) for number in range(len(rows))]


def _sample(target: Any, settings: PosteriorWords, tag: str, *, quiet: bool) -> Posterior:
    from bayesbragg.pipeline.error_bars import sample

    how = settings.how
    with progress(100, f"sampling {tag}", quiet=quiet or not how.samples) as bar:
        return sample(target, how, settings.seed, count_draws(bar))


def _plot_forests(folder: Path, tags: list[str], names: list[str]) -> None:
    """One picture for each parameter, all shots in it; the cell where no parameters are named."""
    from bayesbragg.diagnostics.arviz_container import groups_of, read_netcdf
    from bayesbragg.diagnostics.figure_style import save
    from bayesbragg.diagnostics.predictive_plots import forest_plot

    data = {tag: read_netcdf(folder / f"{tag}_posterior.nc") for tag in tags}
    known = [{str(name) for name in groups_of(one)["posterior"].data_vars} for one in data.values()]
    for name in names or sorted(n for n in known[0] if n.startswith("ucell_")):
        if all(name in own for own in known):
            save(forest_plot(data, name), folder / f"forest_{name}.png")
