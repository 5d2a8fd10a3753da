"""The KEY=VALUE words of `bayesbragg posterior`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from bayesbragg.model.errors import InputError

if TYPE_CHECKING:
    from bayesbragg.pipeline.settings import PosteriorSettings

__all__ = ["PosteriorWords", "read_words"]

METHODS = ("laplace", "nuts", "hmc")


@dataclass(frozen=True)
class PosteriorWords:
    """What the KEY=VALUE words set; ``bayesbragg posterior --help`` explains them."""

    inference: str = "laplace"
    draws: int = 0
    chains: int = 4
    warmup: int = 75
    target_accept: float = 0.0
    exact_hessian: bool = False
    seed: int = 0
    parameters: str = ""
    plots: bool = False

    @property
    def names(self) -> list[str]:
        """The parameters that are plotted; none for all."""
        return [name for name in self.parameters.split(",") if name]

    @property
    def how(self) -> PosteriorSettings:
        """What the pipeline is told."""
        from bayesbragg.pipeline.settings import PosteriorSettings

        return PosteriorSettings(
            self.inference,  # type: ignore[arg-type]
            self.draws,
            self.chains,
            self.warmup,
            self.target_accept,
            self.exact_hessian,
        )


def read_words(words: Iterable[str]) -> PosteriorWords:
    """What the words set.

    Raises:
        InputError: a name that is none of them, or a value that does not fit.
    """
    pairs = [word.split("=", 1) for word in words]
    settings = PosteriorWords(**{key: _value(key, text) for key, text in pairs})
    if settings.inference not in METHODS:
        raise InputError(f"inference={settings.inference}: choose {' or '.join(METHODS)}")
    return settings


def _value(key: str, text: str) -> Any:
    known: dict[str, Any] = {field.name: field.default for field in fields(PosteriorWords)}
    if key not in known:
        near = difflib.get_close_matches(key, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else f"; choose among {', '.join(known)}"
        raise InputError(f"{key}={text}: no such setting{hint}")
    kind: Any = type(known[key])
    try:
        if kind is bool:
            return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[text.lower()]
        value = kind(text)
        if key in ("draws", "chains", "warmup") and value < 1:
            raise ValueError
        if key == "target_accept" and not 0 < value < 1:
            raise ValueError
        return value
    except (ValueError, KeyError):
        expected = {bool: "True or False", int: "a whole number above 0", float: "a number between 0 and 1"}[kind]
        raise InputError(f"{key}={text}: expected {expected}") from None
