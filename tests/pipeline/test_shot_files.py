"""Which files belong together, and what shots are called."""

from __future__ import annotations

from pathlib import Path

import pytest

from bayesbragg.model.errors import InputError
from bayesbragg.pipeline.shot_files import (
    ShotFiles,
    pair_files,
    read_shot_list,
    refuse_to_replace,
    unique_tags,
    with_spectra,
)


def paths(*names: str) -> list[Path]:
    return [Path(name) for name in names]


def test_files_pair_by_name_in_any_order() -> None:
    found = pair_files(paths("b_indexed.refl", "a_refined.expt", "x/a_indexed.refl", "b_refined.expt"))
    assert {(s.experiments.name, str(s.reflections)) for s in found} == {
        ("a_refined.expt", "x/a_indexed.refl"),
        ("b_refined.expt", "b_indexed.refl"),
    }
    assert pair_files(paths("one.expt", "other.refl"))[0].name == "other"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.expt", "b.expt", "a.refl"], "b.expt: no .refl file"),
        (["a.expt", "a.refl", "b.refl"], "b.refl: no .expt file"),
        (["a.expt", "a_indexed.refl", "a_strong.refl"], "same name"),
        (["a.expt", "a.mtz"], "a.mtz: expected .expt and .refl"),
    ],
)
def test_files_without_a_partner(names: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        pair_files(paths(*names))


def test_tags_differ() -> None:
    shots = [ShotFiles(Path("x.expt"), Path(f)) for f in ("a/s.refl", "b/s.refl", "c/a/s.refl", "a/t_indexed.refl")]
    assert [s.name for s in unique_tags(shots)] == ["a_s_0", "b_s", "a_s_1", "t"]


def test_lists(tmp_path: Path) -> None:
    (tmp_path / "b.refl").write_text("")
    path = tmp_path / "list.txt"
    path.write_text("# shots\n\na.expt b.refl c.lam 3\na.expt b.refl 0\n")
    first, second = read_shot_list(path)
    assert (first.reflections, first.spectrum, first.number) == (tmp_path / "b.refl", Path("c.lam"), 3)
    assert (second.spectrum, second.number) == (None, 0)
    spectra = tmp_path / "spectra.txt"
    spectra.write_text("x.lam\ny.lam\n")
    assert [s.spectrum for s in with_spectra([first, second], spectra)] == [Path("c.lam"), Path("y.lam")]
    for text, message in (("a.expt\n", "line 1 is 'a.expt'"), ("", "no shots"), ("# a b\n", "no shots")):
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            read_shot_list(path)
    with pytest.raises(InputError, match="no such file"):
        read_shot_list(tmp_path / "none.txt")


def test_names_of_very_many_shots_are_made_at_once_and_hit_no_other_name() -> None:
    """One list with 20,000 experiments of one file; a file of the name that the first would get."""
    shots = [ShotFiles(Path("run/all.expt"), Path("run/all.refl"), number=n) for n in range(20_000)]
    tags = [s.tag for s in unique_tags([*shots, ShotFiles(Path("run_all_0.expt"), Path("run_all_0.refl"))])]
    assert len(set(tags)) == len(tags)
    assert tags[-1] == "run_all_0"
    assert tags[0] == "run_all_1"


def test_a_list_of_names_with_blanks_and_apostrophes(tmp_path: Path) -> None:
    path = tmp_path / "shots.txt"
    path.write_text("'my run/a 1.expt' \"my run/a 1.refl\" 3\nit's.expt b.refl\nплёнка.expt c\\d.refl\n")
    assert [(str(s.experiments), str(s.reflections), s.number) for s in read_shot_list(path)] == [
        ("my run/a 1.expt", "my run/a 1.refl", 3),
        ("it's.expt", "b.refl", None),
        ("плёнка.expt", "c\\d.refl", None),
    ]


def test_results_do_not_replace_their_own_input(tmp_path: Path) -> None:
    expt, refl = tmp_path / "shot_1_indexed.expt", tmp_path / "shot_1_indexed.refl"
    for path in (expt, refl):
        path.touch()
    refuse_to_replace(tmp_path / "out", [ShotFiles(expt, refl)])
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with pytest.raises(InputError, match=r"shot_1_indexed\.refl: the results would replace this input; set outdir"):
        refuse_to_replace(elsewhere / "..", [ShotFiles(expt, refl)])
    refuse_to_replace(tmp_path, [ShotFiles(expt, refl, tag="another")])
