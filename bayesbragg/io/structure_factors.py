"""Structure factors from MTZ files, coordinates and arrays, expanded to all indices of the sphere.

The one rule of expansion: F(h R) = F(h) exp(-2 pi i h.t) for every operator x' = R x + t, and an index whose Friedel
mate is listed nowhere gives that mate the conjugate value (International Tables B, 1.4.2). Amplitudes follow without
the phases. Mates that are both listed stay apart. Amplitudes are in electrons where the file is on that scale.
"""

from __future__ import annotations

import logging
from pathlib import Path

import gemmi
import numpy as np
import numpy.typing as npt

from bayesbragg.io.symmetry import SpaceGroup, lookup_space_group, space_group_from_hall
from bayesbragg.model.errors import InputError
from bayesbragg.model.structure_factors import StructureFactors

__all__ = ["expand_to_p1", "mtz_space_group", "open_mtz", "read_mtz", "structure_factors_from_arrays"]

logger = logging.getLogger(__name__)

Values = npt.NDArray[np.float64] | npt.NDArray[np.complex128]
IntArray = npt.NDArray[np.int64]

_AMPLITUDE, _INTENSITY, _PHASE, _DIFFERENCE = "FG", "JK", "P", "D"
_CALCULATED = ("FC", "PHIC", "FWT", "2FOFC", "FOFC", "DELFWT", "FMODEL", "F-MODEL", "PHWT")
_END_MARK = b"MTZENDOFHEADERS"
_LENGTH_WARNING, _LENGTH_ERROR = 0.05, 0.2
_ANGLE_WARNING_DEG, _ANGLE_ERROR_DEG = 2.0, 10.0


def expand_to_p1(hkl: npt.ArrayLike, F: npt.ArrayLike, group: SpaceGroup) -> tuple[IntArray, Values]:
    """All indices of the sphere, in the basis of the primitive cell, from a list of independent ones.

    Args:
        hkl: indices in the conventional setting, ``(n, 3)``; where two of them are equivalent, the first counts.
        F: amplitudes or complex structure factors, ``(n,)``, electrons.
        group: the space group.

    Returns:
        indices ``(m, 3)``, sorted, and values ``(m,)``, with both Friedel mates and without F(000).
    """
    h = np.asarray(hkl, dtype=np.int64)
    primitive = h @ group.to_primitive.T
    allowed = np.all(np.abs(primitive - np.rint(primitive)) < 1e-6, axis=1) & np.any(h != 0, axis=1)
    h, value = h[allowed], np.asarray(F)[allowed]
    indices, arguments = group.equivalents(h)
    values = np.broadcast_to(value, indices.shape[:2])
    mates = values
    if np.iscomplexobj(value):
        values = values * np.exp(1j * arguments)
        mates = np.conj(values)
    everything = group.to_primitive_index(np.concatenate([indices.reshape(-1, 3), -indices.reshape(-1, 3)]))
    # Rows as single numbers in the same order: several times faster to sort than rows.
    low = everything.min(axis=0, initial=0)
    extent = everything.max(axis=0, initial=0) - low + 1
    _, first = np.unique(np.ravel_multi_index(tuple((everything - low).T), tuple(extent)), return_index=True)
    unique = everything[first]
    return unique, np.concatenate([values.reshape(-1), mates.reshape(-1)])[first]


def structure_factors_from_arrays(
    hkl: npt.ArrayLike,
    F: npt.ArrayLike,
    space_group: str | int | SpaceGroup = 1,
    *,
    default_F: float = 0.0,
) -> StructureFactors:
    """Structure factors handed over in memory, expanded by the space group.

    Args:
        hkl: indices in the conventional setting, ``(n, 3)``; independent ones are enough. Friedel mates that are
            listed, in whichever equivalent form, stay apart; a mate that is not takes the other's value.
        F: amplitudes or complex structure factors, ``(n,)``, electrons.
        space_group: symbol, number, or a `SpaceGroup`.
        default_F: amplitude outside the box of listed indices, electrons.

    Raises:
        InputError: shapes that do not match, values that are not finite, an unknown space group.
    """
    group = space_group if isinstance(space_group, SpaceGroup) else lookup_space_group(space_group)
    indices, values = np.asarray(hkl), np.asarray(F)
    if indices.ndim != 2 or indices.shape[1] != 3 or values.shape != (len(indices),) or len(values) == 0:
        raise InputError(f"structure factors: indices {indices.shape} and values {values.shape}; expected (n, 3), (n,)")
    if not np.all(np.isfinite(values)):
        raise InputError(f"structure factors: {np.sum(~np.isfinite(values))} values are not finite; leave them out")
    full_hkl, full_F = expand_to_p1(indices, values, group)
    if len(full_hkl) == 0:
        raise InputError(f"structure factors: no index of the list is allowed by the lattice of {group.hm}")
    return StructureFactors(full_hkl, full_F, default_F)


def _choose_columns(mtz: gemmi.Mtz, path: Path) -> list[gemmi.Mtz.Column]:
    """The most useful data in a file: mates apart before merged, amplitudes before intensities, observed first."""
    for kind, count in (("G", 2), ("K", 2), ("F", 1), ("J", 1)):
        found = [c for c in mtz.columns if c.type == kind]
        found.sort(key=lambda c: c.label.upper().startswith(_CALCULATED))
        if len(found) >= count:
            return found[:count]
    raise InputError(f"{path}: no amplitudes or intensities; columns are {_column_names(mtz)}")


def _column_names(mtz: gemmi.Mtz) -> str:
    return ", ".join(f"{column.label} ({column.type})" for column in mtz.columns[3:])


def _named_columns(mtz: gemmi.Mtz, labels: str, path: Path) -> list[gemmi.Mtz.Column]:
    columns = []
    for label in (part.strip() for part in labels.split(",") if part.strip()):
        column = next((c for c in mtz.columns if c.label == label), None)
        if column is None:
            raise InputError(f"{path}: no column {label!r}; columns are {_column_names(mtz)}")
        columns.append(column)
    return columns


def _is_minus(column: gemmi.Mtz.Column) -> bool:
    label = column.label.lower()
    return "(-)" in label or label.endswith(("-", "_minus", "minus"))


def _values(columns: list[gemmi.Mtz.Column], path: Path, mtz: gemmi.Mtz) -> tuple[Values, Values]:
    """F of the listed index and of its Friedel mate, NaN where not measured; sigmas are passed over."""
    data = [c for c in columns if c.type in _AMPLITUDE + _INTENSITY + "R"]
    phases = [c for c in columns if c.type == _PHASE]
    differences = [c for c in columns if c.type == _DIFFERENCE]
    if not data or len(data) > 2 or len(phases) not in (0, len(data)):
        raise InputError(
            f"{path}: {','.join(c.label for c in columns)} hold {len(data)} amplitudes or intensities and "
            f"{len(phases)} phases; name one, or a (+) and a (-); columns are {_column_names(mtz)}"
        )
    if len(data) == 2 and not (_is_minus(data[0]) ^ _is_minus(data[1]) or all(c.type in "GK" for c in data)):
        raise InputError(
            f"{path}: {data[0].label} and {data[1].label} are no pair of Friedel mates; name one, or a (+) and a (-); "
            f"columns are {_column_names(mtz)}"
        )
    data.sort(key=_is_minus)
    phases.sort(key=_is_minus)
    read: list[Values] = []
    for i, column in enumerate(data):
        value = np.array(column.array, dtype=np.float64)
        if column.type in _INTENSITY:
            value = np.sqrt(np.maximum(value, 0.0))
        complex_value: Values = value
        if phases:
            complex_value = value * np.exp(1j * np.radians(np.array(phases[i].array, dtype=np.float64)))
        read.append(complex_value)
    if len(read) == 2:
        return read[0], read[1]
    missing: Values = np.full_like(read[0], np.nan)
    if differences:
        half = np.array(differences[0].array, dtype=np.float64) / 2
        known = np.where(np.isfinite(half), half, 0.0)
        return read[0] + known, np.where(np.isfinite(half), read[0] - known, np.nan)
    return (missing, read[0]) if _is_minus(data[0]) else (read[0], missing)


def _check_symmetry(path: Path, own: SpaceGroup, crystal: str | int | SpaceGroup | None) -> None:
    if crystal is None:
        return
    wanted = crystal if isinstance(crystal, SpaceGroup) else lookup_space_group(crystal)

    mine, others = ({rotation.tobytes() for rotation in group.rotations} for group in (own, wanted))
    if not (mine <= others or others <= mine):
        raise InputError(
            f"{path}: space group {own.hm}, but the crystal's is {wanted.hm}; reindex one of them to the other's axes"
        )
    if own.hall != wanted.hall:
        logger.warning("%s: space group %s, the crystal's is %s; the file's is used to expand", path, own.hm, wanted.hm)


def _check_cell(path: Path, own: gemmi.UnitCell, crystal: npt.ArrayLike | None) -> None:
    if crystal is None:
        return
    mine, wanted = np.array(own.parameters), np.asarray(crystal, dtype=float)
    length = float(np.max(np.abs(mine[:3] / wanted[:3] - 1)))
    angle = float(np.max(np.abs(mine[3:] - wanted[3:])))
    shown = " ".join(f"{x:g}" for x in mine), " ".join(f"{x:.4g}" for x in wanted)
    if length > _LENGTH_ERROR or angle > _ANGLE_ERROR_DEG:
        raise InputError(f"{path}: cell {shown[0]}, but the crystal's is {shown[1]}; give the MTZ of this crystal form")
    if length > _LENGTH_WARNING or angle > _ANGLE_WARNING_DEG:
        logger.warning("%s: cell %s, the crystal's is %s", path, *shown)


def open_mtz(path: Path) -> gemmi.Mtz:
    """The whole file, as gemmi has it; raises `InputError` where it is missing or damaged."""
    if not path.is_file():
        raise InputError(f"{path}: no such MTZ file; check the name and the working directory")
    try:
        if _END_MARK not in path.read_bytes():
            raise RuntimeError("its end is missing")
        return gemmi.read_mtz_file(str(path))
    except (RuntimeError, ValueError, OSError) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: not a readable MTZ file ({' '.join(str(error).split())}); write it again")


def mtz_space_group(path: Path, mtz: gemmi.Mtz) -> SpaceGroup:
    """The space group that the file states; raises `InputError` without one that is known."""
    if mtz.spacegroup is None:
        raise InputError(f"{path}: the file states no space group that is known; write it again with one")
    return space_group_from_hall(mtz.spacegroup.hall)


def read_mtz(
    path: str | Path,
    columns: str | None = None,
    *,
    space_group: str | int | SpaceGroup | None = None,
    cell: npt.ArrayLike | None = None,
    default_F: float = 0.0,
    d_min: float | None = None,
    d_max: float | None = None,
) -> StructureFactors:
    """Structure factors of an MTZ file, expanded by its space group.

    Args:
        path: the file.
        columns: labels separated by commas: ``F(+),F(-)``, ``I(+),SIGI(+),I(-),SIGI(-)``, ``Fobs,SIGFobs``,
            ``F,DANO``, ``F,PHI`` (complex). Sigmas are passed over. Intensities become the amplitudes sqrt(I), negative
            ones 0. None takes the first sensible ones and logs which.
        space_group: the crystal's, to be compared with the file's: axes that do not agree are an error, other screw
            axes or a subgroup a warning.
        cell: the crystal's a, b, c (angstrom), alpha, beta, gamma (degree), to be compared with the file's.
        default_F: amplitude outside the box of listed indices, electrons.
        d_min, d_max: resolution limits, angstrom.

    Raises:
        InputError: a missing or damaged file, a column that it has not (the message lists those it has), no
            reflection left, a crystal of another kind.
    """
    path = Path(path)
    mtz = open_mtz(path)
    try:
        data_columns = _named_columns(mtz, columns, path) if columns else _choose_columns(mtz, path)
        hkl = np.array(mtz.make_miller_array(), dtype=np.int64)
        spacing = np.array(mtz.make_d_array(), dtype=np.float64)
    except (RuntimeError, ValueError, OSError) as error:
        if isinstance(error, InputError):
            raise
        raise _unreadable(path, error) from None
    if not columns:
        logger.info("%s: columns %s", path, ",".join(c.label for c in data_columns))
    group = mtz_space_group(path, mtz)
    _check_symmetry(path, group, space_group)
    _check_cell(path, mtz.cell, cell)
    plus, minus = _values(data_columns, path, mtz)
    inside = np.ones(len(hkl), dtype=bool)
    if d_min is not None:
        inside &= spacing >= d_min
    if d_max is not None:
        inside &= spacing <= d_max
    has_plus, has_minus = inside & np.isfinite(plus), inside & np.isfinite(minus)
    if not np.any(has_plus | has_minus):
        raise InputError(
            f"{path}: no reflection has a value in {','.join(c.label for c in data_columns)} and the limits"
        )
    return structure_factors_from_arrays(
        np.concatenate([hkl[has_plus], -hkl[has_minus]]),
        np.concatenate([plus[has_plus], minus[has_minus]]),
        group,
        default_F=default_F,
    )
