"""NIfTI, one file of 0 and 1 for each task, with the axes and the place of the picture.

Masks of several tasks may overlap, which one label map cannot hold; so each has its file. Of a NIfTI the shape and the affine
are those of the picture. Of other files the axes are (x, y) or (x, y, frame), and the affine is that of the file where it has
one (MetaImage); else both codes are 0, which readers take for "unknown": ITK then places the file where it places a PNG.
"""

from __future__ import annotations

import gzip

import nibabel
import numpy as np

from propl_monai.inference.formats.base import Format
from propl_monai.inference.formats.masks import Masks

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_SCANNER = 1  # code of an affine in the space of the scanner


class Nifti(Format):
    """`NAME_<task>.nii.gz`."""

    name = "nifti"

    def files(self, masks: Masks) -> dict[str, bytes]:
        """See the module."""
        masks.require_room()
        written = {}
        for index, task in enumerate(masks.tasks):
            frames = [masks.stored(frame[index]) for frame in masks]
            values = np.stack(frames, axis=-1, dtype=np.uint8, casting="unsafe")
            written[f"{masks.name}_{task.slug}.nii.gz"] = _encoded(masks, values)
        return written


def _encoded(masks: Masks, values: np.ndarray) -> bytes:
    """A file of values (x, y, frame)."""
    stated = masks.geometry is not None and masks.geometry.affine is not None
    if masks.geometry is not None:
        values = values.reshape(masks.geometry.shape)
    elif masks.count == 1:
        values = values[..., 0]
    affine = masks.stored_affine()
    image = nibabel.Nifti1Image(values, _LPS_TO_RAS @ affine if stated else None)
    lengths = [float(length) for length in np.linalg.norm(affine[:3, :3], axis=0)]
    zooms = [*lengths, masks.seconds_per_frame or 1.0, *[1.0] * values.ndim]
    image.header.set_zooms(zooms[: values.ndim])
    unit = "mm" if masks.spacing_mm is not None else "unknown"
    image.header.set_xyzt_units(unit, "sec" if masks.seconds_per_frame and values.ndim > 3 else "unknown")
    if stated:
        image.set_sform(_LPS_TO_RAS @ affine, _SCANNER)
        image.set_qform(_LPS_TO_RAS @ affine, _SCANNER)
    return gzip.compress(image.to_bytes(), compresslevel=6, mtime=0)
