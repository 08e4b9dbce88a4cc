"""Where the pixels of a NIfTI or MetaImage lie in space, so that masks can be written to the same place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from propl_monai.common.spacing import Spacing


@dataclass(frozen=True, eq=False)
class Geometry:
    """The axes of a file and their place.

    Attributes:
        shape: lengths of the axes in the file: x, y and what follows.
        affine: float64 (4, 4), from (column, row, frame) to millimetres, x to the patient's left, y to the back, z to the
            head (LPS, as in DICOM and ITK); None where the file states none.
    """

    shape: tuple[int, ...]
    affine: np.ndarray | None = None


def placed(geometry: Geometry | None, spacing_mm: Spacing | None) -> np.ndarray:
    """The affine (see `Geometry`) with pixels of a given size.

    Without an affine: what ITK assumes of a picture without one. The first pixel lies at the origin, columns go to the left,
    rows to the back; frames follow each other at 1 mm.

    Args:
        geometry: of the file; None for a file of no geometry, such as a PNG.
        spacing_mm: height and width of a pixel; None keeps those of the affine, which are 1 where there is none.
    """
    stated = geometry is not None and geometry.affine is not None
    affine = np.eye(4) if geometry is None or geometry.affine is None else geometry.affine.copy()
    if spacing_mm is not None:
        lengths = np.linalg.norm(affine[:3, :2], axis=0) if stated else np.ones(2)
        affine[:3, :2] *= np.array(spacing_mm[::-1]) / lengths
    return affine
