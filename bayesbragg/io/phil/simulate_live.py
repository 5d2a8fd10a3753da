"""Units and meanings of the parameters of simulated stills; see `live.LIVE`."""

from __future__ import annotations

__all__ = ["SIMULATE"]

SIMULATE: dict[str, tuple[str, str]] = {
    "simulate.n_shots": ("shots", "how many"),
    "simulate.first": ("", "number of the first shot; number and seed decide a shot, however many are made"),
    "simulate.images_per_file": ("images", "in each HDF5 file"),
    "simulate.prefix": ("", "names of files: PREFIX_00000.h5, ..."),
    "simulate.experiment": ("path", ".expt or image whose detector and beam are used; else a small virtual detector"),
    "simulate.unit_cell": ("A, degree", "a, b, c, alpha, beta, gamma; else that of the structure factors' file"),
    "simulate.orientation": ("", "rows of the rotation matrix U of every shot; else at random"),
    "simulate.n_lattices": ("lattices", "in each shot"),
    "simulate.lattice_scales": ("", "brightness of each lattice, relative to init.G"),
    "simulate.cell_sd": ("", "relative standard deviation of the cell edges from shot to shot"),
    "simulate.block_sd": ("", "standard deviation of the logarithm of the block sizes"),
    "simulate.scale_sd": ("", "standard deviation of the logarithm of the scale"),
    "simulate.d_min": ("A", "resolution of the reflections in the truth tables and of computed structure factors"),
    "simulate.spectrum": ("", "one channel at the beam's wavelength, X-ray laser spikes, a Gaussian, a .lam file"),
    "simulate.energy": ("eV", "mean photon energy; else the beam's"),
    "simulate.sase.spike": ("eV", "full width of a spike (simulate.spectrum=sase; envelope: gauss_spec)"),
    "simulate.sase.jitter": ("eV", "standard deviation of the mean energy from shot to shot"),
    "simulate.background.water": ("mm", "thickness of water in the beam"),
    "simulate.background.air": ("mm", "path of the beam through air"),
    "simulate.background.ring": ("photons", "largest value of a smooth ring, besides water and air"),
    "simulate.background.file": ("path", "photons of every pixel (.npy, .npz, HDF5), as background.npz of another run"),
    "simulate.background.sd": ("", "standard deviation of the logarithm of the background's level"),
    "simulate.noise": ("", "Poisson, calibration and readout noise; else the expectation, rounded"),
    "simulate.saturation": ("ADU", "largest value that the detector writes"),
    "simulate.errors.detector_shift": ("mm", "x, y, z that the geometry in the files is off by"),
    "simulate.errors.group_rotation_sd": ("degree", "errors of each panel group about orthogonal, fast, slow axis"),
    "simulate.errors.group_shift_sd": ("mm", "errors of each panel group along lab x, y, z"),
}
