"""DIALS integration of stills in HDF5 with the geometry in attributes, for `merging.py`. Run it with DIALS' own python.

    /usr/bin/python3 benchmarks/dials_integrate.py REFINED_FOLDER IMAGE_FOLDER PROCESS.phil OUTPUT_FOLDER

Input are the models and indexed reflections of dials.stills_process (NAME_refined.expt, NAME_indexed.refl). What runs
is the integration step of dials.stills_process (prediction, profile model, background, summation) with its defaults.
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
from dials.array_family import flex
from dials.command_line.stills_process import Processor, phil_scope
from dxtbx.format.FormatHDF5 import FormatHDF5
from dxtbx.format.FormatStill import FormatStill
from dxtbx.model import Detector
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


def main(refined: str, images: str, phil: str, out: str) -> None:
    Path(out).mkdir(parents=True, exist_ok=True)
    text = Path(phil).read_text() + f"\noutput.output_dir={out}\ndispatch.integrate=True\n"
    params = phil_scope.fetch(source=parse(text)).extract()
    for expt in sorted(Path(refined).glob("*_refined.expt")):
        tag = expt.name.removesuffix("_refined.expt")
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
        integrated = processor.integrate(experiments, reflections)
        print(tag, len(reflections), "indexed,", len(integrated), "integrated", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:5])
