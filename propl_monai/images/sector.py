"""The sector of a scan, a fan or a rectangle on a dark ground: found, cut out, and the text around it blanked.

The ground is the grey level of the darkest of the picture's four edges. Where enough pixels of a neighbourhood are brighter,
there is scan; letters, rulers and logos make small islands, which do not count. The sector is the convex hull of the islands
that are left: of one, or of two or more where views stand side by side. A strip beside it that is not of one grey level but
speckled is dark tissue, and belongs to the sector. A picture without a dark edge, or without such an island, has none.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from propl_monai.images.picture import to_grey

SMALLEST = 32  # pixels a side; below, there is nothing to find
DARKEST = 64  # of 255: an edge brighter than this is no ground
ABOVE = 8  # grey levels above the ground, more than what JPEG leaves around a sector
# Of a border: grey levels, and the share of its pixels that are so near to its median; the rest may be letters.
FLAT, FLAT_SHARE = 2, 0.75
WINDOW, SHARE = 0.04, 0.35  # neighbourhood, as a share of the shorter side, and the share of brighter pixels in it
VIEW = 0.04  # of the area of the largest island: a smaller one is text, a larger one a view, or behind a shadow
LEAST_AREA, LEAST_FILL = 0.1, 0.5  # of the picture, and of the hull, that the islands cover
MARGIN = 2  # pixels around the hull
WORKING = 256  # pixels of the longer side: larger pictures are looked at in steps of several pixels

Box = tuple[int, int, int, int]  # first row, first column, and those behind the last


@dataclass(frozen=True, eq=False)
class Sector:
    """Where the scan is.

    Attributes:
        inside: bool (H, W), the sector.
        box: its bounding box; whole where nothing would be cut.
    """

    inside: np.ndarray
    box: Box

    @property
    def cuts(self) -> bool:
        """Whether the box is smaller than the picture."""
        return self.box != whole(self.inside)


def whole(pixels: np.ndarray) -> Box:
    """The box of a whole picture (H, W) or (H, W, 3)."""
    return 0, 0, pixels.shape[0], pixels.shape[1]


def find_sector(pixels: np.ndarray) -> Sector | None:
    """The sector of a picture; None where none is found, as in one that is all black, all white, tiny, or has no dark edge.

    Args:
        pixels: uint8 (H, W) or (H, W, 3).
    """
    from scipy.ndimage import binary_dilation, label, uniform_filter
    from skimage.morphology import convex_hull_image

    grey = to_grey(pixels)
    height, width = grey.shape
    if min(height, width) < SMALLEST:
        return None
    step = max(1, -(-max(height, width) // WORKING))
    small = _shrunk(grey, step)
    ground = min(float(np.median(edge)) for edge in (small[0], small[-1], small[:, 0], small[:, -1]))
    if ground > DARKEST:
        return None
    bright = small > ground + ABOVE
    window = 2 * round(WINDOW * min(small.shape) / 2) + 1
    dense = uniform_filter(bright.astype(np.float32), window, mode="constant") > SHARE
    islands, count = label(dense, structure=np.ones((3, 3)))
    if not count:
        return None
    sizes = np.bincount(islands.ravel())
    sizes[0] = 0
    views = np.isin(islands, np.flatnonzero(sizes >= VIEW * sizes.max()))
    scan = bright & binary_dilation(views, iterations=window // 2)
    if views.mean() < LEAST_AREA or not scan.any():
        return None
    hull = convex_hull_image(scan)
    if np.count_nonzero(views & hull) < LEAST_FILL * np.count_nonzero(hull):
        return None
    inside = binary_dilation(hull, iterations=max(1, MARGIN // step))
    inside |= _dark_tissue(grey[::step, ::step], hull)
    inside = np.repeat(np.repeat(inside, step, axis=0), step, axis=1)[:height, :width]
    return Sector(inside, _box_of(inside))


def sector_of_frames(frames: Iterable[np.ndarray]) -> Sector | None:
    """The sector of a cine, from the brightest grey level of each pixel, so that all frames are cut alike.

    Args:
        frames: uint8 (H, W) or (H, W, 3), of one size; read one after the other.
    """
    return find_sector(_brightest(frames))


def _brightest(frames: Iterable[np.ndarray]) -> np.ndarray:
    return reduce(np.maximum, map(to_grey, frames))


def crop_box(pixels: np.ndarray) -> Box:
    """The box that a picture is cut to: that of its sector, or the whole picture where none is found."""
    return box_of_frames([pixels])


def box_of_frames(frames: Iterable[np.ndarray]) -> Box:
    """The box that all frames of a cine are cut to, see `sector_of_frames`."""
    brightest = _brightest(frames)
    found = find_sector(brightest)
    return found.box if found else whole(brightest)


def cropped(pixels: np.ndarray, box: Box) -> np.ndarray:
    """The part of a picture (H, W) or (H, W, 3) in a box."""
    top, left, bottom, right = box
    return pixels[top:bottom, left:right]


def in_place(maps: Any, box: Box, size: tuple[int, int]) -> Any:
    """Maps (..., h, w) of a box in a picture (H, W), 0 outside: the inverse of `cropped`. Arrays, or tensors on the CPU."""
    top, left, bottom, right = box
    if (bottom - top, right - left) == tuple(size):
        return maps
    values = np.asarray(maps)
    placed = np.zeros((*values.shape[:-2], *size), values.dtype)
    placed[..., top:bottom, left:right] = values
    return placed


def blanked(pixels: np.ndarray, sector: Sector) -> np.ndarray:
    """A picture (H, W) or (H, W, 3) that is black outside the sector."""
    inside = sector.inside if pixels.ndim == 2 else sector.inside[..., None]
    return pixels * inside


def _box_of(inside: np.ndarray) -> Box:
    rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def _dark_tissue(grey: np.ndarray, hull: np.ndarray) -> np.ndarray:
    """Bool (H, W): strips between the hull's box and an edge of the picture that are not of one grey level."""
    top, left, bottom, right = _box_of(hull)
    found = np.zeros_like(hull)
    across, down = slice(left, right), slice(top, bottom)
    for strip in np.s_[:top, across], np.s_[bottom:, across], np.s_[down, :left], np.s_[down, right:]:
        values = grey[strip].astype(np.int16)
        if values.size and np.mean(np.abs(values - np.median(values)) <= FLAT) < FLAT_SHARE:
            found[strip] = True
    return found


def _shrunk(grey: np.ndarray, step: int) -> np.ndarray:
    """The brightest pixel of each block of step × step, so that thin edges of a sector are kept."""
    if step == 1:
        return grey
    rows, columns = (-(-side // step) * step for side in grey.shape)
    padded = np.pad(grey, ((0, rows - grey.shape[0]), (0, columns - grey.shape[1])), mode="edge")
    blocks: np.ndarray = padded.reshape(rows // step, step, columns // step, step).max(axis=(1, 3))
    return blocks
