"""What every command does in the same way: its log, its progress bar, and the record of what made its output."""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from bayesbragg.io.phil import ResolvedParameters

__all__ = ["Progress", "add_logging_arguments", "count_draws", "file_hashes", "progress", "set_up_logging"]
__all__ += ["positive_integer", "provenance", "set_up_folder", "write_json"]
__all__ += ["EXIT_BAD_INPUT", "EXIT_FAILURE", "EXIT_INTERRUPTED"]

EXIT_FAILURE, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 1, 2, 130

LOGGER = "bayesbragg"
PACKAGES = (
    "bayesbragg",
    "numpy",
    "scipy",
    "jax",
    "jaxlib",
    "numpyro",
    "arviz",
    "pandas",
    "h5py",
    "gemmi",
    "freephil",
    "msgpack",
)


def add_logging_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that every command has."""
    group = parser.add_argument_group("messages")
    group.add_argument("-q", "--quiet", action="store_true", help="print results and errors only, no progress")
    group.add_argument("-v", "--verbose", action="store_true", help="print what goes to the log as well")


def positive_integer(text: str) -> int:
    """An argument that must be a whole number above zero."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above zero")
    return value


def set_up_logging(folder: Path | None = None, *, quiet: bool = False, verbose: bool = False) -> Path | None:
    """Send the package's messages to the terminal and, where a folder is given, all of them to its log file.

    Calling it again replaces the handlers of the call before.

    Args:
        folder: output folder of the run; its ``bayesbragg.log`` is appended to.
        quiet: only errors on the terminal.
        verbose: everything on the terminal.

    Returns:
        The log file, if there is one.

    Raises:
        InputError: the folder cannot be written to.
    """
    logger = logging.getLogger(LOGGER)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    terminal = logging.StreamHandler(sys.stderr)
    terminal.setLevel(logging.ERROR if quiet else logging.DEBUG if verbose else logging.WARNING)
    terminal.setFormatter(logging.Formatter("bayesbragg: %(levelname)s: %(message)s"))
    logger.addHandler(terminal)
    if folder is None:
        return None
    path = folder / "bayesbragg.log"
    with _told_of(folder, "change its permissions, or name another folder"):
        folder.mkdir(parents=True, exist_ok=True)
        file = logging.FileHandler(path, encoding="utf-8")
    file.setLevel(logging.DEBUG)
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logger.addHandler(file)
    logger.debug("command: %s", " ".join(sys.argv))
    return path


def set_up_folder(parameters: ResolvedParameters, folder: Path, *, quiet: bool, verbose: bool) -> Path | None:
    """Make the output folder of a run, with its log unless ``logging.disable`` is set; the rest as `set_up_logging`."""
    with _told_of(folder, "set outdir to another folder"):
        folder.mkdir(parents=True, exist_ok=True)
    return set_up_logging(None if parameters.logging.disable else folder, quiet=quiet, verbose=verbose)


@contextmanager
def _told_of(folder: Path, remedy: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        from bayesbragg.model.errors import InputError  # only now: --help must not import numpy

        raise InputError(f"{folder}: cannot be written to ({error.strerror}); {remedy}") from None


class Progress(Protocol):
    """Something that counts finished pieces of work."""

    def advance(self, text: str = "") -> None:
        """One more piece is done; `text` says which, or how it went."""


class _Silent:
    def advance(self, text: str = "") -> None:
        return None


@contextmanager
def progress(total: int, what: str, *, quiet: bool = False) -> Iterator[Progress]:
    """A progress bar on a terminal; nothing where the output goes to a file or a pipe.

    Args:
        total: pieces of work.
        what: what is being done, such as ``refining``.
        quiet: no bar.
    """
    if quiet or not sys.stderr.isatty():
        yield _Silent()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    # Names of files are no markup, and results that go to a file do not belong on the terminal.
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}", markup=False),
    )
    with Bars(*columns, console=Console(stderr=True), redirect_stdout=sys.stdout.isatty()) as bars:
        task = bars.add_task(what, total=total, text="")

        class _Bar:
            def advance(self, text: str = "") -> None:
                bars.update(task, advance=1, text=text)

        yield _Bar()


def count_draws(bar: Progress) -> Callable[[int, int], None]:
    """A function that is told of draws, done and wanted, and moves a bar of 100 pieces; each tenth goes to the log."""
    shown = 0

    def report(done: int, wanted: int) -> None:
        nonlocal shown
        while shown < 100 * done // max(wanted, 1):
            shown += 1
            bar.advance(f"{done} of {wanted} draws")
            if shown % 10 == 0:
                logging.getLogger(LOGGER).info("posterior: %d %% of the draws", shown)

    return report


def file_hashes(paths: Iterable[str | os.PathLike[str]]) -> dict[str, str]:
    """SHA-256 of each file by its path as given; files that are not there are left out."""
    hashes = {}
    for path in paths:
        if os.path.isfile(path):
            with open(path, "rb") as file:
                hashes[os.fspath(path)] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes


def provenance(
    *,
    configuration: Mapping[str, Any] | None = None,
    inputs: Iterable[str | os.PathLike[str]] = (),
    seed: int | None = None,
    command: Sequence[str] | None = None,
) -> dict[str, Any]:
    """What determines a result: the command, the resolved configuration, the seed, versions and hashes of inputs.

    Args:
        configuration: every setting as it was used, after defaults.
        inputs: files that were read.
        seed: seed of all randomness, or None where there was none.
        command: the command line; that of the process by default.
    """
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "command": list(sys.argv if command is None else command),
        "directory": os.getcwd(),
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": versions,
        "platform": f"{platform.system()} {platform.machine()}",
        "seed": seed,
        "configuration": dict(configuration or {}),
        "inputs_sha256": file_hashes(inputs),
    }


def write_json(path: Path, document: Mapping[str, Any]) -> Path:
    """Write JSON under a temporary name, then rename it."""
    from bayesbragg.io.files import write_bytes  # only now: --help must not import numpy

    write_bytes(path, (json.dumps(document, indent=2, default=_plain) + "\n").encode())
    return path


def _plain(value: Any) -> Any:
    """Paths as text, arrays and array scalars as lists and numbers, everything else as it prints."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)
