"""Make the bundled demonstration data (bayesbragg/data/demo) from a seed: three simulated stills of lysozyme.

    python benchmarks/make_demo_data.py [FOLDER]

Structure factors are those of random atoms with the symmetry of P 43 21 2 (no deposited structure is used). The
starting models are off as indexing leaves them: 0.1 degree in orientation, 0.3 % in cell. `truth.json` holds what a
refinement should find.
"""

from __future__ import annotations

import json
import sys
import uuid
from pathlib import Path

import gemmi
import h5py
import numpy as np

from bayesbragg.forward import Options, Parameters
from bayesbragg.io.detectors import detector_to_document
from bayesbragg.io.experiments import write_experiments
from bayesbragg.io.reflections import write_reflections
from bayesbragg.io.structure_factors import read_mtz
from bayesbragg.model import Crystal, Experiment, ImageReference
from bayesbragg.stills.simulation import Camera, Still, simulate_still
from bayesbragg.stills.virtual import LYSOZYME_CELL, VirtualExperiment, virtual_experiment, wilson_amplitudes

SEED = 2026
N_SHOTS = 3
D_MIN = 2.5
BLOCKS = (7.0, 8.0, 14.0)
SCALE = 400.0
LEAST_PHOTONS = 60.0
BACKGROUND_PHOTONS = 1.0
MTZ = "structure_factors.mtz"
COLUMNS = "I(+),SIGI(+),I(-),SIGI(-)"

PHIL = f"""\
# Refines the demonstration shots:   bayesbragg refine refine.phil shot_*_indexed.expt shot_*_indexed.refl
# Every name is the classic one; paths count from the working directory, then from the folder of this file.

space_group = P43212                    # symmetry of the crystal: decides which cell parameters vary
spectrum_from_imageset = True           # the photons of each channel stand in the image file
downsamp_spec.skip = True               # all 12 channels are used as they are
use_restraints = False                  # flat priors inside the bounds below
roi {{
  shoebox_size = 12                      # side of the box of pixels around each spot, pixels
  pad_shoebox_for_background_estimation = 8  # the background plane is fitted on a box larger by this on each side
}}
refiner {{
  adu_per_photon = 28                    # gain: detector units per photon
  sigma_r = 3                            # readout noise, detector units
}}
simulator {{
  oversample = 2                         # subpixels along each side of a pixel
  crystal.has_isotropic_ncells = False   # blocks may differ in size along a, b and c
  structure_factors.mtz_name = {MTZ}   # reference intensities
  structure_factors.mtz_column = "{COLUMNS}"  # Friedel mates apart
  beam.size_mm = 0.001                   # side of the beam, millimetre
  detector.force_zero_thickness = True   # the sensor is thin
}}
init {{
  Nabc = [10, 10, 10]                    # cells per mosaic block along a, b, c, to begin with
  G = 1                                  # scale; a better start is found from the pixels
}}
mins {{
  Nabc = [3, 3, 3]                       # smallest block, cells
  RotXYZ = [-0.05, -0.05, -0.05]         # misorientation, radian
  G = 0                                  # no negative scale
}}
maxs {{
  Nabc = [300, 300, 300]                 # largest block, cells
  RotXYZ = [0.05, 0.05, 0.05]            # misorientation, radian
  G = 1e12                               # no limit in practice
}}
fix.detz_shift = True                   # the detector's distance is known
"""


def write_structure_factors(path: Path) -> None:
    """Intensities of both Friedel mates to D_MIN, with the symmetry and the absences of the space group."""
    group = gemmi.SpaceGroup("P 43 21 2")
    cell = gemmi.UnitCell(*LYSOZYME_CELL)
    operations = group.operations()
    hkl = np.array(gemmi.make_miller_array(cell, group, D_MIN), dtype=np.int32)
    hkl = hkl[~np.array([operations.is_systematically_absent(h) for h in hkl.tolist()])]
    centric = np.array([operations.is_reflection_centric(h) for h in hkl.tolist()])
    multiplicity = np.array([operations.epsilon_factor_without_centering(h) for h in hkl.tolist()])
    generator = np.random.default_rng([SEED, 1])
    d = cell.calculate_d_array(hkl)
    intensity = multiplicity * wilson_amplitudes(d, generator, centric=centric) ** 2
    # Mates differ by a few per cent, as with a weak anomalous scatterer; those of centric reflections do not.
    difference = np.where(centric, 0.0, 0.03 * generator.standard_normal(len(hkl)))
    plus, minus = intensity * (1 + difference / 2), intensity * (1 - difference / 2)
    sigma = 0.02 * intensity + 0.01 * intensity.mean()
    mtz = gemmi.Mtz(with_base=True)
    mtz.title = "simulated intensities of random atoms"
    mtz.spacegroup = group
    mtz.set_cell_for_all(cell)
    mtz.add_dataset("simulated").wavelength = 1.3
    for label, kind in zip(COLUMNS.split(","), "KMKM", strict=True):
        mtz.add_column(label, kind)
    mtz.set_data(np.column_stack([hkl, plus, sigma, minus, sigma]).astype(np.float32))
    mtz.history = ["made by benchmarks/make_demo_data.py"]
    mtz.write_to_file(str(path))


def write_image(path: Path, still: Still, experiment: VirtualExperiment) -> None:
    """One image with its geometry and spectrum in it, in the layout that dxtbx's simulated images have."""
    beam = experiment.beam
    beam_document = {
        "direction": tuple((-beam.direction).tolist()),
        "wavelength": beam.wavelength_A,
        "divergence": 0.0,
        "sigma_divergence": 0.0,
        "polarization_normal": tuple(beam.polarization_normal.tolist()),
        "polarization_fraction": beam.polarization_fraction,
        "flux": 0.0,
        "transmission": 1.0,
    }
    image = np.stack(still.panels())[None]
    with h5py.File(path, "w", track_order=True) as file:
        data = file.create_dataset(
            "images",
            data=image,
            chunks=(1, 1, *image.shape[2:]),
            shuffle=True,
            compression="gzip",
            compression_opts=9,
            track_times=False,
        )
        data.attrs["dxtbx_detector_string"] = repr(detector_to_document(experiment.detector))
        data.attrs["dxtbx_beam_string"] = repr(beam_document)
        for name, values in (
            ("wavelengths", experiment.spectrum.wavelengths_A),
            ("spectrum", experiment.spectrum.photons),
        ):
            file.create_dataset(name, data=values, track_times=False)


def as_indexed(crystal: Crystal, generator: np.random.Generator) -> Crystal:
    """The crystal as indexing leaves it: turned by 0.1 degree about a random axis, edges wrong by up to 0.3 %."""
    axis = generator.standard_normal(3)
    axis /= np.linalg.norm(axis)
    angle = np.radians(0.1)
    cross = np.cross(np.eye(3), axis)
    turn = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    a, c = 1 + 0.003 * generator.choice([-1.0, 1.0], 2)
    return crystal.with_cell_and_orientation(crystal.cell * np.array([a, a, c, 1, 1, 1]), turn @ crystal.U)


def as_predicted(still: Still, start: Crystal, experiment: VirtualExperiment) -> dict[str, np.ndarray]:
    """Calculated centroids of the indexed model: each reflection moved along its ray onto the mean Ewald sphere."""
    table, detector = still.reflections, experiment.detector
    q = table["miller_index"] @ start.A_reciprocal.T
    ray = experiment.beam.direction / experiment.beam.wavelength_A + q
    position = detector.intersect(table["panel"], ray)
    none = np.zeros((len(table), 1))
    return {
        "xyzcal.px": np.hstack([position, none]),
        "xyzcal.mm": np.hstack([position * detector.pixel_size_mm[table["panel"]], none]),
    }


def main(folder: Path) -> None:
    """Write every file."""
    folder.mkdir(parents=True, exist_ok=True)
    write_structure_factors(folder / MTZ)
    factors = read_mtz(folder / MTZ, COLUMNS)
    cell = np.concatenate([LYSOZYME_CELL[:3], np.radians(LYSOZYME_CELL[3:])])
    truth: dict[str, object] = {
        "cell_A_deg": LYSOZYME_CELL,
        "Nabc": BLOCKS,
        "G": SCALE,
        "background_photons_at_its_brightest": BACKGROUND_PHOTONS,
        "shots": {},
    }
    for number in range(N_SHOTS):
        generator = np.random.default_rng([SEED, 2, number])
        experiment = virtual_experiment(SEED + number, n_channels=12, d_min=D_MIN)
        still = simulate_still(
            Parameters.start(cell, n_abc=BLOCKS, G=SCALE),
            experiment.detector,
            experiment.beam,
            experiment.spectrum,
            [experiment.crystal],
            factors,
            Options(oversample=2),
            background=BACKGROUND_PHOTONS,
            camera=Camera(gain=28.0, readout_adu=3.0),
            d_min=D_MIN + 0.05,
            seed=SEED + number,
        )
        name = f"shot_{number:03d}"
        write_image(folder / f"{name}.h5", still, experiment)
        start = as_indexed(experiment.crystal, generator)
        identifier = str(uuid.UUID(bytes=generator.bytes(16), version=4))
        described = Experiment(
            identifier, experiment.beam, experiment.detector, start, ImageReference(folder / f"{name}.h5")
        )
        expt = folder / f"{name}_indexed.expt"
        write_experiments([described], expt)
        document = json.loads(expt.read_text())
        # Bundled files must not name the machine that they were made on.
        document["imageset"][0]["images"] = [f"{name}.h5"]
        expt.write_text(json.dumps(document, indent=1) + "\n")
        table = still.reflections.with_columns(**as_predicted(still, start, experiment))
        # Whether a faint spot is found depends on its noise, which would make the scale come out too high.
        listed = still.photons[still.strong] >= LEAST_PHOTONS
        table = type(table)({name: column[listed] for name, column in table.columns.items()}, {0: identifier})
        write_reflections(table, folder / f"{name}_indexed.refl")
        shots = truth["shots"]
        assert isinstance(shots, dict)
        shots[name] = {"real_space_A": experiment.crystal.real_space_A.tolist(), "seed": SEED + number}
        print(name, len(table), "spots, brightest pixel", round(float(still.bragg.max())), "photons")
    (folder / "truth.json").write_text(json.dumps(truth, indent=1) + "\n")
    (folder / "refine.phil").write_text(PHIL)
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{folder}: {size / 1e6:.2f} MB")


if __name__ == "__main__":
    default = Path(__file__).resolve().parent.parent / "bayesbragg" / "data" / "demo"
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else default)
