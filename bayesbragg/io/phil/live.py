"""Which parameters have an effect here, in which unit, and what they do: one line each.

A name in `LIVE` is read by the program; any other name of the scopes is accepted and does nothing here, which a
warning says when it is set. To switch a parameter on or off, add or remove its line. Names of the classic diffBragg
scope stand bare; those of stills_process as they are written in its files.
"""

from __future__ import annotations

from bayesbragg.io.phil.joint_live import JOINT
from bayesbragg.io.phil.simulate_live import SIMULATE
from bayesbragg.io.phil.stills_live import STILLS

__all__ = ["LIVE"]

_RESTRAINT = "restraints (with use_restraints)"

LIVE: dict[str, tuple[str, str]] = {
    # --- what to read
    "exp_ref_spec_file": ("path", "list of shots: one line each of .expt, .refl and, optionally, .lam files"),
    "best_pickle": ("path", "table of shots of an earlier run, from whose values fits start (docs/refine.md)"),
    "opt_det": ("path", ".expt whose detector replaces the shots' own"),
    "opt_beam": ("path", ".expt whose beam replaces the shots' own"),
    "input.reference_geometry": ("path", ".expt whose detector replaces the shots' own"),
    "refiner.reference_geom": ("path", ".expt whose detector replaces the shots' own"),
    "spectrum_from_imageset": ("", "read each shot's spectrum from its image file"),
    "gen_gauss_spec": ("", "make a Gaussian spectrum about the nominal wavelength (simulator.spectrum.gauss_spec)"),
    "refspec": ("path", "one .lam spectrum for all shots"),
    "skip": ("shots", "leave out this many shots at the start of the list"),
    "first_n": ("shots", "only the first n shots"),
    "max_process": ("shots", "at most this many shots; negative: all"),
    "ignore_existing": ("", "leave out shots whose rows the output folder holds already"),
    "number_of_xtals": ("lattices", "of a shot that are modelled together, the first of its list; all unless stated"),
    "load_data_from_refls": ("", "pixels from the shoeboxes of the .refl file instead of the image"),
    "refiner.load_data_from_refl": ("", "pixels from the shoeboxes of the .refl file instead of the image"),
    "refiner.refldata_to_photons": ("", "shoeboxes hold detector units, to be divided by adu_per_photon; else photons"),
    # --- what to write
    "outdir": ("path", "output folder"),
    "output.output_dir": ("path", "output folder, where outdir is not given"),
    "debug_mode": ("", "also write the pixels with their model, every setting, and the spectrum of each shot"),
    "filter_unpredicted_refls_in_output": ("", "leave reflections without a modelled peak out of the .refl"),
    # --- spectrum
    "downsamp_spec.skip": ("", "use the spectrum of the image as it is, its flux too"),
    "downsamp_spec.filt_freq": ("", "cut-off of the low-pass filter as a fraction of the Nyquist frequency"),
    "downsamp_spec.filt_order": ("", "order of the low-pass filter"),
    "downsamp_spec.tail": ("channels", "channels at each end that tell the spectrometer's background"),
    "downsamp_spec.delta_en": ("eV", "spacing of the channels after down-sampling"),
    "simulator.total_flux": ("photons", "photons per shot where the spectrum does not tell"),
    "simulator.spectrum.filename": ("path", "one .lam spectrum for all shots"),
    "simulator.spectrum.filename_list": ("path", "text file with one .lam file per shot, in the order of the shots"),
    "simulator.spectrum.stride": ("channels", "keep every n-th channel of a .lam file"),
    "simulator.spectrum.gauss_spec.fwhm": ("eV", "full width at half maximum of the Gaussian spectrum"),
    "simulator.spectrum.gauss_spec.nchannels": ("channels", "channels of the Gaussian spectrum"),
    "simulator.spectrum.gauss_spec.res": ("eV", "spacing of its channels"),
    # --- structure factors
    "space_group": ("", "space group of the structure factors and the cell; else the crystal's own"),
    "simulator.structure_factors.mtz_name": ("path", "structure factors: MTZ, or .hkl list (h k l F, or CrystFEL's)"),
    "simulator.structure_factors.mtz_column": ("", "its column or columns, such as I(+),SIGI(+),I(-),SIGI(-)"),
    "simulator.structure_factors.from_pdb.name": ("path", "coordinates to compute structure factors from"),
    "simulator.structure_factors.from_pdb.add_anom": ("", "with anomalous scattering at the beam's wavelength"),
    "simulator.structure_factors.from_pdb.k_sol": ("e/A^3", "density of the bulk solvent; none: no solvent"),
    "simulator.structure_factors.from_pdb.b_sol": ("A^2", "B factor of the bulk solvent"),
    "simulator.structure_factors.dmin": ("A", "high-resolution limit of computed structure factors"),
    "simulator.structure_factors.dmax": ("A", "low-resolution limit of computed structure factors"),
    "simulator.structure_factors.default_F": ("electrons", "amplitude of reflections outside the list"),
    # --- model
    "simulator.oversample": ("", "subpixels along each side of a pixel; 0 chooses (docs/oversampling.md)"),
    "simulator.init_scale": ("", "factor on the whole model"),
    "simulator.beam.size_mm": ("mm", "side of the beam at the sample (fluence = flux / channels / size^2)"),
    "simulator.crystal.has_isotropic_ncells": ("", "one block size for a, b and c"),
    "simulator.crystal.has_isotropic_mosaicity": ("", "one mosaic spread for a, b and c"),
    "simulator.crystal.num_mosaicity_samples": ("", "orientations that sample the mosaic spread"),
    "simulator.crystal.mosaicity": ("degree", "mosaic spread where init.eta_abc is 0"),
    "simulator.crystal.anisotropic_mosaicity": ("degree", "mosaic spread about a, b, c where init.eta_abc is 0"),
    "simulator.detector.thick": ("mm", "sensor thickness; else the file's"),
    "simulator.detector.atten": ("mm", "attenuation length of the sensor; else the file's"),
    "simulator.detector.thicksteps": ("", "layers of the sensor"),
    "simulator.detector.force_zero_thickness": ("", "treat the sensor as thin"),
    "simulator.psf.use": ("", "blur the model by a point-spread function"),
    "simulator.psf.fwhm": ("micrometre", "full width at half maximum of the point-spread function"),
    "simulator.psf.radius": ("pixel", "half side of its kernel"),
    "no_Nabc_scale": ("", "leave the number of cells out of the lattice factor, so that G absorbs it"),
    "use_diffuse_models": ("", "add diffuse scattering (diffuse_sigma, diffuse_gamma)"),
    "diffuse_stencil_size": ("", "neighbouring reflections that add to the diffuse scattering, each way"),
    "diffuse_orientation": ("", "diffuse axes: 1 along a, b, c; 0 along a-b, a+b, c"),
    "symmetrize_diffuse": ("", "average the diffuse scattering over the Laue group"),
    "gamma_miller_units": ("", "only False: diffuse_gamma is in angstrom; True is refused"),
    "isotropic.diffuse_gamma": ("", "one diffuse_gamma for three axes"),
    "isotropic.diffuse_sigma": ("", "one diffuse_sigma for three axes"),
    # --- counts
    "refiner.adu_per_photon": ("ADU/photon", "gain of the detector"),
    "refiner.sigma_r": ("ADU", "readout noise per pixel"),
    "use_perpixel_dark_rms": ("", "readout noise of each pixel from the image file"),
    # --- boxes and background
    "roi.shoebox_size": ("pixel", "side of a box"),
    "roi.deltaQ": ("1/A", "side of a box in reciprocal space; instead of shoebox_size"),
    "roi.pad_shoebox_for_background_estimation": ("pixel", "margin added on each side for the background"),
    "roi.centroid": ("", "boxes about observed or calculated positions"),
    "roi.fit_tilt": ("", "background planes; else a constant per box"),
    "roi.fit_tilt_using_weights": ("", "weights of the classic planes"),
    "roi.background_threshold": ("", "modified z-score above which the classic planes drop a pixel"),
    "roi.only_filter_zingers_above_mean": ("", "that filter drops only bright pixels"),
    "roi.hotpixel_mask": ("path", "mask of bad pixels: DIALS, NumPy or HDF5 file, True = bad"),
    "refiner.mask": ("path", "mask of good pixels: DIALS, NumPy or HDF5 file, True = good"),
    "roi.reject_edge_reflections": ("", "drop boxes that an edge cuts"),
    "roi.reject_roi_with_hotpix": ("", "drop boxes with a bad pixel"),
    "roi.allow_overlapping_spots": ("", "leave overlapping boxes as they are; else shrink the later one"),
    "roi.skip_roi_with_negative_bg": ("", "drop boxes whose background dips below 0"),
    "roi.force_negative_background_to_zero": ("", "background 0 in boxes where it dips below 0"),
    "roi.panels": ("", "panels to use, such as 0-8,10"),
    "roi.trusted_range": ("ADU", "lowest and highest trusted value; else the file's"),
    "roi.mask_outside_trusted_range": ("", "leave out pixels beyond the trusted range"),
    "roi.mask_all_if_any_outside_trusted_range": ("", "leave out the whole box then"),
    "remove_duplicate_hkl": ("", "leave out reflections whose index appears twice in a lattice; True unless stated"),
    "min_spot": ("reflections", "shots with fewer boxes are not fitted"),
    "refiner.res_ranges": ("A", "resolution range of the boxes, such as 2-30"),
    "refiner.force_symbol": ("", "space group instead of the crystal's own"),
    # --- fit
    "method": ("", "minimiser of the classic program; only L-BFGS-B; fit.method decides"),
    "ftol": ("", "relative change of the target below which a fit ends; by default fit.tolerance ends it before"),
    "maxiter": ("iterations", "most iterations, with lbfgs_maxiter the smaller of the two"),
    "lbfgs_maxiter": ("iterations", "most iterations"),
    "niter": ("hops", "repetitions from other starts; only 0 (none)"),
    "use_restraints": ("", "add the priors of centers and betas"),
    "ucell_edge_perc": ("percent", "cell edges stay within this of their start"),
    "ucell_ang_abs": ("degree", "cell angles stay within this of their start"),
    # --- run
    "mp.nproc": ("processes", "shots fitted at the same time, where nproc is not given"),
    "logging.disable": ("", "no log file in the output folder"),
    # --- ours
    "likelihood": ("", "of a pixel: gaussian (variance model + readout^2), poisson, or their convolution"),
    "sigma_gain": ("", "relative calibration error of a pixel's gain; adds (sigma_gain model)^2 to its variance"),
    "outlier_fraction": ("", "of pixels that show something else, such as zingers (docs/models.md)"),
    "background": ("", "planes by Poisson likelihood, the classic ones, or inferred with the rest (docs/models.md)"),
    "intensities": ("", "known structure factors, or one unknown intensity per reflection (docs/models.md)"),
    "sigma_intensity": ("", "relative error of known intensities, one number per box, integrated out (docs/models.md)"),
    "min_expected": (
        "photons",
        "boxes of which the fit expects fewer leave, and the rest is fitted again (docs/models.md)",
    ),
    "spread": ("", "mosaic rotations: the classic laws, normal, or normal with any covariance (docs/models.md)"),
    "kahn_factor": ("", "polarization from the experiment (2 fraction - 1), or the classic program's 1"),
    "forward": ("", "lattice sum: closed form where it is accurate, always, or the exact sum (docs/refine.md)"),
    "inference": (
        "",
        "error bars: none (map), a Gaussian (laplace), Markov chains (nuts; hmc: fewer steps)",
    ),
    "posterior.draws": ("", "laplace: draws that check and correct the Gaussian, 0: none; nuts: of each chain, 0: 500"),
    "posterior.chains": ("", "chains of nuts"),
    "posterior.warmup": ("", "draws in which nuts finds its step size"),
    "posterior.target_accept": ("", "acceptance probability that its step is made for; 0.6, near bounds 0.95"),
    "precision": ("", "of the model's arithmetic"),
    "device": ("", "where to compute; asking for a gpu that is not there is an error"),
    "automatic_scale": ("", "start G from a linear fit instead of init.G, unless best_pickle gives it"),
    "restrain_cell_to_start": ("A, degree", "restrain edges (and angles) to the starting cell with these sigmas"),
    "nproc": ("processes", "shots fitted at the same time; else mp.nproc"),
    "batch": ("shots", "fitted together in one compiled program, which fills a GPU (docs/refine.md)"),
    "fit.method": ("", "second-order steps (lm), lbfgs, or lm with lbfgs where it finds no way down (auto)"),
    "fit.tolerance": ("standard deviations", "length of the Newton step below which the optimum counts as reached"),
    "seed": ("", "of all random numbers"),
}

_FITTED = {
    "Nabc": ("cells", "mosaic block size along a, b, c"),
    "Ndef": ("cells", "off-diagonal elements of the block matrix: ab, bc, ac"),
    "RotXYZ": ("radian", "misorientation about the lab axes"),
    "G": ("", "scale of the shot"),
    "B": ("A^2", "B factor of the shot, intensity times exp(-B q^2 / 2)"),
    "eta_abc": ("degree", "mosaic spread about a, b, c"),
    "spec": ("A, 1", "offset and factor of the wavelengths"),
    "detz_shift": ("mm", "shift of the detector along z"),
    "diffuse_sigma": ("A", "displacement of the diffuse model along a, b, c"),
    "diffuse_gamma": ("A", "correlation length of the diffuse model along a, b, c"),
    "ucell": ("A, degree", "unit cell"),
}
_CELL = {name: ("A", f"cell edge {name}") for name in "abc"} | {
    name: ("degree", f"cell angle {name}") for name in ("alpha", "beta", "gamma")
}
_VARIANCE_UNITS = {"detz_shift": "m^2", "spec": "A^2, 1", "B": "A^4"}
_MEANING = {
    "fix": "keep fixed",
    "init": "start",
    "mins": "lower bound",
    "maxs": "upper bound",
    "sigmas": "scale of the classic coordinates, which moves no optimum",
    "centers": f"prior mean, {_RESTRAINT}",
}
for _scope, _meaning in _MEANING.items():
    for _name, (_unit, _what) in _FITTED.items():
        if _name != "ucell" or _scope == "fix":
            LIVE[f"{_scope}.{_name}"] = ("" if _scope in ("fix", "sigmas") else _unit, f"{_meaning}: {_what}")
for _name, (_unit, _what) in _FITTED.items():
    if _name != "ucell":
        _square = _VARIANCE_UNITS.get(_name, f"{_unit}^2" if _unit else "")
        LIVE[f"betas.{_name}"] = (_square, f"prior variance, {_RESTRAINT}: {_what}")
for _name, (_unit, _what) in _CELL.items():
    LIVE[f"centers.ucell_{_name}"] = (_unit, f"prior mean, {_RESTRAINT}: {_what}")
    LIVE[f"betas.ucell_{_name}"] = ("A^2" if _unit == "A" else "radian^2", f"prior variance, {_RESTRAINT}: {_what}")
for _name in ("G", "Nabc", "diffuse_sigma", "diffuse_gamma"):
    LIVE[f"types.{_name}"] = ("", f"between bounds (ranged) or positive without bounds: {_FITTED[_name][1]}")
LIVE["centers.Nvol"] = ("cells", f"prior mean of the block's number of cells, {_RESTRAINT}")
LIVE["betas.Nvol"] = ("cells^2", f"prior variance of the block's number of cells, {_RESTRAINT}")
LIVE.update(JOINT)
LIVE.update(SIMULATE)
LIVE.update(STILLS)
