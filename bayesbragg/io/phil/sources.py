"""From PHIL text to scopes in the tree's layout: files and ``key=value`` words, and names that nobody knows.

PHIL's ``include scope`` imports a Python module. It would let a parameter file run code, and is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bayesbragg.io.phil.library import freephil
from bayesbragg.io.phil.live import LIVE
from bayesbragg.io.phil.scopes import bare, canonical_names, find, master, nearest, route, walk_definitions
from bayesbragg.io.phil.values import COMMAND_LINE, check_value, one_line, value_text, where
from bayesbragg.model.errors import InputError

__all__ = ["read_file", "read_override"]


def _check_known(scope: Any, tree: Any, path: str = "") -> None:
    for child in scope.objects:
        if child.is_disabled:
            continue
        name = f"{path}.{child.name}" if path else str(child.name)
        like = find(tree, child.name, child.is_definition)
        if like is None:
            _raise_unknown(child, name)
        elif child.is_definition:
            check_value(child, like, bare(name))
        else:
            _check_known(child, like, name)


def _raise_unknown(child: Any, name: str) -> None:
    if child.is_definition:
        definition, shown = child, name
    else:
        inner = next(iter(walk_definitions(child, name)), None)
        if inner is None:
            place = child.where_str.strip(" ()").removeprefix("file ").replace('"', "")
            raise InputError(f"{place}: no group of parameters is called {bare(name)!r}; remove it")
        shown, definition = inner
    if child.is_definition:
        _refuse_group(where(definition), bare(name))
    near = nearest(shown)
    hint = f"did you mean {' or '.join(near)}?" if near else "see docs/parameters.md for all names"
    raise InputError(f"{where(definition)}: no parameter is called {bare(shown)!r}; {hint}")


def _refuse_group(place: str, name: str) -> None:
    if any(known.startswith(f"{name}.") for known in canonical_names()):
        raise InputError(
            f"{place}: {name!r} is a group of parameters and takes no value; write {name}.NAME = VALUE for one of them"
        )


def _parse(text: str, source: str) -> Any:
    """Text of a file, or a word of the command line, as a scope."""
    try:
        return freephil.parse(input_string=text, source_info=source)
    except (RuntimeError, freephil.Sorry) as error:
        reason = one_line(error).removeprefix("Syntax error: ").rstrip(".")
        if source == COMMAND_LINE:
            raise InputError(f"{source}, {text!r}: expected NAME=VALUE, such as init.G=1e5") from None
        line = re.search(r", line (\d+)", reason)
        place = source[6:-1] + (line[0] if line else "")
        reason = re.sub(r" (\(|at )file .*, line \d+\)?", "", reason)
        raise InputError(f"{place}: not PHIL: {reason}; compare its brackets, quotes and = signs") from None


def _include(scope: Any, folder: Path, stack: tuple[Path, ...]) -> Any:
    """The scope with its ``include file`` statements carried out."""
    objects: list[Any] = []
    for child in scope.objects:
        if child.is_disabled:
            continue
        if not child.is_definition:
            objects.append(_include(child, folder, stack))
        elif child.name != "include":
            objects.append(child)
        else:
            words = [word.value for word in child.words]
            if len(words) != 2 or words[0].lower() != "file":
                raise InputError(
                    f"{where(child)}: 'include {' '.join(words)}': only 'include file NAME' is carried out, "
                    "because 'include scope' would run Python code; write the parameters themselves"
                )
            objects.extend(_load(folder / words[1], stack).objects)
    return scope.customized_copy(objects=objects)


def _load(path: Path, stack: tuple[Path, ...] = ()) -> Any:
    if path.resolve() in stack:
        raise InputError(f"{path}: the file includes itself; remove its 'include file'")
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        remedy = f"correct the 'include file' of {stack[-1]}" if stack else "check the name and the working directory"
        raise InputError(f"{path}: no such PHIL file; {remedy}") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no text"
        raise InputError(
            f"{path}: not a readable PHIL file ({reason}); expected text with lines NAME = VALUE"
        ) from None
    return _include(_parse(text, f'file "{path}"'), path.parent, (*stack, path.resolve()))


def read_file(path: str | Path) -> Any:
    """A PHIL file as a scope in the tree's layout.

    Raises:
        InputError: no such file, not PHIL, a name that nobody knows, or a number that is none; with file and line.
    """
    scope = route(_load(Path(path)))
    _check_known(scope, master())
    return scope


def _score(source: str, target: str) -> int:
    """How well an abbreviation fits a path, as libtbx ranks them: 0 is not at all, 8 is the very name."""
    if source == target:
        return 8
    if target.endswith("." + source):
        return 4
    if target.endswith(source):
        return 3
    return 1 if source in target else 0


def _complete(name: str, text: str, program: str) -> str:
    """The full path in the tree that an abbreviated name means."""
    names = canonical_names()
    wanted = bare(name)
    _refuse_group(f"{COMMAND_LINE}, {text!r}", wanted)
    if wanted in names and (program != "stills_process" or wanted in LIVE or name != wanted):
        return names[wanted]
    shown = names if program != "stills_process" else {path: path for path in names.values()}
    wanted = wanted if program != "stills_process" else name
    scores = {path: _score(wanted, path) for path in shown}
    best = max(scores.values())
    found = [path for path, score in scores.items() if score == best] if best else []
    if len(found) > 1 and program != "stills_process":
        found = [path for path in found if bare(path) in LIVE] or found
    if len(found) == 1:
        return shown[found[0]]
    if not found:
        near = nearest(name)
        hint = f"did you mean {' or '.join(near)}?" if near else "see docs/parameters.md for all names"
        raise InputError(f"{COMMAND_LINE}, {text!r}: no parameter is called {name!r}; {hint}")
    listed = ", ".join(found[:8]) + (f" and {len(found) - 8} more" if len(found) > 8 else "")
    raise InputError(f"{COMMAND_LINE}, {text!r}: {name!r} is ambiguous, write one of {listed}")


def read_override(text: str, program: str) -> Any:
    """One ``key=value`` word, its key in full or abbreviated, as a scope in the tree's layout.

    Raises:
        InputError: not of that form, or a key that fits no parameter or several.
    """
    definitions = list(walk_definitions(_parse(text, COMMAND_LINE)))
    if not definitions:
        raise InputError(f"{COMMAND_LINE}, {text!r}: expected NAME=VALUE")
    scopes: Sequence[Any] = [
        _parse(f"{_complete(name, text, program)} = {value_text(definition)}", COMMAND_LINE)
        for name, definition in definitions
    ]
    scope = scopes[0].customized_copy(objects=[o for s in scopes for o in s.objects])
    _check_known(scope, master())
    return scope
