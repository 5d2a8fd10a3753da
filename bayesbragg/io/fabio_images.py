"""Images of single-panel detectors through fabio: CBF, TIFF, MarCCD, EDF and others, compressed files too.

fabio fills up files that are cut short with zeros and only logs so; it is listened to here, and such files are refused.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bayesbragg.model.beam import Spectrum
from bayesbragg.model.errors import InputError

__all__ = ["FabioReader"]

SUFFIXES = (".cbf", ".img", ".mccd", ".tif", ".tiff", ".edf", ".marccd", ".sfrm", ".mar3450", ".osc", ".raw")


class FabioReader:
    """CBF, TIFF, MarCCD and other formats of single-panel detectors, through fabio."""

    def accepts(self, path: Path) -> bool:
        """Whether fabio may know the format, by the name of the file."""
        return path.name.removesuffix(".gz").removesuffix(".bz2").lower().endswith(SUFFIXES)

    def read(self, path: Path, index: int) -> tuple[list[npt.NDArray[Any]], Spectrum | None]:
        """One image as a single panel; the geometry comes from the experiment list, not from its header."""
        import fabio

        if not path.is_file():
            raise InputError(f"{path}: no such file; expected an image; check the image path in the experiment list")
        if path.suffix.lower() == ".cbf":
            _check_cbf(path)
        try:
            with _complaints() as said, fabio.open(str(path)) as image:
                n_frames = int(image.nframes)
                data = None
                if 0 <= index < n_frames:
                    # Of a file with one image, getframe would look for a neighbour by its number.
                    data = np.asarray(image.data if n_frames == 1 else image.getframe(index).data)
        except Exception as error:
            # Every format of fabio fails in its own way on damaged files.
            reason = " ".join(str(error).split())[:160]
            raise InputError(
                f"{path}: {type(error).__name__} {reason}; expected a whole image; copy it again"
            ) from None
        short = next((text for text in said if re.search("incomplete|truncat|too short", text)), None)
        if short is not None:
            raise InputError(f"{path}: {' '.join(short.split())[:160]}; the file is cut short, copy it again")
        if data is None:
            raise InputError(f"{path}: image {index} was asked for, the file has {n_frames} (the first is 0)")
        if data.ndim != 2 or data.dtype.kind not in "iuf":
            raise InputError(f"{path}: an image of shape {data.shape} and type {data.dtype}; expected rows of numbers")
        return [data], None


@contextmanager
def _complaints() -> Iterator[list[str]]:
    """What fabio logs meanwhile."""
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    logger, listener = logging.getLogger("fabio"), Listener(logging.WARNING)
    before = logger.propagate
    logger.addHandler(listener)
    logger.propagate = False
    try:
        yield said
    finally:
        logger.removeHandler(listener)
        logger.propagate = before


def _check_cbf(path: Path) -> None:
    """Refuse a CBF that ends too early, on which fabio would read for ever."""
    data = path.read_bytes()
    start = data.find(b"\x0c\x1a\x04\xd5")
    size = re.search(rb"X-Binary-Size:\s*(\d+)", data[: max(start, 0)])
    if size is None or len(data) < start + 4 + int(size[1]):
        raise InputError(f"{path}: no whole CBF image ({len(data)} bytes); the file is cut short, copy it again")
