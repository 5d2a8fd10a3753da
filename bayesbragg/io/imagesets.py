"""Where the image of an experiment is: DIALS image sets to and from one file and one image number.

An image set names its files in ``images`` (with ``single_file_indices`` where a file holds several) or by a
``template`` whose image number comes from the experiment's scan. Relative paths count from the folder of the
experiment list. What we write is one image per set, with absolute paths, as DIALS does.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bayesbragg.model.experiment import ImageReference

__all__ = ["imageset_to_document", "read_image_reference", "resolve"]

LOOKUPS = ("mask", "gain", "pedestal", "dx", "dy")
"""Keys of an image set that name further files."""

log = logging.getLogger(__name__)


def resolve(name: str, folder: Path) -> Path:
    """A path as the file states it, made absolute; relative ones count from `folder`, ``~`` is the home folder."""
    return Path(os.path.abspath(folder / os.path.expanduser(name)))


def read_image_reference(
    imageset: Mapping[str, Any], scan: Mapping[str, Any] | None, folder: Path, turn: int, users: int
) -> ImageReference | None:
    """The image of one experiment.

    Args:
        imageset: JSON object of the image set.
        scan: JSON object of the experiment's scan, or None.
        folder: folder of the experiment list.
        turn: how many experiments before this one used the same image set.
        users: how many experiments use it.

    Returns:
        None for an image set without files (such as one held in memory).
    """
    lookups = {key: str(resolve(imageset[key], folder)) for key in LOOKUPS if imageset.get(key)}
    document = {**imageset, **lookups}
    mask = Path(lookups["mask"]) if "mask" in lookups else None
    image_range = scan.get("image_range") if scan else None
    if image_range is not None and image_range[1] > image_range[0]:
        log.warning("image set with a scan over images %s: a rotation scan; its first image is taken", image_range)
    if imageset.get("template"):
        number = int(image_range[0]) if image_range is not None else 1
        path, index = _from_template(str(imageset["template"]), number)
        document["template"] = str(resolve(document["template"], folder))
        return ImageReference(resolve(path, folder), index, mask, document)
    images = imageset.get("images") or []
    if not images:
        return None
    indices = imageset.get("single_file_indices")
    if indices is None:
        indices = [0] * len(images)
    if len(indices) != len(images):
        raise ValueError(f"an image set of {len(images)} images has {len(indices)} single_file_indices")
    if len(images) == 1:
        which = 0
    elif users == len(images):
        which = turn
    elif image_range is not None and 1 <= image_range[0] <= len(images):
        which = int(image_range[0]) - 1
    else:
        raise ValueError(
            f"{users} experiments share an image set of {len(images)} images and no scan says which image is whose"
        )
    document["images"] = [str(resolve(images[which], folder))]
    if imageset.get("single_file_indices") is not None:
        document["single_file_indices"] = [int(indices[which])]
    return ImageReference(Path(document["images"][0]), int(indices[which]), mask, document)


def _from_template(template: str, number: int) -> tuple[str, int]:
    """File and image index of an image number; a run of ``#`` stands for its digits."""
    digits = template.count("#")
    if digits == 0:
        return template, number - 1
    run = "#" * digits
    if run not in template:
        raise ValueError(f"image template {template!r} has more than one run of #")
    return template.replace(run, str(number).zfill(digits)), 0


def imageset_to_document(image: ImageReference) -> dict[str, Any]:
    """The JSON image set of one image, with what the original image set said besides."""
    document = dict(image.document or {})
    if "template" in document and _names(document["template"], image.path):
        return document
    for key in ("template", "grid_size"):
        document.pop(key, None)
    document["__id__"] = "ImageSet"
    document["images"] = [str(image.path)]
    if image.index or image.document is None or "single_file_indices" in document:
        document["single_file_indices"] = [image.index]
    for key in LOOKUPS:
        document.setdefault(key, None)
    if image.mask is not None:
        document["mask"] = str(image.mask)
    elif document["mask"]:
        document["mask"] = None
    document.setdefault("params", {})
    return document


def _names(template: str, path: Path) -> bool:
    """Whether a path is one of those that a template stands for."""
    pattern = re.sub("#+", lambda run: rf"\d{{{len(run[0])},}}", re.escape(template).replace(r"\#", "#"))
    return re.fullmatch(pattern, str(path)) is not None
