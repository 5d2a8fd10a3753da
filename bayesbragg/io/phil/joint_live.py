"""Units and meanings of the joint fit's own parameters; see `live.LIVE`."""

from __future__ import annotations

__all__ = ["JOINT"]

_WIDTH = "prior sd of a {}'s own {}, about or along {}"

JOINT: dict[str, tuple[str, str]] = {
    "geometry.center.panel_rotations": (
        "degree",
        "prior mean of each group's rotations (the classic program ignores it)",
    ),
    "geometry.center.panel_translations": ("mm", "prior mean of each group's shifts (the classic program ignores it)"),
    "refiner.panel_group_file": ("path", "text file with panel and group number in each line"),
    "geometry.optimize": ("", "fit the detector; geometry-refine asks for True"),
    "geometry.input_pkl": ("path", "table of shots to fit together (.pkl, .parquet, or a run's folder)"),
    "geometry.input_pkl_glob": ("path", "tables of shots to fit together, with wildcards"),
    "geometry.refls_key": ("", "column of that table that names the .refl files"),
    "geometry.first_n": ("shots", "only the first n rows of that table"),
    "geometry.optimized_detector_name": ("", "name of the .expt with the fitted detector"),
    "geometry.optimized_results_tag": ("", "added to the tags of the shots' own fitted files"),
    "geometry.min.panel_rotations": ("degree", "lower bounds: about orthogonal, fast, slow axis"),
    "geometry.max.panel_rotations": ("degree", "upper bounds: about orthogonal, fast, slow axis"),
    "geometry.min.panel_translations": ("mm", "lower bounds along x, y, z"),
    "geometry.max.panel_translations": ("mm", "upper bounds along x, y, z"),
    "geometry.betas.panel_rot": (
        "radian^2",
        "prior variance of each group's rotations (see joint.beta_units), with use_restraints",
    ),
    "geometry.betas.panel_xyz": (
        "m^2",
        "prior variance of each group's shifts (see joint.beta_units), with use_restraints",
    ),
    "geometry.betas.close_distances": ("m^2", "variance of the spread of the groups' distances, with use_restraints"),
    "geometry.fix.panel_rotations": ("", "1 fixes: about orthogonal, fast, slow axis"),
    "geometry.fix.panel_translations": ("", "1 fixes: along x, y, z"),
    "joint.solver": ("", "Levenberg-Marquardt with the expected information, or L-BFGS-B for comparison"),
    "joint.max_iterations": ("steps", "most steps of the joint fit"),
    "joint.tolerance": ("log density", "predicted decrease of the target below which the fit has converged"),
    "joint.groups": ("", "panel groups: auto is the file, else the hierarchy's lowest nodes, else single panels"),
    "joint.hierarchy_level": ("", "groups are the nodes of the detector's hierarchy at this depth (0: below the root)"),
    "joint.rotation_reference": ("", "groups turn about their centroid, or as in the classic program"),
    "joint.beta_units": ("", "units of geometry.betas: radian^2 and metre^2 (classic), or degree^2 and mm^2"),
    "joint.hierarchy": ("", "add the prior whole detector, quadrant, group; without it only bounds and betas hold"),
    "joint.learn_widths": ("", "multiply these widths by the factors that make the data most probable"),
    "joint.positions_first": ("", "fit the spots' positions before the pixels; auto: where these are off by more"),
    "joint.off_by": ("pixel", "median prediction offset above which positions are fitted first"),
    "joint.detz_shift_sd": ("mm", "vary one shift along z of all panels, normal about 0 with this sd"),
    "joint.lambda_offset_sd": ("A", "vary one offset of all wavelengths, normal about 0 with this sd"),
    "joint.lambda_scale_sd": ("", "vary one factor of all wavelengths, normal about 1 with this sd"),
    "joint.keep_in_memory": ("", "keep the shots in memory; else read each from its files whenever it is visited"),
    "joint.resume": ("", "go on from the state that a killed run of the same settings left in the output folder"),
}
for _level in ("whole", "quadrant", "group"):
    _axes = "orthogonal, fast, slow axis" if _level == "group" else "lab z, x, y"
    JOINT[f"joint.{_level}_rotation_sd"] = ("degree", _WIDTH.format(_level, "rotations", _axes))
    JOINT[f"joint.{_level}_shift_sd"] = ("mm", _WIDTH.format(_level, "shifts", "lab x, y, z"))
