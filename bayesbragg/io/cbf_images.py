"""Full CBF images: the pixels through CBFlib, one file one image; the geometry is that of the header.

The arrays of a file may be cut into sections, one per panel. Sizes and checksums of the binary sections are verified
here before CBFlib sees them.
"""

from __future__ import annotations

import base64
import hashlib
import mmap
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bayesbragg.io.beams import beam_from_document
from bayesbragg.io.cbf_geometry import beam_document, detector_document, sections, table
from bayesbragg.io.detectors import detector_from_document
from bayesbragg.io.files import reason_of
from bayesbragg.model.beam import Spectrum
from bayesbragg.model.errors import InputError
from bayesbragg.model.experiment import Experiment, ImageReference

__all__ = ["CbfReader"]

START = b"\x0c\x1a\x04\xd5"
HEADER_BYTES = 1 << 20
INTEGERS = {"signed 32-bit integer": "<i4", "unsigned 32-bit integer": "<u4"}
INTEGERS |= {"signed 16-bit integer": "<i2", "unsigned 16-bit integer": "<u2"}
REALS = {"signed 64-bit real IEEE": "<f8", "signed 32-bit real IEEE": "<f4"}


class CbfReader:
    """Reads CBF files with a full imgCIF header: one or many panels, packed or byte-offset compression."""

    def accepts(self, path: Path) -> bool:
        """Whether the file is a CBF that states the axes of its detector."""
        try:
            with path.open("rb") as file:
                if not file.read(8).startswith(b"###CBF"):
                    return False
                return b"_diffrn_detector_axis." in file.read(HEADER_BYTES)
        except OSError:
            return False

    def read(self, path: Path, index: int) -> tuple[list[npt.NDArray[Any]], Spectrum | None]:
        """The panels ``(slow, fast)`` in the order of the file's sections; CBF states no spectrum.

        Raises:
            InputError: damaged file, wrong checksum, an index other than 0, or a type of number that is not known.
        """
        return [values for values, _ in _panels_of(path, index)], None

    def mask(self, path: Path, index: int) -> list[npt.NDArray[np.bool_]] | None:
        """Pixels that do not hold the header's ``undefined_value``, by panel; None if none holds it."""
        good = [np.asarray(values != undefined) for values, undefined in _panels_of(path, index)]
        return None if all(panel.all() for panel in good) else good

    def experiment(self, path: Path, index: int) -> Experiment:
        """Beam and detector that the header states, and the image.

        Raises:
            InputError: damaged file, or a header without wavelength, axes or pixel sizes.
        """
        _check_image(path, index)
        handle = _opened(path)
        try:
            detector = detector_from_document(detector_document(handle))
            beam = beam_from_document(beam_document(handle))
        except Exception as error:
            # CBFlib raises plain Exception for whatever is wrong, besides what wrong values lead to here.
            raise _damaged(path, error) from None
        return Experiment("", beam, detector, None, ImageReference(path))


def _check_image(path: Path, index: int) -> None:
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a CBF image; check the image path")
    if index != 0:
        raise InputError(f"{path}: image {index} was asked for, a CBF has 1 (the first is 0)")


def _panels_of(path: Path, index: int) -> list[tuple[npt.NDArray[Any], float | None]]:
    """Panels ``(slow, fast)`` and the number that each writes for pixels without a value, or None."""
    _check_image(path, index)
    stat = path.stat()
    return _unpacked(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=1)
def _unpacked(path: Path, _modified: int, _size: int) -> list[tuple[npt.NDArray[Any], float | None]]:
    """Kept for the next question: pixels and their mask are asked for one after the other."""
    handle = _opened(path)
    try:
        arrays = _arrays(handle)
        stated = {row["array_id"]: row.get("undefined_value") for row in table(handle, "array_intensities")}
        undefined = {name: None if (text := stated.get(name)) is None else float(text) for name in arrays}
        parts: list[tuple[str, tuple[Any, ...]]] = list(sections(handle).values()) or [(name, ()) for name in arrays]
        cut = [(name, arrays[name][where]) for name, where in parts]
        return [(values.reshape(values.shape[-2:]), undefined[name]) for name, values in cut]
    except Exception as error:
        # CBFlib raises plain Exception for whatever is wrong, besides what wrong values lead to here.
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{path}: {reason_of(error)}; expected a CBF with a full header; copy it again, or give an "
        "experiment list (.expt)"
    )


def _opened(path: Path) -> Any:
    """CBFlib's handle of a file whose binary sections are whole."""
    import pycbf

    _verify(path)
    handle: Any = pycbf.cbf_handle_struct()  # type: ignore[no-untyped-call]
    try:
        with _silence():
            handle.read_widefile(str(path).encode(), pycbf.MSG_DIGEST)
    except Exception as error:
        # CBFlib's binding raises plain Exception for whatever is wrong.
        raise _damaged(path, ValueError(str(error))) from None
    return handle


@contextmanager
def _silence() -> Iterator[None]:
    """Keep what CBFlib writes to standard error from the user, who gets one line of ours."""
    try:
        kept = os.dup(2)
    except OSError:
        yield
        return
    try:
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _verify(path: Path) -> None:
    """Refuse files that end too early or whose data do not have the checksum that they state."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at, count = 0, 0
        while (begin := data.find(b"--CIF-BINARY-FORMAT-SECTION--", at)) >= 0:
            start = data.find(START, begin)
            head = data[begin : max(start, begin)]
            size = re.search(rb"X-Binary-Size:\s*(\d+)", head)
            if size is None or start + 4 + int(size[1]) > len(data):
                raise InputError(
                    f"{path}: binary section {count + 1} of the CBF is not whole ({len(data)} bytes in all); "
                    "the file is cut short, copy it again"
                )
            stop = start + 4 + int(size[1])
            digest = re.search(rb"Content-MD5:\s*(\S+)", head)
            stated = digest[1] if digest else b""
            found = base64.b64encode(hashlib.md5(data[start + 4 : stop], usedforsecurity=False).digest())
            if stated and stated != found:
                raise InputError(
                    f"{path}: binary section {count + 1} has checksum {found.decode()}, not the "
                    f"{stated.decode(errors='replace')} that its header states; copy the file again"
                )
            at = data.find(b"--CIF-BINARY-FORMAT-SECTION----", stop)
            count += 1
            if at < 0:
                raise InputError(f"{path}: binary section {count} has no end; the file is cut short, copy it again")
            at += 1 + len(b"--CIF-BINARY-FORMAT-SECTION--")
        if not count:
            raise InputError(f"{path}: no binary section; the file is cut short, or holds a header only")


def _arrays(handle: Any) -> dict[str, npt.NDArray[Any]]:
    """Every binary array by name, with its slowest axis first."""
    kinds = {row["id"]: row["encoding_type"] for row in table(handle, "array_structure")}
    names = [row["array_id"] for row in table(handle, "array_data", skip="data")]
    if not names:
        raise ValueError("no binary data")
    arrays = {}
    handle.find_category(b"array_data")
    handle.find_column(b"data")
    for number, name in enumerate(names):
        handle.select_row(number)
        kind = kinds[name]
        if kind not in INTEGERS and kind not in REALS:
            raise ValueError(f"array {name} holds {kind!r}, which is not read")
        try:
            if kind in REALS:
                shape = handle.get_realarrayparameters_wdims_fs()[5:8]
                data: npt.NDArray[Any] = np.frombuffer(handle.get_realarray_as_string(), REALS[kind])
            else:
                shape = handle.get_integerarrayparameters_wdims_fs()[9:12]
                data = np.frombuffer(handle.get_integerarray_as_string(), INTEGERS[kind])
        except Exception as error:
            # Whatever CBFlib complains about while it unpacks.
            raise ValueError(f"array {name}: {error}") from None
        arrays[name] = data.reshape([n for n in reversed(shape) if n > 0])
    return arrays
