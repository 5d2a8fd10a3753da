"""How the shots of a run went."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any

from bayesbragg.model.errors import InputError
from bayesbragg.pipeline.shot_files import ShotFiles

__all__ = ["BAD_INPUT", "ERROR", "EXISTING", "Outcome", "failure"]

log = logging.getLogger(__name__)

BAD_INPUT, ERROR, EXISTING = "bad input", "error", "existing"


@dataclass(frozen=True)
class Outcome:
    """How one shot went.

    Attributes:
        tag: the shot.
        status: of the fit, or ``bad input``, ``error`` or ``existing``.
        reason: one line.
        rows: its rows of the table; none if it failed.
        seconds: wall time with reading and writing.
    """

    tag: str
    status: str
    reason: str
    rows: tuple[dict[str, Any], ...] = ()
    seconds: float = 0.0

    @property
    def done(self) -> bool:
        """Whether the shot was fitted in this run."""
        return bool(self.rows)

    @property
    def failed(self) -> bool:
        return self.status in (BAD_INPUT, ERROR)

    @property
    def bad_input(self) -> bool:
        """Whether the reason is the input, not the program."""
        return self.status == BAD_INPUT


def failure(tag: str, files: ShotFiles, error: Exception, clock: float) -> Outcome:
    """The outcome of a shot that raised an error; its reason names a file. ``clock``: when the work on it began."""
    bad = isinstance(error, InputError)
    reason = " ".join(str(error).split())
    if not bad:
        reason = f"{type(error).__name__}: {reason}"
    log.debug("%s: %s", tag, "bad input" if bad else "failed", exc_info=error)
    # A message of the numerical rooms knows its shot at most by its tag.
    if "/" not in reason.split(": ", 1)[0] and not _names(reason, files):
        reason = f"{files.experiments}: {reason.removeprefix(f'{tag}: ')}"
    seconds = time.perf_counter() - clock
    return Outcome(tag, BAD_INPUT if bad else ERROR, reason, seconds=seconds)


def _names(reason: str, files: ShotFiles) -> bool:
    return any(str(path) in reason for path in (files.experiments, files.reflections, files.spectrum) if path)
