"""Which files are a shot: lists of shots, files given in any order, spectra to go with them, and tags that differ."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bayesbragg.model.errors import InputError

__all__ = ["ShotFiles", "pair_files", "read_shot_list", "refuse_to_replace", "stem", "unique_tags", "with_spectra"]


@dataclass(frozen=True)
class ShotFiles:
    """The files of one or several shots.

    Attributes:
        experiments, reflections: paths of the ``.expt`` and ``.refl``.
        spectrum: path of a ``.lam`` file, or None.
        number: use only this experiment of the list, or None for all.
        tag: name of the shot in outputs; from the reflection file's name if empty.
    """

    experiments: Path
    reflections: Path
    spectrum: Path | None = None
    number: int | None = None
    tag: str = ""

    @property
    def name(self) -> str:
        """The tag, or the file's name without its usual endings."""
        return self.tag or stem(self.reflections)


def stem(path: Path) -> str:
    """A file's name without extension and without the words that DIALS adds."""
    name = path.stem
    for ending in ("_indexed", "_refined", "_integrated", "_strong"):
        name = name.removesuffix(ending)
    return name


def read_shot_list(path: Path) -> list[ShotFiles]:
    """The classic ``exp_ref_spec_file``: a line for each shot with ``.expt``, ``.refl`` and, in any order after them, a
    spectrum file and the number of the experiment in its list. Relative names count from the working directory, then
    from the list's folder; names with blanks stand in quotes. Empty lines and those that begin with ``#`` are passed
    over.

    Raises:
        InputError: missing file, or a line that names fewer than two files.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a list with one line '.expt .refl [.lam]' for each shot")
    shots = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file; expected a line '.expt .refl [.lam]' for each shot") from None
    for number, line in enumerate(lines, start=1):
        fields = _words(line)
        if not fields or fields[0].startswith("#"):
            continue
        if len(fields) < 2 or len(fields) > 4:
            raise InputError(f"{path}: line {number} is {line.strip()!r}; expected '.expt .refl [.lam] [number]'")
        index = [field for field in fields[2:] if field.isdigit()]
        spectra = [_beside(field, path) for field in fields[2:] if not field.isdigit()]
        shots.append(
            ShotFiles(
                _beside(fields[0], path),
                _beside(fields[1], path),
                spectra[0] if spectra else None,
                int(index[0]) if index else None,
            )
        )
    if not shots:
        raise InputError(f"{path}: no shots; expected a line '.expt .refl [.lam]' for each")
    return shots


def _words(line: str) -> list[str]:
    """The words of a line; those with blanks stand in quotes."""
    words = shlex.shlex(line, posix=True, punctuation_chars=False)
    words.whitespace_split, words.commenters, words.escape = True, "", ""
    try:
        return list(words)
    except ValueError:  # an apostrophe in a name
        return line.split()


def _beside(name: str, owner: Path) -> Path:
    path = Path(name)
    return path if path.is_absolute() or path.exists() or not (owner.parent / path).exists() else owner.parent / path


def pair_files(paths: Sequence[Path]) -> list[ShotFiles]:
    """Shots from ``.expt`` and ``.refl`` files given in any order; files belong together by their name's beginning, or
    one by one where there is one of each.

    Raises:
        InputError: a file without its partner, or one of another kind.
    """
    kinds = {".expt": "experiments", ".json": "experiments", ".refl": "reflections"}
    for path in paths:
        if path.suffix not in kinds:
            raise InputError(f"{path}: expected .expt and .refl files (PHIL files end in .phil or .eff)")
    experiments = [p for p in paths if kinds[p.suffix] == "experiments"]
    reflections = [p for p in paths if kinds[p.suffix] == "reflections"]
    if len(experiments) == 1 and len(reflections) == 1:
        return [ShotFiles(experiments[0], reflections[0])]
    partner = {(p.parent, stem(p)): p for p in reflections}
    by_name = {stem(p): p for p in reflections}
    if len(partner) < len(reflections):
        raise InputError("two .refl files of one folder have the same name; give them in a list (exp_ref_spec_file)")
    shots = []
    for path in experiments:
        found = partner.pop((path.parent, stem(path)), None)
        if found is None and len(by_name) == len(reflections):
            found = by_name.get(stem(path))
            partner.pop((found.parent, stem(found)), None) if found else None
        if found is None:
            raise InputError(f"{path}: no .refl file of the same name was given; list both in exp_ref_spec_file")
        shots.append(ShotFiles(path, found))
    if partner:
        raise InputError(f"{next(iter(partner.values()))}: no .expt file of the same name was given")
    return shots


def unique_tags(shots: Iterable[ShotFiles]) -> list[ShotFiles]:
    """The shots with tags that differ: equal file names in several folders get their folder's name, then a number."""
    shots = list(shots)
    names = Counter(shot.name for shot in shots)
    tags = [shot.name if names[shot.name] == 1 else f"{shot.reflections.parent.name}_{shot.name}" for shot in shots]
    times, number = Counter(tags), Counter[str]()
    result = []
    for shot, tag in zip(shots, tags, strict=True):
        unique = tag
        if times[tag] > 1:
            # A file may have that very name.
            while (unique := f"{tag}_{number[tag]}") in times:
                number[tag] += 1
            number[tag] += 1
        result.append(replace(shot, tag=unique))
    return result


def refuse_to_replace(folder: Path, shots: Iterable[ShotFiles]) -> None:
    """Raise `InputError` where the results of a shot would be written over its own input."""
    for shot in shots:
        for path, ending in ((shot.experiments, "_refined.expt"), (shot.reflections, "_indexed.refl")):
            result = folder / f"{shot.name}{ending}"
            # Names first: a look at the disk for every shot takes a while.
            if path.name == result.name and path.exists() and result.exists() and path.samefile(result):
                raise InputError(f"{path}: the results would replace this input; set outdir to another folder")


def with_spectra(shots: Sequence[ShotFiles], path: Path) -> list[ShotFiles]:
    """The shots with the spectra of a text file that names one ``.lam`` file per line, in their order. A shot that
    has a spectrum keeps it.

    Raises:
        InputError: missing file, or another number of lines than shots.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else "not a readable text file"
        raise InputError(f"{path}: {reason}; expected one .lam file per line, one for each shot") from None
    names = [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]
    if len(names) != len(shots):
        raise InputError(f"{path}: {len(names)} spectra for {len(shots)} shots; expected one .lam file for each")
    return [
        replace(shot, spectrum=shot.spectrum or _beside(name, path)) for shot, name in zip(shots, names, strict=True)
    ]
