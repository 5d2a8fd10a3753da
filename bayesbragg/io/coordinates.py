"""Structure factors computed from atomic coordinates (PDB or mmCIF) through gemmi.

Electron density on a grid and its Fourier transform, with the X-ray form factors of the International Tables C
(table 6.1.1.4), f' and f'' by Cromer and Liberman at one wavelength, and optionally a flat bulk solvent
k_sol exp(-b_sol s^2 / 4), s = 1/d, outside a mask around the atoms. An atom on a special position counts once, however
many operators bring it there: where its occupancy times their number is above 1, it is divided by that number.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gemmi
import numpy as np
import numpy.typing as npt

from bayesbragg.io.structure_factors import structure_factors_from_arrays
from bayesbragg.io.symmetry import SpaceGroup, space_group_from_hall
from bayesbragg.model.beam import WAVELENGTH_ENERGY_A_EV
from bayesbragg.model.errors import InputError
from bayesbragg.model.structure_factors import StructureFactors

__all__ = ["read_pdb_structure_factors", "read_pdb_symmetry"]

_SAMPLING = 2.0
"""Grid points per d_min / 2; with the artificial blur that gemmi adds and removes, errors stay below 0.01 %."""

_SAME_PLACE_A = 0.5
"""Copies of an atom nearer than this are the atom itself."""

ComplexArray = npt.NDArray[np.complex128]


def _count_once(structure: gemmi.Structure) -> None:
    """Divide the occupancies of atoms on special positions by the number of operators that leave them there."""
    structure.setup_cell_images()
    for site in structure[0].all():
        copies = 1 + structure.cell.is_special_position(site.atom.pos, _SAME_PLACE_A)
        if copies > 1 and site.atom.occ * copies > 1.001:
            site.atom.occ /= copies


def _elements(model: gemmi.Model) -> list[gemmi.Element]:
    atomic_numbers = sorted({site.atom.element.atomic_number for site in model.all()})
    return [gemmi.Element(z) for z in atomic_numbers]


def _transform(
    structure: gemmi.Structure, d_min: float, addends: dict[gemmi.Element, float]
) -> tuple[npt.NDArray[np.int64], ComplexArray]:
    """Indices of the asymmetric unit and their structure factors; `addends` go on top of the form factors."""
    calculator = gemmi.DensityCalculatorX()
    calculator.d_min = d_min
    calculator.rate = _SAMPLING
    calculator.set_refmac_compatible_blur(structure[0])
    calculator.grid.setup_from(structure)
    for element, value in addends.items():
        calculator.addends.set(element, value)
    calculator.put_model_density_on_grid(structure[0])
    data: Any = gemmi.transform_map_to_f_phi(calculator.grid).prepare_asu_data(dmin=d_min, unblur=calculator.blur)
    return np.array(data.miller_array, dtype=np.int64), np.array(data.value_array, dtype=np.complex128)


def _solvent(structure: gemmi.Structure, d_min: float) -> tuple[npt.NDArray[np.int64], ComplexArray]:
    grid = gemmi.FloatGrid()
    grid.setup_from(structure, spacing=min(0.6, d_min / 3))
    gemmi.SolventMasker(gemmi.AtomicRadiiSet.Cctbx).put_mask_on_float_grid(grid, structure[0])
    data: Any = gemmi.transform_map_to_f_phi(grid).prepare_asu_data(dmin=d_min)
    return np.array(data.miller_array, dtype=np.int64), np.array(data.value_array, dtype=np.complex128)


def _opened(path: Path) -> tuple[gemmi.Structure, gemmi.SpaceGroup]:
    if not path.is_file():
        raise InputError(f"{path}: no such coordinate file; check the name and the working directory")
    try:
        structure = gemmi.read_structure(str(path))
    except (RuntimeError, ValueError, OSError) as error:
        raise InputError(f"{path}: not a readable coordinate file ({' '.join(str(error).split())})") from None
    symmetry = structure.find_spacegroup()
    if len(structure) == 0 or not structure.cell.is_crystal() or symmetry is None:
        raise InputError(f"{path}: needs atoms, a unit cell and a known space group (CRYST1 record)")
    return structure, symmetry


def read_pdb_symmetry(path: str | Path) -> tuple[npt.NDArray[np.float64], SpaceGroup]:
    """Unit cell (angstrom, degree), ``(6,)``, and space group of a model; errors as `read_pdb_structure_factors`."""
    structure, symmetry = _opened(Path(path))
    return np.array(structure.cell.parameters), space_group_from_hall(symmetry.hall)


def read_pdb_structure_factors(
    path: str | Path,
    d_min: float,
    *,
    d_max: float | None = None,
    wavelength_A: float | None = None,
    k_sol: float | None = None,
    b_sol: float | None = None,
    default_F: float = 0.0,
    amplitudes: bool = True,
) -> StructureFactors:
    """Structure factors of a model, expanded by its space group.

    Args:
        path: PDB or mmCIF file with cell and space group.
        d_min, d_max: resolution limits, angstrom.
        wavelength_A: add f' and f'' at this wavelength, so that Friedel mates differ; None leaves them out.
        k_sol: density of the bulk solvent, electron / angstrom^3; None leaves the solvent out.
        b_sol: B factor of the bulk solvent, angstrom^2; 0 if not given.
        default_F: amplitude outside the box of listed indices, electrons.
        amplitudes: moduli; otherwise complex structure factors.

    Raises:
        InputError: a missing or unreadable file, one without atoms, cell or known space group, or limits out of order.
    """
    path = Path(path)
    if not d_min > 0 or (d_max is not None and d_max <= d_min):
        raise InputError(f"{path}: resolution limits {d_min} to {d_max} angstrom; expected 0 < d_min < d_max")
    structure, symmetry = _opened(path)
    _count_once(structure)
    energy_eV = None if wavelength_A is None else WAVELENGTH_ENERGY_A_EV / wavelength_A
    real: dict[gemmi.Element, float] = {}
    imaginary: dict[gemmi.Element, float] = {}
    for element in _elements(structure[0]):
        if energy_eV is not None and element.atomic_number > 2:
            real[element], imaginary[element] = gemmi.cromer_liberman(z=element.atomic_number, energy=energy_eV)
    hkl, normal = _transform(structure, d_min, real)
    mate = np.conj(normal)
    small_hkl = hkl.astype(np.int32)
    if imaginary:
        # The grid holds real densities only: f'' enters as the change that a real addend of its size would make.
        change = _transform(structure, d_min, {e: real[e] + f for e, f in imaginary.items()})[1] - normal
        normal, mate = normal + 1j * change, mate + 1j * np.conj(change)
    if k_sol is not None:
        solvent_hkl, solvent = _solvent(structure, d_min)
        if not np.array_equal(solvent_hkl, hkl):
            raise InputError(f"{path}: the solvent mask and the atoms gave other indices; leave k_sol out")
        weight = k_sol * np.exp(-(b_sol or 0.0) * (0.25 / structure.cell.calculate_d_array(small_hkl) ** 2))
        normal, mate = normal + weight * solvent, mate + weight * np.conj(solvent)
    keep = np.any(hkl != 0, axis=1)
    if d_max is not None:
        keep &= structure.cell.calculate_d_array(small_hkl) <= d_max
    values = np.concatenate([normal[keep], mate[keep]])
    return structure_factors_from_arrays(
        np.concatenate([hkl[keep], -hkl[keep]]),
        np.abs(values) if amplitudes else values,
        space_group_from_hall(symmetry.hall),
        default_F=default_F,
    )
