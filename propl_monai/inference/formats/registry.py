"""The formats that masks can be written in."""

from __future__ import annotations

from collections.abc import Sequence

from propl_monai.common.options import words
from propl_monai.errors import ProPLError, unknown
from propl_monai.inference.formats.base import Format
from propl_monai.inference.formats.coco import Coco
from propl_monai.inference.formats.cvat import Cvat
from propl_monai.inference.formats.dicom_seg import DicomSeg
from propl_monai.inference.formats.nifti import Nifti
from propl_monai.inference.formats.nrrd import Nrrd
from propl_monai.inference.formats.yolo import Yolo

PNG = "png"  # masks as `prediction.write_predictions` writes them, frame by frame
FORMATS: dict[str, Format] = {one.name: one for one in (Nifti(), Nrrd(), DicomSeg(), Coco(), Yolo(), Cvat())}
NAMES = (PNG, *FORMATS)


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
    for name in names:
        if name != PNG:
            FORMATS[name].require()
    return names
