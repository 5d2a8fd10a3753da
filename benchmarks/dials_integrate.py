"""DIALS integration of stills in HDF5 with the geometry in attributes, for `merging.py`. Run it with DIALS' own python.

    /usr/bin/python3 benchmarks/dials_integrate.py REFINED_FOLDER IMAGE_FOLDER PROCESS.phil OUTPUT_FOLDER [INDEXED]

Input are the models and indexed reflections of dials.stills_process (NAME_refined.expt, NAME_indexed.refl). What runs
is the integration step of dials.stills_process (prediction, profile model, background, summation) with its defaults.
Shots that are in INDEXED only (models of its indexing) go through its refinement first; the two numbers of its mosaic
model, which it takes from a program that Debian does not have, are the medians of those of the refined shots.
"""

from __future__ import annotations

import ast
import copy
import json
import sys
import tempfile
from pathlib import Path

import dxtbx.format.Registry as registry
import dxtbx.imageset
import dxtbx.model.experiment_list as experiment_list
import h5py
import numpy as np
from dials.algorithms.refinement import RefinerFactory
from dials.array_family import flex
from dials.command_line.stills_process import Processor, phil_scope
from dxtbx.format.FormatHDF5 import FormatHDF5
from dxtbx.format.FormatStill import FormatStill
from dxtbx.model import Detector, MosaicCrystalSauter2014
from dxtbx.model.beam import BeamFactory
from libtbx.phil import parse


class FormatAttributes(FormatHDF5, FormatStill):
    """Images whose detector and beam stand in attributes as Python literals."""

    @staticmethod
    def understand(image_file):
        return str(image_file).endswith(".h5")

    def _start(self):
        self._images = h5py.File(self.get_image_file(), "r")["images"]

    def get_detector(self, index=None):
        return Detector.from_dict(ast.literal_eval(self._images.attrs["dxtbx_detector_string"]))

    def get_beam(self, index=None):
        return BeamFactory.from_dict(ast.literal_eval(self._images.attrs["dxtbx_beam_string"]))

    _detector, _beam = get_detector, get_beam

    def get_num_images(self):
        return self._images.shape[0]

    def get_raw_data(self, index=0):
        return tuple(flex.double(np.ascontiguousarray(p, dtype=np.float64)) for p in self._images[index or 0])


def _find(image_file, format_hint=None):
    return FormatAttributes


for module in (registry, dxtbx.imageset, experiment_list):
    module.get_format_class_for_file = _find


def refine(params, experiments, reflections, mosaic):
    """What dials.stills_process does after indexing, its estimate of the mosaic model left out."""
    refiner = RefinerFactory.from_parameters_data_experiments(params, reflections, experiments)
    refiner.run()
    experiments, predicted = refiner.get_experiments(), refiner.predict_for_indexed()
    for column in ("xyzcal.mm", "xyzcal.px", "s1", "entering", "delpsical.rad"):
        if column in predicted:
            reflections[column] = predicted[column]
    for experiment in experiments:
        crystal = MosaicCrystalSauter2014(experiment.crystal)
        crystal.set_half_mosaicity_deg(mosaic["ML_half_mosaicity_deg"])
        crystal.set_domain_size_ang(mosaic["ML_domain_size_ang"])
        experiment.crystal = crystal
    return experiments, reflections.select(refiner.selection_used_for_refinement())


def main(refined: str, images: str, phil: str, out: str, indexed: str = "") -> None:
    Path(out).mkdir(parents=True, exist_ok=True)
    text = Path(phil).read_text() + f"\noutput.output_dir={out}\ndispatch.integrate=True\n"
    params = phil_scope.fetch(source=parse(text)).extract()
    found = {path.name: path for folder in (indexed, refined) if folder for path in Path(folder).glob("*_refined.expt")}
    known = [json.loads(p.read_text())["crystal"][0] for p in found.values() if p.parent != Path(indexed)]
    mosaic = {k: float(np.median([c[k] for c in known])) for k in ("ML_half_mosaicity_deg", "ML_domain_size_ang")}
    for name, expt in sorted(found.items()):
        tag = name.removesuffix("_refined.expt")
        document = json.loads(expt.read_text())
        for imageset in document["imageset"]:
            imageset["images"] = [str(Path(images).resolve() / f"{tag}.h5")]
            imageset["single_file_indices"] = [0]
        with tempfile.NamedTemporaryFile("w", suffix=".expt") as file:
            file.write(json.dumps(document))
            file.flush()
            experiments = experiment_list.ExperimentListFactory.from_json_file(file.name)
        reflections = flex.reflection_table.from_file(str(expt.with_name(f"{tag}_indexed.refl")))
        processor = Processor(copy.deepcopy(params), composite_tag=None, rank=0)
        processor.setup_filenames(tag)
        try:
            if expt.parent == Path(indexed):
                experiments, reflections = refine(params, experiments, reflections, mosaic)
            integrated = processor.integrate(experiments, reflections)
        except Exception as error:
            print(tag, "failed:", str(error).splitlines()[0] if str(error) else type(error).__name__, flush=True)
            continue
        print(tag, len(reflections), "indexed,", len(integrated), "integrated", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:6])
