"""The scopes: one tree of all parameters, and the names under which users know them.

The tree has the layout of the classic stills_process configuration: the stills_process names at the top and the
diffBragg names, with our own, in a scope ``diffBragg``. Users write the latter bare or with the prefix. No full name
belongs to both, so that a bare name tells its place.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from functools import lru_cache
from importlib import resources
from typing import Any

from bayesbragg.io.phil.library import freephil

__all__ = ["PREFIX", "bare", "canonical_names", "find", "master", "nearest", "route", "walk_definitions"]

PREFIX = "diffBragg"


def _text(name: str) -> str:
    return resources.files(__package__).joinpath(f"{name}.phil").read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def master() -> Any:
    """The tree of all parameters with types and default values, a freephil scope. Not to be changed."""
    inner = _text("diffbragg") + _text("own") + _text("joint") + _text("simulate")
    return freephil.parse(input_string=f"{_text('stills')}\n{PREFIX} {{\n{inner}\n}}\n")


def bare(path: str) -> str:
    """The name of a parameter as users know it: without the prefix."""
    return path.removeprefix(f"{PREFIX}.")


@lru_cache(maxsize=1)
def canonical_names() -> dict[str, str]:
    """Full path in the tree of every bare name."""
    return {bare(path): path for path, _ in walk_definitions(master())}


def walk_definitions(scope: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Paths and definitions below a scope, in order, without the ones that a ``!`` disables."""
    for child in scope.objects:
        if child.is_disabled:
            continue
        name = f"{path}.{child.name}" if path else str(child.name)
        if child.is_definition:
            yield name, child
        else:
            yield from walk_definitions(child, name)


def find(scope: Any, name: str, is_definition: bool) -> Any | None:
    """The child of a scope with the name and kind, or None."""
    return next((o for o in scope.objects if o.name == name and o.is_definition == is_definition), None)


def _split(child: Any, classic: Any, stills: Any) -> tuple[list[Any], list[Any]]:
    """What of a user's object belongs into the diffBragg scope, and what beside it."""
    in_classic = find(classic, child.name, child.is_definition)
    in_stills = find(stills, child.name, child.is_definition)
    if in_classic is None:
        return [], [child]
    if in_stills is None or child.is_definition:
        return [child], []
    parts = [_split(inner, in_classic, in_stills) for inner in child.objects if not inner.is_disabled]
    left = [o for pair in parts for o in pair[0]]
    right = [o for pair in parts for o in pair[1]]
    return (
        [child.customized_copy(objects=left)] if left else [],
        [child.customized_copy(objects=right)] if right else [],
    )


def route(source: Any) -> Any:
    """A user's scope in the layout of the tree: bare diffBragg names moved below the prefix."""
    tree = master()
    classic = find(tree, PREFIX, False)
    outside: list[Any] = []
    for child in source.objects:
        if child.is_disabled:
            continue
        if child.name == PREFIX:
            outside.append(child)
            continue
        inside, beside = _split(child, classic, tree)
        outside.extend(beside)
        if inside:
            outside.append(freephil.scope(name=PREFIX, objects=inside))
    return source.customized_copy(objects=outside)


def nearest(name: str) -> list[str]:
    """Up to three known names like an unknown one: by the whole name, then by its last part."""
    known = list(canonical_names())
    wanted = bare(name)
    close = difflib.get_close_matches(wanted, known, 3, 0.75)
    last = wanted.rsplit(".", 1)[-1]
    ends: dict[str, list[str]] = {}
    for path in known:
        ends.setdefault(path.rsplit(".", 1)[-1].lower(), []).append(path)
    for end in difflib.get_close_matches(last.lower(), list(ends), 3, 0.7):
        ranked = sorted(ends[end], key=lambda path: -difflib.SequenceMatcher(None, wanted, path).ratio())
        close += [path for path in ranked if path not in close]
    return close[:3]
