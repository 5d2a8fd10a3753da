"""The annotated parameter file is PHIL, complete, and changes nothing when it is given back."""

from __future__ import annotations

from pathlib import Path

import pytest

from bayesbragg.io.phil import LIVE, load_phil
from bayesbragg.io.phil.annotated import PROGRAMS, annotated
from bayesbragg.model.errors import InputError

PROGRAM_NAMES = {
    "refine": "refine",
    "stills-process": "stills_process",
    "geometry-refine": "geometry",
    "simulate": "refine",
}


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("inert", [False, True])
def test_given_back_unedited_it_changes_nothing(program: str, inert: bool, tmp_path: Path) -> None:
    path = tmp_path / "all.phil"
    path.write_text(annotated(program, inert=inert))
    parameters = load_phil([path], [], program=PROGRAM_NAMES[program])
    assert parameters.changed == frozenset()


def test_it_states_every_live_parameter_once(tmp_path: Path) -> None:
    path = tmp_path / "all.phil"
    stated: set[str] = set()
    for program in PROGRAMS:
        path.write_text(annotated(program))
        stated |= load_phil([path], [], program=PROGRAM_NAMES[program]).explicit
    assert stated == set(LIVE)


def test_a_word_picks_the_parameters_that_begin_with_it() -> None:
    text = annotated("refine", "ETA")
    assert "eta_abc = True" in text
    assert "ucell_a" not in text


def test_a_word_that_fits_nothing_names_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean"):
        annotated("refine", "oversampel")


def test_a_command_without_parameters_is_an_error() -> None:
    with pytest.raises(InputError, match="geometry-refine"):
        annotated("demo")
