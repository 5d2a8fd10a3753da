"""A parameter file to start from: every live parameter of a program with its default, unit and meaning.

The text is PHIL itself, so that it can be saved, edited and given back; unedited it changes nothing.
"""

from __future__ import annotations

import textwrap
from typing import Any

from bayesbragg.io.phil.joint_live import JOINT
from bayesbragg.io.phil.live import LIVE
from bayesbragg.io.phil.scopes import PREFIX, bare, find, master, nearest, walk_definitions
from bayesbragg.io.phil.simulate_live import SIMULATE
from bayesbragg.model.errors import InputError

__all__ = ["PROGRAMS", "annotated"]

PROGRAMS: dict[str, str] = {
    "refine": "bayesbragg refine",
    "stills-process": "bayesbragg stills-process",
    "geometry-refine": "bayesbragg geometry-refine",
    "simulate": "bayesbragg simulate",
}
_WIDTH = 110


def annotated(program: str, pattern: str = "", *, inert: bool = False) -> str:
    """The parameters of a program as a PHIL file with a comment on each.

    Args:
        program: one of `PROGRAMS`.
        pattern: only parameters whose name, or the name of a group around it, begins with this text (failing that:
            contains it), upper or lower case.
        inert: also the names that are accepted and have no effect.

    Raises:
        InputError: no such program, or no parameter fits the pattern.
    """
    if program not in PROGRAMS:
        raise InputError(f"{program!r} takes no parameter file; expected one of {', '.join(PROGRAMS)}")
    tree = master()
    whole = program == "stills-process"
    top = tree if whole else find(tree, PREFIX, False)
    names = {
        name
        for path, _ in walk_definitions(top)
        if (name := bare(path)) in LIVE or inert
        if program == "geometry-refine" or name not in JOINT
        if program == "simulate" or name not in SIMULATE
    }
    text = pattern.lower()
    # "eta" means eta_abc rather than betas, if there is such a thing.
    wanted = {name for name in names if any(part.lower().startswith(text) for part in name.split("."))}
    wanted = wanted or {name for name in names if text in name.lower()}
    if not wanted:
        near = nearest(pattern)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise InputError(f"no parameter of {PROGRAMS[program]} has {pattern!r} in its name{hint}")
    head = [
        f"# Parameters of `{PROGRAMS[program]}` with their default values. Save what you want to change to a",
        "# .phil file, or write it as a word of the command: NAME=VALUE. A * marks the choice that is taken.",
        "",
    ]
    return "\n".join(head + _lines(top, "", wanted, 0)) + "\n"


def _lines(scope: Any, path: str, wanted: set[str], depth: int) -> list[str]:
    indent = "  " * depth
    lines: list[str] = []
    for child in scope.objects:
        if child.is_disabled:
            continue
        full = f"{path}.{child.name}" if path else str(child.name)
        name = bare(full)
        if child.is_definition:
            if name in wanted:
                lines += _definition(child, name, indent)
            continue
        inside = _lines(child, full, wanted, depth + 1)
        if inside:
            lines += [f"{indent}{child.name} {{", *inside, f"{indent}}}"]
    return lines


def _definition(definition: Any, name: str, indent: str) -> list[str]:
    unit, effect = LIVE.get(name, ("", "no effect here; accepted because the classic programs have it"))
    note = f"{effect} [{unit}]" if unit else effect
    comment = textwrap.wrap(note, _WIDTH - len(indent), initial_indent="# ", subsequent_indent="# ")
    value = " ".join(str(word) for word in definition.words)
    return [*(indent + line for line in comment), f"{indent}{definition.name} = {value}"]
