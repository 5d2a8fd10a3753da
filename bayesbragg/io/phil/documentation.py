"""The table of parameters in docs/parameters.md, made from the scopes and `live.LIVE`."""

from __future__ import annotations

from typing import Any

from bayesbragg.io.phil.live import LIVE
from bayesbragg.io.phil.scopes import bare, master, walk_definitions

__all__ = ["documentation"]

_HEAD = """# Parameters

Parameters are written in PHIL files or as `NAME=VALUE` words on the command line; later ones win. The names are those
of the classic diffBragg program, bare or inside `diffBragg { ... }`, and of the classic stills_process. On the command
line a name may be shortened while it fits one parameter only. Paths count from the working directory, else from the
folder of the PHIL file. A `!` before a name disables its line, `#` starts a comment, `include file NAME` reads another
file.

## Parameters with an effect

"""

_INERT = """
## Parameters without an effect

These names of the classic programs are accepted. Setting one to another value than its default gives a warning.

"""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _default(definition: Any) -> str:
    return " ".join(str(word) for word in definition.words)


def _type(definition: Any) -> str:
    return str(definition.type).replace("(allow_none=True)", "").replace("allow_none=True, ", "")


def documentation() -> str:
    """The text of docs/parameters.md: name, type, default value, unit and effect of every parameter."""
    known = {bare(path): definition for path, definition in walk_definitions(master())}
    lines = ["| name | type | default | unit | effect |", "|---|---|---|---|---|"]
    for name, (unit, effect) in LIVE.items():
        definition = known[name]
        cells = [f"`{name}`", _type(definition), f"`{_default(definition)}`", unit, effect]
        lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    groups: dict[str, list[str]] = {}
    for name in known:
        if name not in LIVE:
            head, _, _ = name.partition(".") if "." in name else ("", "", "")
            groups.setdefault(head, []).append(name)
    inert = [
        f"- {f'`{head}`: ' if head else ''}" + ", ".join(f"`{name}`" for name in names)
        for head, names in sorted(groups.items())
    ]
    return _HEAD + "\n".join(lines) + "\n" + _INERT + "\n".join(inert) + "\n"
