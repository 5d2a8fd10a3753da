"""The `bayesbragg` command: a table of subcommands, and one place that turns bad input into one line and exit code 2.

Subcommands are modules with ``add_arguments(parser)`` and ``run(arguments) -> int``; their docstring is their help.
Only the module that is asked for is imported, so that ``bayesbragg --help`` answers at once.
"""

from __future__ import annotations

import argparse
import difflib
import logging
import os
import sys
from collections.abc import Sequence
from importlib import import_module, metadata
from typing import NamedTuple, NoReturn

from bayesbragg.cli.common import EXIT_BAD_INPUT, EXIT_FAILURE, EXIT_INTERRUPTED

__all__ = ["COMMANDS", "Command", "main"]


class Command(NamedTuple):
    """Where a subcommand lives, and what it does in half a line."""

    module: str
    summary: str


COMMANDS: dict[str, Command] = {
    "demo": Command("bayesbragg.cli.demo", "refine the bundled shots and show offsets before and after"),
    "refine": Command("bayesbragg.cli.refine", "refine crystal, mosaic, scale and spectrum models against pixels"),
    "stills-process": Command(
        "bayesbragg.cli.stills_process", "raw stills to refined models and integrated reflections"
    ),
    "geometry-refine": Command("bayesbragg.cli.geometry_refine", "refine one detector against many shots"),
    "rebuild-table": Command("bayesbragg.cli.rebuild_table", "make a crashed run's table of shots from its rows"),
    "residuals": Command("bayesbragg.cli.residuals", "offsets between observed and predicted spots, on the detector"),
    "pred-offsets": Command("bayesbragg.cli.pred_offsets", "the same against resolution, for one run or several"),
    "posterior": Command("bayesbragg.cli.posterior", "error bars and full posteriors of refined shots"),
    "summary": Command("bayesbragg.cli.summary", "what a run's crystals have in common, as priors for the next run"),
    "report": Command("bayesbragg.cli.report", "one HTML page about a run, finished or under way"),
    "show": Command("bayesbragg.cli.show", "print what files hold, and draw them"),
    "spectra": Command("bayesbragg.cli.spectra", "show, draw and convert spectra, and count the channels used"),
    "simulate": Command("bayesbragg.cli.simulate", "make images of known truth"),
    "phil": Command("bayesbragg.cli.phil", "print a command's parameters with defaults, units and meanings"),
    "completion": Command("bayesbragg.cli.completion", "print a script that completes words in your shell"),
}

HELP_FLAGS = ("-h", "--help", "help")
VERSION_FLAGS = ("-V", "--version", "version")


def overview() -> str:
    """The text of ``bayesbragg --help``."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}   {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: bayesbragg COMMAND [ARGUMENT ...]",
            "",
            "Pixel models of serial-crystallography stills, with honest error bars.",
            "",
            "commands:",
            *lines,
            "",
            "bayesbragg COMMAND --help explains a command with an example; bayesbragg --version names the version.",
            "New here? `bayesbragg demo` takes a minute or two and needs no data.",
        ]
    )


def version() -> str:
    """The installed version, or a word that says there is none."""
    try:
        return metadata.version("bayesbragg")
    except metadata.PackageNotFoundError:
        return "(not installed)"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand.

    Args:
        argv: arguments after the program's name; those of the process by default.

    Returns:
        0 when all is well, 1 when the run failed, 2 for input that cannot be used, 130 when interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["help"] and len(arguments) > 1:
        arguments = [arguments[1], "--help"]
    if not arguments or arguments[0] in HELP_FLAGS:
        print(overview())
        return 0
    name, *rest = arguments
    if name in VERSION_FLAGS:
        print(f"bayesbragg {version()}")
        from bayesbragg.pipeline.device import choose_device  # only now: it starts jax

        print(f"fits run on {choose_device('auto')}")
        return 0
    if name not in COMMANDS:
        return _complain(f"{name!r} is not a command;{_nearest(name)} bayesbragg --help lists them")
    try:
        return _run(name, rest)
    except SystemExit as stop:  # argparse has printed its own message
        return stop.code if isinstance(stop.code, int) else EXIT_BAD_INPUT
    except KeyboardInterrupt:
        print("bayesbragg: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone; nothing is left to say to it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILURE


def _run(name: str, rest: Sequence[str]) -> int:
    # Matrices are small here; threads of numpy's algebra spin while they wait, on cores that the fits could use.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    module = import_module(COMMANDS[name].module)
    parser = _Parser(
        prog=f"bayesbragg {name}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    parsed, strays = parser.parse_known_args(rest)
    if strays:
        options = [flag for action in parser._actions for flag in action.option_strings]
        return _complain(_stray(parser, options, strays))

    from bayesbragg.model.errors import InputError  # only now: it brings numpy along

    try:
        return int(module.run(parsed))
    except InputError as error:
        logging.getLogger("bayesbragg").debug("stopped by bad input", exc_info=True)
        return _complain(" ".join(str(error).split()))
    except Exception as failure:
        logger = logging.getLogger("bayesbragg")
        logs = [handler for handler in logger.handlers if isinstance(handler, logging.FileHandler)]
        if not logs:
            raise
        for handler in logs:
            record = logger.makeRecord(logger.name, logging.ERROR, __file__, 0, "failed", (), sys.exc_info())
            handler.handle(record)
        print(
            f"bayesbragg: failed: {type(failure).__name__}: {failure} (the traceback is in {logs[0].baseFilename})",
            file=sys.stderr,
        )
        return EXIT_FAILURE


def _complain(message: str) -> int:
    print(f"bayesbragg: error: {message}", file=sys.stderr)
    return EXIT_BAD_INPUT


def _nearest(name: str) -> str:
    near = difflib.get_close_matches(name.lower().replace("_", "-"), COMMANDS, n=1, cutoff=0.5)
    return f" did you mean {near[0]!r}?" if near else ""


class _Parser(argparse.ArgumentParser):
    """A parser that complains in one line, as everything here does."""

    def error(self, message: str) -> NoReturn:
        sys.exit(_complain(f"{message}; {self.prog} --help explains the command"))


def _stray(parser: argparse.ArgumentParser, options: Sequence[str], words: Sequence[str]) -> str:
    """What is wrong with words that a command does not know: the first option among them, else the first; a remedy."""
    word = next((w for w in words if w.startswith("-")), words[0])
    if not word.startswith("-"):
        return f"{word!r}: one word too many; {parser.prog} --help explains the command"
    name, equals, value = word.partition("=")
    if near := difflib.get_close_matches(name, options, n=1):
        return f"{word}: no such option; did you mean {near[0]}?"
    if equals:
        return f"{word}: no such option; parameters are written without dashes: {name.lstrip('-')}={value}"
    return f"{word}: no such option; {parser.prog} --help lists them"


if __name__ == "__main__":
    sys.exit(main())
