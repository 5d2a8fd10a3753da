"""Settings from PHIL: the one table that says which classic name becomes which field."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from bayesbragg.inference.map import MapOptions
from bayesbragg.io.phil import ResolvedParameters, check
from bayesbragg.model.errors import InputError
from bayesbragg.pipeline.settings import (
    CountSettings,
    FactorSettings,
    ModelSettings,
    PosteriorSettings,
    RefineSettings,
    SpectrumSettings,
    StartValues,
)
from bayesbragg.priors import Cell, Uniform
from bayesbragg.priors.classic import from_classic
from bayesbragg.stills.boxes import BoxSettings

__all__ = ["reference_geometry", "settings_from_phil"]

LAW_SAMPLES = 100
"""Least number of orientations in which the exact sum samples a normal spread; closed forms need none."""


def settings_from_phil(p: ResolvedParameters, cell_names: tuple[str, ...] = ()) -> RefineSettings:
    """The settings that resolved PHIL parameters mean.

    Args:
        cell_names: free cell parameters in order, to which ``sigmas.ucell`` belongs.

    Raises:
        InputError: values that contradict each other.
    """
    check(p)
    if p.method not in (None, "L-BFGS-B"):
        raise InputError(f"method={p.method}: only L-BFGS-B is offered; leave it out")
    if p.niter:
        raise InputError(f"niter={p.niter}: hopping is not offered; one fit finds the optimum; set niter=0")
    if p.gamma_miller_units:
        raise InputError("gamma_miller_units=True is not offered; set it to False and give diffuse_gamma in angstrom")
    return RefineSettings(
        counts=_counts(p),
        boxes=_boxes(p),
        spectrum=_spectrum(p),
        factors=_factors(p),
        model=_model(p),
        start=_start(p),
        background=p.background,
        likelihood=p.likelihood,
        priors=_priors(p, cell_names),
        fit=MapOptions(
            max_iterations=int(min(p.maxiter, p.lbfgs_maxiter)),
            start_scale=p.automatic_scale,
            start_blocks=p.automatic_scale,
            method=p.fit.method,
            tolerance=p.fit.tolerance,
            change=p.ftol,
        ),
        posterior=PosteriorSettings(
            inference=p.inference,
            draws=p.posterior.draws,
            chains=p.posterior.chains,
            warmup=p.posterior.warmup,
            target_accept=p.posterior.target_accept or 0.0,
        ),
        min_boxes=p.min_spot,
        min_expected=p.min_expected,
        max_lattices=p.number_of_xtals if "number_of_xtals" in p.explicit else None,
        keep_unpredicted=not p.filter_unpredicted_refls_in_output,
        modelers=p.debug_mode,
        seed=p.seed,
    )


def reference_geometry(p: ResolvedParameters) -> Path | None:
    """The file of opt_det, reference_geometry or refiner.reference_geom; they must not contradict each other."""
    given = {
        "opt_det": p.opt_det,
        "input.reference_geometry": p.stills.input.reference_geometry,
        "refiner.reference_geom": p.refiner.reference_geom,
    }
    found = {name: value for name, value in given.items() if value}
    if len(set(found.values())) > 1:
        raise InputError(f"{' and '.join(found)} name different files; keep one of them")
    return p.path(next(iter(found.values()))) if found else None


def _counts(p: ResolvedParameters) -> CountSettings:
    return CountSettings(
        gain=p.refiner.adu_per_photon,
        sigma_readout_adu=p.refiner.sigma_r,
        sigma_gain=p.sigma_gain,
        outlier_fraction=p.outlier_fraction,
        mask=p.path(p.refiner.mask),
        hot_pixels=p.path(p.roi.hotpixel_mask),
        dark_rms=p.use_perpixel_dark_rms,
        from_shoeboxes=p.load_data_from_refls or p.refiner.load_data_from_refl,
        shoeboxes_in_photons=not p.refiner.refldata_to_photons,
    )


def _boxes(p: ResolvedParameters) -> BoxSettings:
    roi = p.roi
    return BoxSettings(
        shoebox_size=roi.shoebox_size,
        deltaQ=roi.deltaQ,
        centroid=roi.centroid,
        pad_shoebox_for_background_estimation=roi.pad_shoebox_for_background_estimation,
        fit_tilt=roi.fit_tilt,
        fit_tilt_using_weights=roi.fit_tilt_using_weights,
        background_threshold=roi.background_threshold,
        only_filter_zingers_above_mean=roi.only_filter_zingers_above_mean,
        force_negative_background_to_zero=roi.force_negative_background_to_zero,
        skip_roi_with_negative_bg=roi.skip_roi_with_negative_bg,
        reject_edge_reflections=roi.reject_edge_reflections,
        reject_roi_with_hotpix=roi.reject_roi_with_hotpix,
        allow_overlapping_spots=roi.allow_overlapping_spots,
        mask_outside_trusted_range=roi.mask_outside_trusted_range,
        mask_all_if_any_outside_trusted_range=roi.mask_all_if_any_outside_trusted_range,
        trusted_range=tuple(roi.trusted_range) if roi.trusted_range is not None else None,
        panels=roi.panels,
        res_ranges=p.refiner.res_ranges,
        # The classic program drops duplicates whatever the default in its parameters says.
        remove_duplicates=p.remove_duplicate_hkl if "remove_duplicate_hkl" in p.explicit else True,
    )


def _spectrum(p: ResolvedParameters) -> SpectrumSettings:
    scope = p.simulator.spectrum
    files = {name: value for name, value in (("refspec", p.refspec), ("filename", scope.filename)) if value}
    if len(set(files.values())) > 1:
        raise InputError("refspec and simulator.spectrum.filename name different files; keep one of them")
    path = p.path(next(iter(files.values()), None))
    wanted = [
        name
        for name, on in (
            ("spectrum_from_imageset", p.spectrum_from_imageset),
            ("gen_gauss_spec", p.gen_gauss_spec),
            ("simulator.spectrum.filename", path is not None),
        )
        if on
    ]
    if len(wanted) > 1:
        raise InputError(f"{' and '.join(wanted)} are set, but a shot has one spectrum; keep one of them")
    source: Any = {
        "spectrum_from_imageset": "image",
        "gen_gauss_spec": "gaussian",
        "simulator.spectrum.filename": "file",
    }.get(wanted[0] if wanted else "", "nominal")
    return SpectrumSettings(
        source=source,
        path=path,
        total_flux=p.simulator.total_flux,
        downsample=not p.downsamp_spec.skip,
        filt_freq=p.downsamp_spec.filt_freq,
        filt_order=p.downsamp_spec.filt_order,
        tail=p.downsamp_spec.tail,
        delta_en=p.downsamp_spec.delta_en,
        stride=scope.stride,
        fwhm_eV=scope.gauss_spec.fwhm,
        n_channels=scope.gauss_spec.nchannels,
        resolution_eV=scope.gauss_spec.res,
    )


def _factors(p: ResolvedParameters) -> FactorSettings:
    scope = p.simulator.structure_factors
    return FactorSettings(
        intensities=p.intensities,
        sigma_intensity=p.sigma_intensity,
        mtz=p.path(scope.mtz_name),
        columns=scope.mtz_column,
        pdb=p.path(scope.from_pdb.name),
        d_min=scope.dmin,
        d_max=scope.dmax,
        k_sol=scope.from_pdb.k_sol,
        b_sol=scope.from_pdb.b_sol,
        anomalous=scope.from_pdb.add_anom,
        default_F=scope.default_F,
        space_group=p.space_group or p.refiner.force_symbol,
    )


def _model(p: ResolvedParameters) -> ModelSettings:
    simulator = p.simulator
    detector, crystal = simulator.detector, simulator.crystal
    return ModelSettings(
        oversample=simulator.oversample,
        beam_size_mm=simulator.beam.size_mm,
        kahn=p.kahn_factor,
        init_scale=simulator.init_scale,
        block_scale=not p.no_Nabc_scale,
        n_mosaic=max(crystal.num_mosaicity_samples, 1 if p.spread == "classic" else LAW_SAMPLES),
        isotropic_spread=crystal.has_isotropic_mosaicity,
        spread=p.spread,
        thin_sensor=detector.force_zero_thickness or (detector.thicksteps == 1 and detector.thick is None),
        thick_mm=detector.thick,
        attenuation_mm=detector.atten,
        sensor_layers=detector.thicksteps,
        diffuse=p.use_diffuse_models,
        diffuse_stencil=p.diffuse_stencil_size,
        symmetrize_diffuse=p.symmetrize_diffuse,
        diffuse_orientation=p.get("diffuse_orientation"),
        psf_fwhm_um=simulator.psf.fwhm if simulator.psf.use else None,
        psf_radius=simulator.psf.radius,
        precision=p.precision,
        forward=p.forward,
        seed=p.seed,
    )


def _start(p: ResolvedParameters) -> StartValues:
    init, crystal = p.init, p.simulator.crystal
    eta = tuple(init.eta_abc)
    if not any(eta):
        eta = tuple(crystal.anisotropic_mosaicity or (crystal.mosaicity,) * 3)
    if len(eta) != 3:
        raise InputError(f"simulator.crystal.anisotropic_mosaicity={eta}: only the three diagonal elements are offered")
    return StartValues(
        rot_xyz=tuple(init.RotXYZ),
        n_abc=tuple(init.Nabc),
        n_def=tuple(init.Ndef),
        eta_deg=eta,
        G=init.G,
        b_factor_A2=init.B,
        lambda_offset_A=init.spec[0],
        lambda_scale=init.spec[1],
        detz_m=init.detz_shift * 1e-3,
        diffuse_gamma_A=tuple(init.diffuse_gamma),
        diffuse_sigma_A=tuple(init.diffuse_sigma),
    )


def _priors(p: ResolvedParameters, cell_names: tuple[str, ...]) -> Any:
    groups = {name: dict(vars(getattr(p, name))) for name in ("init", "mins", "maxs", "fix", "sigmas", "types")}
    restraints = {name: dict(vars(getattr(p, name))) for name in ("centers", "betas")}
    crystal = p.simulator.crystal
    if not any(groups["init"]["eta_abc"]):
        groups["init"]["eta_abc"] = list(_start(p).eta_deg)
    priors = from_classic(
        **groups,
        **restraints,
        use_restraints=p.use_restraints,
        isotropic_blocks=crystal.has_isotropic_ncells,
        isotropic_mosaicity=crystal.has_isotropic_mosaicity,
        isotropic_gamma=p.isotropic.diffuse_gamma,
        isotropic_sigma=p.isotropic.diffuse_sigma,
        ucell_edge_perc=p.ucell_edge_perc,
        ucell_ang_abs=p.ucell_ang_abs,
        cell_names=cell_names,
    )
    if p.spread == "general" and not p.fix.eta_abc:
        reach = max(p.maxs.eta_abc)
        priors = replace(priors, eta_def=Uniform(-reach, reach))
    to_start = p.restrain_cell_to_start
    if to_start and isinstance(priors.cell, Cell):
        angle = to_start[1] if len(to_start) > 1 else None
        priors = replace(priors, cell=replace(priors.cell, edge_sd=to_start[0], angle_sd_deg=angle))
    return priors
