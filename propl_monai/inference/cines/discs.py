"""The left ventricle of one view as a stack of discs: its long axis, and a diameter for each disc.

Definitions are those of Lang et al., "Recommendations for cardiac chamber quantification by echocardiography in adults", J Am
Soc Echocardiogr 2015;28:1-39 (section 1 and table 1): the length of the ventricle goes from the middle of the mitral annulus
to the point of the endocardial outline that is most distant from it, the apex; discs stand at right angles to it. What the
recommendations leave to the hand of the reader, the annulus, is found from the masks:

* with a mask of the left atrium: the two points of the ventricle's outline beside the atrium that lie farthest apart are the
  hinges of the valve, and the middle between them is that of the annulus;
* without one, or where it does not reach the ventricle: the ventricle is narrow at the apex and wide at the base, so the base
  is the wider end of the mask's principal axis, and the middle of the annulus is where that axis leaves the mask.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from propl_monai.common.spacing import Spacing, require_spacing
from propl_monai.errors import ProPLError
from propl_monai.inference.measurements import largest_part, outline_of

DISCS = 20  # of the recommendations
FINE = 4  # each pixel counts as FINE × FINE points, so that oblique discs of a small mask are not ragged
NEAR_ATRIUM = (
    0.1  # of the ventricle's size (the root of its area): how far the atrium may be off, and the valve may be thick
)
END = 0.2  # share of the principal axis whose width tells base from apex


@dataclass(frozen=True, eq=False)
class Ventricle:
    """A left ventricle in one view; lengths in mm, or in pixels where the spacing is unknown.

    Attributes:
        length: from the middle of the mitral annulus to the apex.
        diameters: float64 (DISCS,), from the base to the apex; each is the mean width of the mask over the disc's height.
        base, apex: (row, column) in pixels, the ends of the long axis; the centre of the first pixel is (0, 0).
        area: of the largest part of the mask with its holes filled, in mm² or pixels.
        known_spacing: whether lengths are in mm.
        touches_border: the mask reaches the edge of the picture, beyond which the ventricle may go on.
        by_atrium: the annulus was found beside the atrium, and not from the shape alone.
    """

    length: float
    diameters: np.ndarray
    base: tuple[float, float]
    apex: tuple[float, float]
    area: float
    known_spacing: bool
    touches_border: bool
    by_atrium: bool


def cut(mask: np.ndarray, spacing_mm: Spacing | None = None, atrium: np.ndarray | None = None) -> Ventricle:
    """Find the long axis of a left ventricle, and cut it into discs.

    Args:
        mask: bool (H, W), the cavity of the ventricle; its largest part counts, holes filled.
        spacing_mm: height and width of a pixel (row, column); None when unknown: pixels are then taken for squares of 1.
        atrium: bool (H, W), the left atrium of the same picture; None when there is none.
    """
    from scipy import ndimage

    if mask.dtype != np.bool_ or mask.ndim != 2:
        raise ProPLError("mask", f"{mask.dtype} {mask.shape} was given", "give bool (H, W)")
    scale = np.array(require_spacing(spacing_mm) or (1.0, 1.0))
    part, count = largest_part(mask)
    if not count:
        raise ProPLError("left ventricle", "its mask is empty", "give a frame that shows the left ventricle")
    part = ndimage.binary_fill_holes(part)
    outline = outline_of(part) * scale
    points = _fine_points(part) * scale
    base = None if atrium is None else _base_beside(atrium, outline, scale)
    middle = _base_by_shape(points) if base is None else base
    apex = outline[np.argmax(((outline - middle) ** 2).sum(axis=1))]
    length = float(np.linalg.norm(apex - middle))
    along = (points - middle) @ ((apex - middle) / length)
    inside = along[(along >= 0) & (along < length)]
    counts = np.bincount((inside * (DISCS / length)).astype(np.intp).clip(0, DISCS - 1), minlength=DISCS)
    point = float(scale.prod()) / FINE**2
    diameters = counts * point / (length / DISCS)
    border = bool(part[[0, -1]].any() or part[:, [0, -1]].any())
    (base_row, base_column), (apex_row, apex_column) = (middle / scale).tolist(), (apex / scale).tolist()
    ends = (base_row, base_column), (apex_row, apex_column)
    return Ventricle(length, diameters, *ends, len(points) * point, spacing_mm is not None, border, base is not None)


def _fine_points(part: np.ndarray) -> np.ndarray:
    """(N, 2): FINE × FINE points in each pixel of a part, in pixels."""
    steps = (np.arange(FINE) + 0.5) / FINE - 0.5
    offsets = np.stack(np.meshgrid(steps, steps, indexing="ij"), axis=-1).reshape(1, -1, 2)
    return (np.argwhere(part)[:, None] + offsets).reshape(-1, 2)


def _base_beside(atrium: np.ndarray, outline: np.ndarray, scale: np.ndarray) -> np.ndarray | None:
    """The middle between the hinges of the mitral valve; None where no atrium is near.

    Args:
        atrium: bool (H, W).
        outline: of the ventricle, points (N, 2), scaled.
        scale: height and width of a pixel.
    """
    from scipy.spatial import KDTree
    from scipy.spatial.distance import pdist, squareform

    part, count = largest_part(atrium)
    if not count:
        return None
    far, _ = KDTree(outline_of(part) * scale).query(outline)
    low, high = outline.min(axis=0), outline.max(axis=0)
    near = NEAR_ATRIUM * float(np.sqrt((high - low).prod()))
    if far.min() > near:
        return None
    beside = outline[far <= far.min() + near / 2]
    distances = squareform(pdist(beside))
    first, second = np.unravel_index(np.argmax(distances), distances.shape)
    middle: np.ndarray = (beside[first] + beside[second]) / 2
    return middle


def _base_by_shape(points: np.ndarray) -> np.ndarray:
    """The point where the principal axis of a part leaves its wider end.

    Args:
        points: (N, 2) that fill the part, scaled.
    """
    centre = points.mean(axis=0)
    _, directions = np.linalg.eigh(np.cov((points - centre).T))
    direction = directions[:, 1]
    along = (points - centre) @ direction
    low, high = float(along.min()), float(along.max())
    margin = END * (high - low)
    if np.count_nonzero(along < low + margin) > np.count_nonzero(along > high - margin):
        direction, along, high = -direction, -along, -low
    across = np.abs((points - centre) @ (-direction[1], direction[0]))
    on_axis = along[across <= np.quantile(across, 0.05)]
    middle: np.ndarray = centre + float(on_axis.max() if len(on_axis) else high) * direction
    return middle
