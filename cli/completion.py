"""Print a script that makes the shell complete commands, options and files.

examples:
  bayesbragg completion bash >> ~/.bashrc
  bayesbragg completion zsh > ~/.zfunc/_bayesbragg
"""

from __future__ import annotations

import argparse
from importlib import import_module
from typing import Any

__all__ = ["add_arguments", "run"]

SHELLS = ("bash", "zsh", "tcsh")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS, help="the shell that you use")


def run(arguments: argparse.Namespace) -> int:
    import shtab

    print(shtab.complete(_everything(shtab.FILE), shell=arguments.shell))
    return 0


def _everything(files: Any) -> argparse.ArgumentParser:
    """One parser with every command in it. Arguments that name no fixed choices are taken for files."""
    from bayesbragg.cli.main import COMMANDS

    whole = argparse.ArgumentParser(prog="bayesbragg")
    commands = whole.add_subparsers(dest="command")
    for name, command in COMMANDS.items():
        # A percent sign would be read as a format by argparse, and brackets by zsh.
        parser = commands.add_parser(name, help=command.summary.replace("%", "%%"), description="")
        import_module(command.module).add_arguments(parser)
        for action in parser._actions:
            if action.choices is None and action.nargs != 0:
                action.complete = files  # type: ignore[attr-defined]
    return whole
