"""PHIL: the classic names and defaults, prefixes, overrides, abbreviations, and one-line errors."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path

import pytest

from bayesbragg.io.phil import LIVE, check, documentation, load_phil, resolve_path
from bayesbragg.io.phil.scopes import canonical_names, master, walk_definitions
from bayesbragg.model.errors import InputError

REPOSITORY = Path(__file__).resolve().parents[2]

SCRIPT = """
spotfinder.threshold.dispersion.kernel_size=[2,2]
indexing {
  known_symmetry.unit_cell=79.1,79.1,38.4,90,90,90
  refinement_protocol.mode=None
}
reidx_obs=False  # a comment
diffBragg {
  method="L-BFGS-B"
  roi {
    shoebox_size=12
    hotpixel_mask = None
  }
  simulator {
    oversample=2
    structure_factors.mtz_column = "I(+),SIGI(+),I(-),SIGI(-)"
  }
  init { Nabc=[13,14,15]; G=100 }
  !mins.Nabc=[5,5,5]
  mins { RotXYZ=[-15,-15,-15] }
  maxs.RotXYZ=15 15 15
  fix.detz_shift=False
}
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "process.phil"
    path.write_text(SCRIPT)
    return path


def test_values_of_a_file(script: Path) -> None:
    p = load_phil([script], warn=False)
    assert p.init.Nabc == [13, 14, 15]
    assert p.mins.Nabc == [3, 3, 3]
    assert p.maxs.RotXYZ == [15, 15, 15]
    assert p.simulator.structure_factors.mtz_column == "I(+),SIGI(+),I(-),SIGI(-)"
    assert p.method == "L-BFGS-B"
    assert p.roi.hotpixel_mask is None
    assert p.fix.detz_shift is False
    assert p.indexing.known_symmetry.unit_cell == [79.1, 79.1, 38.4, 90, 90, 90]
    assert p.spotfinder.threshold.dispersion.kernel_size == [2, 2]
    assert p.stills.diffBragg.simulator.oversample == p.simulator.oversample == p.get("simulator.oversample") == 2
    assert {"init.G", "roi.shoebox_size", "indexing.known_symmetry.unit_cell"} <= p.changed
    assert "reidx_obs" in p.explicit - p.changed
    check(p)


def test_prefix_and_bare_names_agree(tmp_path: Path) -> None:
    body = "init.G = 7\ngeometry.min.panel_rotations=-5,-1,-1\nprofile=True\nlikelihood=poisson\n"
    body += "simulator { oversample=3 }\n"
    (tmp_path / "bare.phil").write_text(body + "profile.algorithm=ellipsoid\ngeometry.beam.wavelength=1.3\n")
    (tmp_path / "prefixed.phil").write_text(
        f"diffBragg {{\n{body}\n}}\nprofile.algorithm=ellipsoid\ngeometry.beam.wavelength=1.3\n"
    )
    bare, prefixed = (load_phil([tmp_path / f"{name}.phil"], warn=False) for name in ("bare", "prefixed"))
    assert bare.changed_text() == prefixed.changed_text()
    assert bare.geometry.min.panel_rotations == [-5, -1, -1]
    assert bare.stills.geometry.beam.wavelength == 1.3
    assert bare.profile is True
    assert bare.likelihood == "poisson"


def test_classic_defaults() -> None:
    """Values as the classic programs state them."""
    p = load_phil()
    assert p.mins.RotXYZ == [-3.1415926] * 3
    assert p.sigmas.RotXYZ == [1e-3] * 3
    assert (p.ftol, p.maxiter, p.lbfgs_maxiter, p.ucell_edge_perc, p.ucell_ang_abs) == (1e-10, 15000, 100000, 10, 5)
    assert (p.refiner.sigma_r, p.refiner.adu_per_photon, p.simulator.beam.size_mm) == (3, 1, 1)
    assert p.betas.RotXYZ is None
    assert p.fix.ucell is False
    assert p.fix.Ndef is True
    assert p.types.G == "ranged"
    assert p.geometry.optimized_detector_name == "diffBragg_detector.expt"
    assert p.indexing.method == "fft1d"
    assert p.input.glob == []
    assert not p.changed
    check(p)


def test_no_name_belongs_to_two_scopes() -> None:
    assert len(canonical_names()) == len(list(walk_definitions(master())))
    assert set(LIVE) <= set(canonical_names())


def test_overrides_win_and_files_in_order(tmp_path: Path) -> None:
    for name, value in (("a", 2), ("b", 3)):
        (tmp_path / f"{name}.phil").write_text(f"simulator.oversample={value}\ninit.G={value}")
    p = load_phil([tmp_path / "a.phil", tmp_path / "b.phil"], ["diffBragg.simulator.oversample=4", "nproc=3"])
    assert (p.simulator.oversample, p.init.G, p.n_processes) == (4, 3, 3)


@pytest.mark.parametrize(
    ("word", "program", "name"),
    [
        ("oversample=5", "refine", "simulator.oversample"),
        ("oversample=5", "stills_process", "simulator.oversample"),
        ("num_devices=4", "geometry", "refiner.num_devices"),
        ("optimized_detector_name=o.expt", "geometry", "geometry.optimized_detector_name"),
        ("input_pkl=a.pkl", "geometry", "geometry.input_pkl"),
        ("reference_geometry=a.expt", "stills_process", "input.reference_geometry"),
        ("mtz_name=a.mtz", "refine", "simulator.structure_factors.mtz_name"),
        ("dispatch.integrate=False", "stills_process", "dispatch.integrate"),
        ("output.output_dir=x", "stills_process", "output.output_dir"),
        ("shoebox_s=11", "refine", "roi.shoebox_size"),
        ("nproc=2", "stills_process", "nproc"),
    ],
)
def test_abbreviations(word: str, program: str, name: str) -> None:
    assert load_phil([], [word], program, warn=False).changed == {name}


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("overzample=3", "no parameter is called 'overzample'.*simulator.oversample"),
        ("roi.shoebox_sise=3", "roi.shoebox_size"),
        ("G=5", "ambiguous.*init.G"),
        ("init.Nabc=1,2", "init.Nabc = 1,2: expected 3 numbers"),
        ("init.Nabc", "command line, 'init.Nabc': expected NAME=VALUE"),
        ("init.Nabc=", "command line, 'init.Nabc=': expected NAME=VALUE"),
        ("roi=5", "'roi' is a group of parameters"),
        ("posterior.warmup=3", "posterior.warmup = 3: expected a whole number, at least 25"),
        ("fit.tolerance=2", "fit.tolerance = 2: expected a number from 1e-06 to 1"),
        ("restrain_cell_to_start=1,2,3", "expected 1 to 2 numbers"),
        ("likelihood=gaussian poisson", "expected one of gaussian, poisson, poisson_gaussian"),
        ("likelihood=None", "likelihood = None: expected one of .*; leave it out for the default, gaussian"),
        ("ucell_edge_perc=None", "expected a number; leave it out for the default, 10"),
        ("init.Nabc=None", "expected 3 numbers; leave it out"),
        ("init.G=auto", '"auto" has no meaning here; expected a number'),
        ("refiner.sigma_r=nan", "'nan' is no number"),
        ("refiner.sigma_r=abc", "refiner.sigma_r.*'abc'"),
        ("oversample=1.5", "oversample"),
        ("likelihood=student", "student.*poisson"),
        ("fix.G=perhaps", "fix.G = perhaps: expected True or False"),
        ("seed=-1", "seed"),
        ("x", "command line, 'x': expected NAME=VALUE"),
        ("init.G=__import__('os').getpid()", "no number"),
        ("init.G=().__class__", "no number"),
        ("init.G=9**9**9", "no number"),
        ("seed=9**99999999", "no number"),
        ("seed=1<<9999999999", "no number"),
        (f"init.G={'-' * 100_000}1", "no number"),
    ],
)
def test_bad_words(word: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_phil([], [word])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a=1\n\nsimulator {\n overzample=3\n}", r"bad.phil, line 4: .*simulator.overzample.*simulator.oversample"),
        ("init.G=1\nspotfindre.filter.d_min=3", r"bad.phil, line 2.*spotfinder.filter.d_min"),
        ("\nsimulator=3", r"bad.phil, line 2.*group"),
        ("init { G=1", r"bad.phil, line 1: not PHIL: no matching "),
        ("init.G=1\nfoo {\n}", r"bad.phil, line 2: no group"),
        ("init.G=1\noutdir = 'a", r"bad.phil, line 2: not PHIL: missing closing quote"),
        ("init.G=x", r"bad.phil, line 1"),
        ("include scope os.path", r"bad.phil, line 1.*include scope"),
        ("include file missing.phil", r"missing.phil: no such"),
        ("include file bad.phil", "includes itself"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.phil"
    path.write_text(text.replace("a=1\n", "init.G=1\n"))
    with pytest.raises(InputError, match=message) as caught:
        load_phil([path])
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.phil: no such PHIL file"):
        load_phil([tmp_path / "none.phil"])


def test_include_file(tmp_path: Path) -> None:
    (tmp_path / "inner.phil").write_text("G = 5")
    (tmp_path / "outer.phil").write_text("init {\n include file inner.phil\n}")
    assert load_phil([tmp_path / "outer.phil"]).init.G == 5


def test_expressions_are_arithmetic() -> None:
    assert load_phil([], ["init.G=1e3*2+1"]).init.G == 2001
    assert load_phil([], ["init.G=2*10**-3"]).init.G == 0.002


def test_round_trip_and_pickle(script: Path, tmp_path: Path) -> None:
    p = load_phil([script], ["likelihood=poisson", "known_orientations=a.expt"], warn=False)
    (tmp_path / "again.phil").write_text(p.resolved_text())
    (tmp_path / "changed.phil").write_text(p.changed_text())
    for name in ("again", "changed"):
        again = load_phil([tmp_path / f"{name}.phil"], warn=False)
        assert again.resolved_text() == p.resolved_text()
        assert again.changed == p.changed
    copy = pickle.loads(pickle.dumps(p))
    assert copy.init.Nabc == p.init.Nabc
    assert copy.resolved_text() == p.resolved_text()


def test_one_warning_per_inert_name(caplog: pytest.LogCaptureFixture) -> None:
    words = ["simulator.device_id=1", "simulator.device_id=2", "refiner.quiet=False", "init.G=5"]
    with caplog.at_level(logging.WARNING):
        load_phil([], words)
    assert [record.getMessage() for record in caplog.records] == [
        "1 parameter has no effect in this program: simulator.device_id"
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["mins.G=5", "maxs.G=2"], "mins.G.*maxs.G"),
        (["mins.Nabc=3,30,3", "maxs.Nabc=20,20,20"], "mins.Nabc"),
        (["init.Nabc=1,10,10"], "init.Nabc"),
        (["betas.G=1"], "betas.G.*centers.G"),
        (["betas.ucell_a=1"], "centers.ucell_a"),
        (["betas.Nvol=1"], "centers.Nvol"),
        (["betas.Nabc=1,1,0", "centers.Nabc=9,9,9"], "positive"),
        (["betas.RotXYZ=0"], "betas.RotXYZ"),
        (["geometry.min.panel_rotations=2,-1,-1"], "geometry.min.panel_rotations"),
        (["geometry.fix.panel_rotations=2,0,0"], "geometry.fix.panel_rotations"),
        (["refiner.adu_per_photon=0"], "adu_per_photon"),
        (["simulator.oversample=-1"], "oversample"),
        (["anisotropic_mosaicity=1,2"], "3 or 6"),
    ],
)
def test_contradictions(words: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check(load_phil([], words, warn=False))


@pytest.mark.parametrize(
    "words",
    [
        ["betas.RotXYZ=1e-5", "geometry.betas.panel_rot=1,1,1"],
        ["betas.G=1", "centers.G=100"],
        ["init.G=0", "types.G=positive"],
        ["init.Nabc=1,1,1", "best_pickle=a.pkl"],
        ["mins.G=1", "maxs.G=1", "fix.G=True"],
    ],
)
def test_no_contradictions(words: list[str]) -> None:
    check(load_phil([], words, warn=False))


def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "phil"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    phil = [folder / "a.phil"]
    assert resolve_path("a.mtz", phil) == Path("a.mtz")
    (folder / "a.mtz").touch()
    assert resolve_path("a.mtz", phil) == folder / "a.mtz"
    (tmp_path / "a.mtz").touch()
    assert resolve_path("a.mtz", phil) == Path("a.mtz")


def test_documentation_is_up_to_date() -> None:
    assert (REPOSITORY / "docs/parameters.md").read_text(encoding="utf-8") == documentation(), (
        "write docs/parameters.md again from bayesbragg.io.phil.documentation()"
    )


@pytest.mark.parametrize("program", ["refine", "stills_process", "geometry"])
def test_tutorial_files(shared: Path, program: str) -> None:
    for path in sorted((shared / "tutorial/phil").glob("*.phil")):
        p = load_phil([path], program=program, warn=False)
        check(p)
        if "verbatim" in path.name:
            assert p.simulator.oversample == 2
            assert p.refiner.adu_per_photon == 28
            assert p.downsamp_spec.skip is True
        if path.name.startswith("geom"):
            assert p.refiner.panel_group_file == "cspad_32panel.txt"
            assert p.geometry.min.panel_rotations == [-5, -1, -1]
            assert p.use_restraints is True


@pytest.mark.parametrize("word", ["max_process=None", "ftol=None", "mp.nproc=None", "sigmas.G=None", "nproc=None"])
def test_none_where_it_means_something(word: str) -> None:
    assert load_phil([], [word], warn=False).get(word.split("=")[0]) is None


@pytest.mark.parametrize(
    "word", ["device=auto", "device=Auto", "device=*auto cpu", "forward=auto", "joint.groups=auto"]
)
def test_auto_is_a_choice_like_any_other(word: str) -> None:
    assert load_phil([], [word]).get(word.split("=")[0]) == "auto"


def test_auto_is_refused_where_it_is_no_choice() -> None:
    with pytest.raises(InputError, match=r"likelihood = auto.*expected one of gaussian, poisson, poisson_gaussian"):
        load_phil([], ["likelihood=auto"])


def test_a_bare_auto_for_a_name_is_refused() -> None:
    with pytest.raises(InputError, match='outdir = auto: "auto" has no meaning here'):
        load_phil([], ["outdir=auto"])
