"""From PHIL text to scopes in the tree's layout: files, ``key=value`` words, and the errors that both can hold.

PHIL evaluates numbers as expressions, and its ``include scope`` imports a Python module. Both would let a parameter
file run code, so expressions are held to arithmetic and ``include scope`` is refused.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bayesbragg.io.phil.library import freephil
from bayesbragg.io.phil.live import LIVE
from bayesbragg.io.phil.scopes import bare, canonical_names, find, master, nearest, route, walk_definitions
from bayesbragg.model.errors import InputError

__all__ = ["one_line", "read_file", "read_override"]

_NUMERIC = ("int", "float")
_CONSTANTS = {"pi", "e", "inf", "nan"}
_ALLOWED = (
    ast.Expression,
    ast.Constant,
    ast.Name,
    ast.Load,
    ast.UnaryOp,
    ast.BinOp,
    ast.operator,
    ast.unaryop,
    ast.Tuple,
    ast.List,
)


def one_line(error: BaseException | str) -> str:
    """The message of an error without line breaks."""
    return " ".join(str(error).split())


def _where(definition: Any) -> str:
    word = definition.words[0] if definition.words else None
    if word is None or not word.source_info:
        return "command line"
    place = word.source_info.removeprefix('file "').removesuffix('"')
    return f"{place}, line {word.line_number}" if word.source_info.startswith("file") else place


def _value(definition: Any) -> str:
    return " ".join(str(word) for word in definition.words)


def _check_numbers(definition: Any, like: Any, name: str) -> None:
    kind = str(like.type) if like.type is not None else ""
    if not kind.startswith(_NUMERIC):
        return
    # Brackets, commas and blanks only separate the numbers; what is left must be arithmetic.
    text = " ".join(word.value for word in definition.words)
    for part in text.translate(str.maketrans("[](),;", "      ")).split():
        if part.lower() in ("none", "auto"):
            continue
        try:
            nodes = list(ast.walk(ast.parse(part, mode="eval")))
        except SyntaxError:
            nodes = [ast.Name("?")]
        names_known = all(n.id in _CONSTANTS for n in nodes if isinstance(n, ast.Name))
        numbers = all(isinstance(n.value, int | float) for n in nodes if isinstance(n, ast.Constant))
        if not (names_known and numbers and all(isinstance(n, _ALLOWED) for n in nodes)):
            expected = "numbers" if kind.startswith(("ints", "floats")) else "a number"
            raise InputError(
                f"{_where(definition)}: {bare(name)} = {_value(definition)}: {part!r} is no number; expected {expected}"
            )


def _check_variables(definition: Any, name: str) -> None:
    """Refuse ``$NAME``: the library would put the environment's value there, unseen by any record of the run."""
    for word in definition.words:
        if word.quote_token != "'" and "$" in word.value.replace("\\$", ""):
            raise InputError(
                f"{_where(definition)}: {bare(name)} = {_value(definition)}: variables are not put in; write the value "
                "itself, or put text with a $ into single quotes"
            )


def _check_auto(definition: Any, like: Any, name: str) -> None:
    """A bare ``auto``, of which the library makes a value of its own: the choice of that name, or refused."""
    kind = str(like.type) if like.type is not None else ""
    bare_words = [word for word in definition.words if word.quote_token is None and word.value.lower() == "auto"]
    if not bare_words or not kind.startswith(("path", "str", "choice")):
        return
    expected = "a name, in quotes if it really is auto"
    if kind.startswith("choice"):
        choices = [word.value.lstrip("*") for word in like.words]
        named = [choice for choice in choices if choice.lower() == "auto"]
        if named:
            for word in bare_words:
                word.value, word.quote_token = named[0], '"'
            return
        expected = f"one of {', '.join(choices)}"
    raise InputError(
        f'{_where(definition)}: {bare(name)} = {_value(definition)}: "auto" has no meaning here; expected {expected}'
    )


def _check_known(scope: Any, tree: Any, path: str = "") -> None:
    for child in scope.objects:
        if child.is_disabled:
            continue
        name = f"{path}.{child.name}" if path else str(child.name)
        like = find(tree, child.name, child.is_definition)
        if like is None:
            _raise_unknown(child, tree, name)
        elif child.is_definition:
            _check_variables(child, name)
            _check_auto(child, like, name)
            _check_numbers(child, like, name)
        else:
            _check_known(child, like, name)


def _raise_unknown(child: Any, tree: Any, name: str) -> None:
    if child.is_definition:
        definition, shown = child, name
    else:
        inner = next(iter(walk_definitions(child, name)), None)
        if inner is None:
            raise InputError(f"no group of parameters is called {bare(name)!r}; remove it")
        shown, definition = inner
    if child.is_definition and any(known.startswith(f"{bare(name)}.") for known in canonical_names()):
        raise InputError(
            f"{_where(definition)}: {bare(name)!r} is a group of parameters and takes no value; "
            f"write {bare(name)}.NAME = VALUE"
        )
    near = nearest(shown)
    hint = f"did you mean {' or '.join(near)}?" if near else "see docs/parameters.md for all names"
    raise InputError(f"{_where(definition)}: no parameter is called {bare(shown)!r}; {hint}")


def _parse(text: str, source: str) -> Any:
    try:
        return freephil.parse(input_string=text, source_info=source)
    except (RuntimeError, freephil.Sorry) as error:
        raise InputError(f"cannot read PHIL: {one_line(error)}; compare brackets and quotes") from None


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
                    f"{_where(child)}: 'include {' '.join(words)}': only 'include file NAME' is carried out, "
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
        raise InputError(f"{path}: no such PHIL file; check the name and the working directory") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable PHIL file ({one_line(error)})") from None
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
        raise InputError(f"command line, {text!r}: no parameter is called {name!r}; {hint}")
    listed = ", ".join(found[:8]) + (f" and {len(found) - 8} more" if len(found) > 8 else "")
    raise InputError(f"command line, {text!r}: {name!r} is ambiguous, write one of {listed}")


def read_override(text: str, program: str) -> Any:
    """One ``key=value`` word, its key in full or abbreviated, as a scope in the tree's layout.

    Raises:
        InputError: not of that form, or a key that fits no parameter or several.
    """
    definitions = list(walk_definitions(_parse(text, "command line")))
    if not definitions:
        raise InputError(f"command line, {text!r}: expected NAME=VALUE")
    scopes: Sequence[Any] = [
        _parse(f"{_complete(name, text, program)} = {_value(definition)}", "command line")
        for name, definition in definitions
    ]
    scope = scopes[0].customized_copy(objects=[o for s in scopes for o in s.objects])
    _check_known(scope, master())
    return scope
