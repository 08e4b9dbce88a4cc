"""The formats that masks can be written in. Each is imported when it is asked for, as their libraries take long to import."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import import_module

from propl_monai.common.options import words
from propl_monai.errors import ProPLError, unknown
from propl_monai.inference.formats.base import Format

PNG = "png"  # masks as `prediction.write_predictions` writes them, frame by frame
_CLASSES = {
    "nifti": ("propl_monai.inference.formats.nifti", "Nifti"),
    "nrrd": ("propl_monai.inference.formats.nrrd", "Nrrd"),
    "dicom-seg": ("propl_monai.inference.formats.dicom_seg", "DicomSeg"),
    "coco": ("propl_monai.inference.formats.coco", "Coco"),
    "yolo": ("propl_monai.inference.formats.yolo", "Yolo"),
    "cvat": ("propl_monai.inference.formats.cvat", "Cvat"),
}
NAMES = (PNG, *_CLASSES)


@cache
def find_format(name: str) -> Format:
    """The format of a name of `NAMES` other than "png"."""
    module, kind = _CLASSES[name]
    found: Format = getattr(import_module(module), kind)()
    return found


def find_formats(names: Sequence[str]) -> list[Format]:
    """The formats of these names, without PNG."""
    return [find_format(name) for name in names if name != PNG]


def format_names(texts: str | Sequence[str]) -> list[str]:
    """The names of formats, each once, in the order of `NAMES`; a text may hold several, separated by commas.

    The packages that they need are imported.
    """
    given = [word.lower() for text in ([texts] if isinstance(texts, str) else texts) for word in words(text)]
    for name in given:
        if name not in NAMES:
            raise unknown("--format", "format", name, NAMES)
    if not given:
        raise ProPLError("--format", "names no format", "give one of: " + ", ".join(NAMES))
    names = [name for name in NAMES if name in given]
    for one in find_formats(names):
        one.require()
    return names
