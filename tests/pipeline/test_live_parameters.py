"""Every name that is said to have an effect has one: another value gives other settings, or a complaint."""

from __future__ import annotations

import inspect
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from bayesbragg.io.phil import LIVE, ResolvedParameters, load_phil
from bayesbragg.io.phil.scopes import bare, master, walk_definitions
from bayesbragg.io.phil.stills_live import STILLS
from bayesbragg.model.errors import InputError
from bayesbragg.pipeline.from_phil import reference_geometry, settings_from_phil
from bayesbragg.pipeline.simulate_settings import simulate_settings

REPOSITORY = Path(__file__).resolve().parents[2]
REFINE = "".join(
    (REPOSITORY / name).read_text() for name in ("cli/refine.py", "cli/common.py", "bayesbragg/io/phil/resolved.py")
) + inspect.getsource(reference_geometry)

# Read by the command itself: an attribute of the parameters there.
BY_THE_COMMAND = (
    *("exp_ref_spec_file", "best_pickle", "opt_det", "opt_beam", "input.reference_geometry", "refiner.reference_geom"),
    *("skip", "first_n", "max_process", "ignore_existing", "outdir", "output.output_dir", "nproc", "mp.nproc"),
    *("simulator.spectrum.filename_list", "logging.disable", "device", "batch"),
)
# What makes a name count, where by itself it does not.
WITH = {
    "betas": ["use_restraints=True"],
    "centers": ["use_restraints=True"],
    "types": ["fix.diffuse_sigma=False", "fix.diffuse_gamma=False"],
    "mins": ["fix=False"],
    "maxs": ["fix=False"],
    "sigmas": ["fix=False"],
    "psf": ["simulator.psf.use=True"],
    "gauss_spec": ["gen_gauss_spec=True"],
    "detector": ["simulator.detector.thicksteps=2"],
    "use_restraints": ["centers.G=1", "betas.G=1"],
}
FITTED = ("Ndef", "B", "eta_abc", "spec", "detz_shift", "diffuse_sigma", "diffuse_gamma")


def other(definition: Any, name: str) -> str:
    """A value that differs from the default value."""
    kind, words = str(definition.type), [str(word) for word in definition.words]
    now = " ".join(words)
    if kind.startswith("choice"):
        return next((word for word in words if not word.startswith("*")), "")
    if name == "remove_duplicate_hkl":
        return "False"  # its default is not what happens unless it is stated
    if kind.startswith("bool"):
        return "False" if now == "True" else "True"
    special = {
        "roi.panels": "1-2",
        "refiner.res_ranges": "2-9",
        "space_group": "P1",
        "refiner.force_symbol": "P1",
        "method": "Nelder-Mead",
        "diffuse_orientation": "0",
    }
    if name in special:
        return special[name]
    if kind.startswith(("str", "path")):
        return "another"
    numbers = [float(x) for x in re.findall(r"[-+]?[\d.]+(?:e[-+]?\d+)?", now)] or [2.0] * size(name, kind)
    if name == "lbfgs_maxiter" or name == "maxiter":
        return "7"
    if name.startswith("maxs."):
        numbers = [x * 1.5 for x in numbers]
    elif name.startswith("mins."):
        numbers = [x - 0.25 * abs(x) - 1e-3 if x else -1.0 for x in numbers]
    else:
        numbers = [x + 1 for x in numbers]
    if "int" in kind:
        return ",".join(str(int(x)) for x in numbers)
    return ",".join(repr(x) for x in numbers)


def size(name: str, kind: str) -> int:
    last = name.split(".")[-1]
    if last == "spec" or last == "trusted_range":
        return 2
    if last in ("Nabc", "Ndef", "eta_abc", "diffuse_sigma", "diffuse_gamma", "anisotropic_mosaicity"):
        return 3
    return 1


@lru_cache
def outcome(*words: str, command: str = "refine") -> str:
    read = {"refine": settings_from_phil, "simulate": simulate_settings}[command]
    try:
        return repr(read(load_phil([], words, warn=False)))
    except InputError as error:
        return f"error: {error}"


DEFINITIONS = {bare(path): definition for path, definition in walk_definitions(master())}


OTHER_COMMANDS = ("geometry.", "joint.", "refiner.panel_group_file", *STILLS)


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in LIVE if n not in BY_THE_COMMAND and not n.startswith(OTHER_COMMANDS)])
def test_settings_follow(name: str) -> None:
    definition = DEFINITIONS[name]
    value = other(definition, name)
    if not value:
        pytest.skip("there is nothing to choose")
    context: list[str] = []
    for part, words in WITH.items():
        if part in name:
            context += [f"fix.{p}=False" for p in FITTED] if words == ["fix=False"] else words
    if name.startswith(("betas.", "centers.")) or name in ("use_restraints",):
        group, _, parameter = name.partition(".")
        context += [f"fix.{p}=False" for p in FITTED]
        # A restraint is a pair: the other half is given, and this one changes.
        if parameter and parameter != "RotXYZ":
            partner = "centers" if group == "betas" else "betas"
            three = ",".join(["5"] * size(name, ""))
            context += [f"{partner}.{parameter}={three}", f"{group}.{parameter}={three}"]
    context = [word for word in context if not word.startswith(f"{name}=") or name.startswith(("betas", "centers"))]
    command = "simulate" if name.startswith("simulate.") else "refine"
    before = outcome(*context, command=command)
    after = outcome(*context, f"{name}={value}", command=command)
    assert not before.startswith("error"), before
    assert before != after, f"{name}={value} changes nothing"


@pytest.mark.parametrize("name", BY_THE_COMMAND)
def test_the_command_reads(name: str) -> None:
    assert name in LIVE
    assert re.search(rf"\b(p|parameters|stills|self\.classic|self\.stills)\.{re.escape(name)}\b", REFINE)


def test_a_variable_is_not_taken_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOMEWHERE", "elsewhere")
    path = tmp_path / "x.phil"
    path.write_text("outdir = $SOMEWHERE/out\n")
    for words in ([path], []), ([], ["outdir=$(SOMEWHERE)"]):
        with pytest.raises(InputError, match=r"outdir = .*variables of the environment"):
            load_phil(*words)
    path.write_text("outdir = '$SOMEWHERE/out'\n")
    assert load_phil([path]).outdir == "$SOMEWHERE/out"


def test_what_is_not_offered_is_refused() -> None:
    def resolved(word: str) -> ResolvedParameters:
        return load_phil([], [word], warn=False)

    for word in ("gamma_miller_units=True", "niter=2", "method=annealing"):
        with pytest.raises(InputError, match=word.split("=")[0]):
            settings_from_phil(resolved(word))
    with pytest.raises(InputError, match="three diagonal elements"):
        settings_from_phil(resolved("anisotropic_mosaicity=1,1,1,0,0,0"))
