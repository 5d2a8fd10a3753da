"""What may stand after a parameter's name: values of its type, told in words where they are not.

PHIL evaluates numbers as expressions, which would let a parameter file run code, and puts the environment's values in
place of ``$NAME``. Expressions are held to arithmetic here, and variables are refused.
"""

from __future__ import annotations

import ast
from typing import Any

from bayesbragg.io.phil.library import freephil
from bayesbragg.io.phil.live import LIVE
from bayesbragg.model.errors import InputError

__all__ = ["COMMAND_LINE", "check_value", "one_line", "value_text", "where"]

COMMAND_LINE = "command line"
"""Where words of the command line are said to stand."""
_CONSTANTS = {"pi", "e", "inf"}
_ALLOWED = (
    ast.Expression,
    ast.Constant,
    ast.Name,
    ast.Load,
    *(ast.UnaryOp, ast.UAdd, ast.USub),
    *(ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow),
)
_LARGEST_POWER = 300
_NAMES = {"int": "a whole number", "float": "a number", "ints": "whole numbers", "floats": "numbers"}
_NONE_MEANS_SOMETHING = {
    *("max_process", "mp.nproc", "niter", "number_of_xtals", "ftol", "integration.summation.detector_gain"),
    *("simulator.structure_factors.dmin", "geometry.betas.panel_rot", "geometry.betas.panel_xyz"),
}
"""Numbers with a default that may be None all the same: no limit, or as if they were not there."""


def one_line(error: BaseException | str) -> str:
    """The message of an error without line breaks."""
    return " ".join(str(error).split())


def where(definition: Any) -> str:
    """File and line of a definition, or `COMMAND_LINE`."""
    word = definition.words[0] if definition.words else None
    if word is None or not word.source_info:
        return COMMAND_LINE
    place = word.source_info.removeprefix('file "').removesuffix('"')
    return f"{place}, line {word.line_number}" if word.source_info.startswith("file") else place


def value_text(definition: Any) -> str:
    """A definition's value as it was written."""
    return " ".join(str(word) for word in definition.words)


def check_value(definition: Any, like: Any, name: str) -> None:
    """Refuse a value that is none for its parameter.

    Args:
        definition: what the user wrote; a bare ``auto`` becomes the choice of that name, if there is one.
        like: the definition of the tree, with type and default.
        name: bare name.

    Raises:
        InputError: with place, name, value, and what is expected.
    """
    stated = f"{where(definition)}: {name} = {value_text(definition)}"
    kind = "str" if like.type is None else str(like.type.phil_type)
    _check_variables(definition, stated)
    _check_auto(definition, like, kind, name, stated)
    if kind in _NAMES:
        _check_numbers(definition, stated, _expected(like, kind))
    try:
        value = like.fetch(source=definition).extract()
    except (RuntimeError, ValueError, freephil.Sorry):
        raise InputError(f"{stated}: expected {_expected(like, kind)}") from None
    if value is None and name in LIVE and not _may_be_none(like, kind, name):
        raise InputError(f"{stated}: expected {_expected(like, kind)}; leave it out for the default, {_default(like)}")


def _may_be_none(like: Any, kind: str, name: str) -> bool:
    """Whether None is a value: of text and switches always, of numbers and choices where the default or a list says."""
    if kind == "choice":
        return "None" in _choices(like) or not any(word.value.startswith("*") for word in like.words)
    if kind not in _NAMES or value_text(like) in ("None", "Auto"):
        return True
    return name in _NONE_MEANS_SOMETHING or name.startswith("sigmas.")


def _choices(like: Any) -> list[str]:
    return [word.value.lstrip("*") for word in like.words]


def _default(like: Any) -> str:
    chosen = [word.value[1:] for word in like.words if word.value.startswith("*")]
    return chosen[0] if chosen else value_text(like)


def _expected(like: Any, kind: str) -> str:
    """What a parameter takes, in words."""
    if kind == "bool":
        return "True or False"
    if kind == "choice":
        return f"one of {', '.join(_choices(like))}"
    if kind not in _NAMES:
        return "text, in quotes if it holds special characters"
    low, high = getattr(like.type, "size_min", None), getattr(like.type, "size_max", None)
    number = "" if low is None and high is None else f"{low} " if low == high else f"{low or 0} to {high or 'any'} "
    least, most = like.type.value_min, like.type.value_max
    bounds = f" from {least:g} to {most:g}" if least is not None and most is not None else ""
    bounds = bounds or (f", at least {least:g}" if least is not None else "")
    bounds = bounds or (f", at most {most:g}" if most is not None else "")
    return f"{number}{_NAMES[kind]}{bounds}"


def _check_numbers(definition: Any, stated: str, expected: str) -> None:
    # Brackets, commas and blanks only separate the numbers; what is left must be arithmetic.
    text = " ".join(word.value for word in definition.words)
    for part in text.translate(str.maketrans("[](),;", "      ")).split():
        if part.lower() in ("none", "auto"):
            continue
        if not _is_arithmetic(part):
            raise InputError(f"{stated}: {part!r:.60} is no number; expected {expected}")


def _is_arithmetic(text: str) -> bool:
    """Whether a text is a number or a calculation with numbers, and one that ends soon (9**9**9 does not)."""
    try:
        nodes = list(ast.walk(ast.parse(text, mode="eval")))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    powers = [n.right for n in nodes if isinstance(n, ast.BinOp) and isinstance(n.op, ast.Pow)]
    exponents = [p.operand if isinstance(p, ast.UnaryOp) else p for p in powers]
    return (
        all(isinstance(n, _ALLOWED) for n in nodes)
        and all(n.id in _CONSTANTS for n in nodes if isinstance(n, ast.Name))
        and all(isinstance(n.value, int | float) for n in nodes if isinstance(n, ast.Constant))
        and len(powers) <= 1
        and all(
            isinstance(e, ast.Constant) and isinstance(e.value, int | float) and e.value <= _LARGEST_POWER
            for e in exponents
        )
    )


def _check_variables(definition: Any, stated: str) -> None:
    """Refuse ``$NAME``: the library would put the environment's value there, unseen by any record of the run."""
    for word in definition.words:
        if word.quote_token != "'" and "$" in word.value.replace("\\$", ""):
            raise InputError(
                f"{stated}: variables of the environment ($NAME) are not replaced; write their value, or put text that "
                "has a $ into single quotes"
            )


def _check_auto(definition: Any, like: Any, kind: str, name: str, stated: str) -> None:
    """A bare ``auto``, of which the library makes a value of its own: the choice of that name, or refused."""
    bare_words = [word for word in definition.words if word.quote_token is None and word.value.lower() == "auto"]
    if not bare_words or kind == "bool" or value_text(like).lower() == "auto":
        return
    if kind in _NAMES and name not in LIVE:
        return
    named = [choice for choice in _choices(like) if choice.lower() == "auto"] if kind == "choice" else []
    if named:
        for word in bare_words:
            word.value, word.quote_token = named[0], '"'
        return
    known = kind in _NAMES or kind == "choice"
    expected = _expected(like, kind) if known else "a name, in quotes if it really is auto"
    raise InputError(f'{stated}: "auto" has no meaning here; expected {expected}')
