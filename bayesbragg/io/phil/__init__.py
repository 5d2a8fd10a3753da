"""PHIL: the classic parameter scopes, read from files and ``key=value`` words through freephil."""

from bayesbragg.io.phil.checks import check
from bayesbragg.io.phil.documentation import documentation
from bayesbragg.io.phil.live import LIVE
from bayesbragg.io.phil.resolved import ResolvedParameters, load_phil, resolve_path

__all__ = ["LIVE", "PHIL_ENDINGS", "ResolvedParameters", "check", "documentation", "load_phil", "resolve_path"]

PHIL_ENDINGS = (".phil", ".eff", ".params", ".def")
"""By which files of parameters are told from others."""
