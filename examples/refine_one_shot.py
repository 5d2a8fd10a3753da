"""Load a still, state priors, fit, look at the result.

python examples/refine_one_shot.py
"""

import bayesbragg as bb

data = bb.demo_folder()
settings = bb.RefineSettings(
    counts=bb.CountSettings(gain=28, sigma_readout_adu=3),
    spectrum=bb.SpectrumSettings(source="image"),
    factors=bb.FactorSettings(mtz=data / "structure_factors.mtz", columns="I(+),SIGI(+),I(-),SIGI(-)"),
    model=bb.ModelSettings(oversample=2),
    priors=bb.Priors(
        RotXYZ=bb.Normal(0, 0.005),  # radian: mean and standard deviation
        cell=bb.Cell(edge_sd=0.5),  # angstrom, about the starting cell
        Nabc=bb.Uniform(3, 300),  # cells
        G=bb.Positive(),
    ),
)
(still,) = bb.load(data / "shot_000_indexed.expt", data / "shot_000_indexed.refl", settings)
result = bb.refine(still, settings)
print(result.fit.summary())
