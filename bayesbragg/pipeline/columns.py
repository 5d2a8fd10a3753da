"""The columns of the table of shots: unit and meaning of each. docs/outputs.md shows them as `columns_table` says them.

Those up to ``osc_deg`` are the classic program's, with its names and units; the others are ours.
"""

from __future__ import annotations

__all__ = ["COLUMNS", "columns_table"]

COLUMNS: dict[str, tuple[str, str]] = {
    "spot_scales": ("", "scale factor G of the lattice"),
    "Amats": ("1/A", "reciprocal matrix A = U B, nine numbers row by row"),
    "ncells": ("cells", "mosaic block size Na, Nb, Nc"),
    "spot_scales_init": ("", "scale factor that the fit was given"),
    "ncells_init": ("cells", "block size that the fit was given"),
    "eta_abc": ("degree", "mosaic spread about a, b, c"),
    "detz_shift_mm": ("mm", "shift of the detector along z"),
    "ncells_def": ("cells", "off-diagonal block elements Nd (ab), Ne (bc), Nf (ac)"),
    "diffuse_gamma": ("A", "correlation lengths of the diffuse model"),
    "diffuse_sigma": ("A", "displacements of the diffuse model"),
    "fp_fdp_shift": ("eV", "not used; kept for old scripts"),
    "use_diffuse_models": ("", "whether diffuse scattering was modelled"),
    "gamma_miller_units": ("", "always False: diffuse_gamma is in angstrom"),
    "eta": ("degree", "not used; kept for old scripts"),
    "rotX": ("radian", "misorientation about x, from the orientation in the input"),
    "rotY": ("radian", "misorientation about y"),
    "rotZ": ("radian", "misorientation about z"),
    "a": ("A", "cell edge"),
    "b": ("A", "cell edge"),
    "c": ("A", "cell edge"),
    "al": ("degree", "cell angle"),
    "be": ("degree", "cell angle"),
    "ga": ("degree", "cell angle"),
    "a_init": ("A", "cell edge of the input"),
    "b_init": ("A", "cell edge of the input"),
    "c_init": ("A", "cell edge of the input"),
    "al_init": ("degree", "cell angle of the input"),
    "be_init": ("degree", "cell angle of the input"),
    "ga_init": ("degree", "cell angle of the input"),
    "lam0": ("A", "offset of the wavelengths"),
    "lam1": ("", "factor of the wavelengths"),
    "spectrum_filename": ("", "spectrum file, if the shot had one"),
    "spectrum_stride": ("channels", "every n-th channel of that file was used"),
    "num_mosaicity_samples": ("", "orientations that sample the mosaic spread"),
    "total_flux": ("photons", "photons in the spectrum"),
    "beamsize_mm": ("mm", "side of the beam"),
    "exp_name": ("", "refined experiment list, as seen from the working directory of the run"),
    "opt_exp_name": ("", "the same"),
    "spectrum_from_imageset": ("", "whether the spectrum came from the image file"),
    "oversample": ("", "subpixels along each side of a pixel"),
    "stage1_refls": ("", "refined reflections"),
    "stage1_output_img": ("", "modeler file, if one was written"),
    "exp_idx": ("", "number of the lattice on its image, from 0"),
    "phi_deg": ("degree", "0 for stills"),
    "osc_deg": ("degree", "0 for stills"),
    "B": ("A^2", "B factor of the shot"),
    "tag": ("", "name of the shot"),
    "status": ("", "how the fit ended: converged, iteration limit, stalled or failed"),
    "reason": ("", "one line that explains the status"),
    "target": ("", "-(log likelihood + log prior) at the end"),
    "target_init": ("", "the same for the values that the fit was given"),
    "sigmaZ": ("", "standard deviation of residual over expected standard deviation; 1 is ideal"),
    "niter": ("", "iterations"),
    "nfev": ("", "evaluations of the model"),
    "seconds": ("s", "time in the fit"),
    "n_boxes": ("", "boxes in the fit"),
    "n_pixels": ("", "trusted pixels in the fit"),
    "at_bound": ("", "parameters that ended at a bound"),
    "forward": ("", "lattice sum of the fit: closed or exact"),
    "forward_reason": ("", "why"),
    "forward_error_noise": ("", "estimated error of a closed form at the end, in standard deviations of the noise"),
    "forward_error_peak": ("", "the same relative to the brightest pixel"),
}
"""Columns of the table of shots: unit and meaning."""


def columns_table() -> str:
    """The columns as a Markdown table."""
    lines = ["| column | unit | meaning |", "|---|---|---|"]
    lines += [f"| `{name}` | {unit} | {meaning} |" for name, (unit, meaning) in COLUMNS.items()]
    return "\n".join(lines) + "\n"
