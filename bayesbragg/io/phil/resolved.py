"""The resolved configuration: defaults, PHIL files and ``key=value`` words put together, later ones winning."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bayesbragg.io.phil.library import freephil
from bayesbragg.io.phil.live import LIVE
from bayesbragg.io.phil.scopes import PREFIX, bare, master, walk_definitions
from bayesbragg.io.phil.sources import read_file, read_override
from bayesbragg.io.phil.values import one_line
from bayesbragg.model.errors import InputError

__all__ = ["ResolvedParameters", "load_phil", "resolve_path"]

logger = logging.getLogger(__name__)

PROGRAMS = ("refine", "stills_process", "geometry")


def resolve_path(value: str | Path, phil_files: Iterable[str | Path] = ()) -> Path:
    """The file that a path in PHIL means: as seen from the working directory, else from a PHIL file's folder.

    A path that exists nowhere comes back as seen from the working directory, for the reader's error to name it.
    """
    path = Path(value).expanduser()
    if path.is_absolute() or path.exists():
        return path
    for phil_file in phil_files:
        beside = Path(phil_file).parent / path
        if beside.exists():
            return beside
    return path


@dataclass(frozen=True, eq=False)
class ResolvedParameters:
    """Every parameter's value.

    The diffBragg names and our own are attributes (``parameters.simulator.oversample``), as are the groups of
    stills_process whose name is not taken (``parameters.output.output_dir``); `stills` has all of them.

    Attributes:
        program: refine, stills_process or geometry.
        classic: PHIL extract of the diffBragg names and our own.
        stills: PHIL extract of the whole tree.
        phil_files: the files read, in order.
        explicit: bare names that a file or a word stated, with whatever value.
        changed: bare names whose value is not the default.
    """

    program: str
    classic: Any
    stills: Any
    phil_files: tuple[Path, ...]
    explicit: frozenset[str]
    changed: frozenset[str]
    _resolved: str = field(repr=False)
    _changed: str = field(repr=False)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or "classic" not in self.__dict__:
            raise AttributeError(name)
        for extract in (self.classic, self.stills):
            if name in extract.__dict__:
                return getattr(extract, name)
        raise AttributeError(f"no parameter or group of parameters is called {name!r}")

    @property
    def n_processes(self) -> int:
        """Processes to run: nproc, else mp.nproc."""
        return int(self.classic.nproc or self.stills.mp.nproc or 1)

    def get(self, name: str) -> Any:
        """The value of a bare name, such as ``init.Nabc``."""
        for extract in (self.classic, self.stills):
            value = extract
            for part in name.split("."):
                value = getattr(value, "__dict__", {}).get(part, _MISSING)
                if value is _MISSING:
                    break
            else:
                return value
        raise KeyError(name)

    def path(self, value: str | Path | None) -> Path | None:
        """The file that a path in these parameters means (see `resolve_path`); None stays None."""
        return None if value is None else resolve_path(value, self.phil_files)

    def resolved_text(self) -> str:
        """All parameters as PHIL; read as a file it gives the same configuration."""
        return self._resolved

    def changed_text(self) -> str:
        """The parameters that differ from their defaults, as PHIL."""
        return self._changed


_MISSING = object()


def load_phil(
    files: Iterable[str | Path] = (),
    overrides: Iterable[str] = (),
    program: str = "refine",
    *,
    warn: bool = True,
) -> ResolvedParameters:
    """Reads PHIL files, then ``key=value`` words, over the default values.

    Args:
        files: PHIL files, later ones win.
        overrides: words of the command line; keys may be abbreviated while they fit one parameter.
        program: refine, stills_process or geometry; tells what an abbreviation means.
        warn: log one warning for each parameter that was changed and has no effect here.

    Raises:
        InputError: a file that is missing or not PHIL, a name that nobody knows, a value of the wrong type.
    """
    if program not in PROGRAMS:
        raise ValueError(f"program {program!r}: expected one of {', '.join(PROGRAMS)}")
    paths = tuple(Path(name) for name in files)
    sources = [read_file(path) for path in paths] + [read_override(word, program) for word in overrides]
    tree = master()
    try:
        working = tree.fetch(sources=sources)
        extract = working.extract()
        difference = tree.fetch_diff(source=working)
    except (RuntimeError, ValueError, freephil.Sorry) as error:
        raise InputError(f"PHIL: {one_line(error)}") from None
    changed = frozenset(bare(path) for path, _ in walk_definitions(difference))
    if warn:
        inert = sorted(changed - set(LIVE))
        if inert:
            some = "1 parameter has" if len(inert) == 1 else f"{len(inert)} parameters have"
            logger.warning("%s no effect in this program: %s", some, ", ".join(inert))
    return ResolvedParameters(
        program=program,
        classic=getattr(extract, PREFIX),
        stills=extract,
        phil_files=paths,
        explicit=frozenset(bare(path) for source in sources for path, _ in walk_definitions(source)),
        changed=changed,
        _resolved=working.as_str(),
        _changed=difference.as_str(),
    )
