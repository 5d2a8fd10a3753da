"""Value types that say what there is: frozen, numpy, no computation beyond their own geometry."""

from bayesbragg.model.beam import Beam, Spectrum
from bayesbragg.model.crystal import Crystal
from bayesbragg.model.detector import Detector
from bayesbragg.model.experiment import Experiment, ImageReference
from bayesbragg.model.image import Image
from bayesbragg.model.reflections import Reflections, Shoebox
from bayesbragg.model.shot import Shot
from bayesbragg.model.structure_factors import StructureFactors

__all__ = [
    "Beam",
    "Crystal",
    "Detector",
    "Experiment",
    "Image",
    "ImageReference",
    "Reflections",
    "Shoebox",
    "Shot",
    "Spectrum",
    "StructureFactors",
]
