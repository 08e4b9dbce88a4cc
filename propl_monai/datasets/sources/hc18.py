"""HC18: the fetal head, as the sonographer's ellipse around it.

The original layout is `training_set/` with `010_HC.png`, `010_HC_Annotation.png` and, where an examination gave several
pictures, `010_2HC.png` and so on; `test_set/`, whose annotations the organisers keep; and for each a CSV of pixel sizes.

An annotation is the outline of an ellipse, a line of about 2.5 pixels, and its inside is filled. The line belongs to the
mask, as in all published work with the set: the published circumference is that of the line's middle, about 1.2 pixels
further in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from scipy.ndimage import binary_fill_holes

from propl_monai.common.files import stem
from propl_monai.datasets.sources.base import Exclusion, Reading, Record, Source
from propl_monai.datasets.sources.listing import find_home, named_pictures, unpacked
from propl_monai.datasets.sources.table import positive_number, read_table
from propl_monai.errors import ProPLError
from propl_monai.images import Picture, read_image, read_mask

TASK = "fetal head"
TRAINING, TEST = "training_set", "test_set"
TRAINING_CSV, TEST_CSV = "training_set_pixel_size_and_HC.csv", "test_set_pixel_size.csv"
FILENAME, PIXEL_SIZE = "filename", "pixel size(mm)"
ANNOTATION = "_Annotation"
SOLID = 0.5  # share of its bounding box that a filled ellipse exceeds (it is near 0.75) and an outline does not reach
FURTHEST_OFF = 3.0  # pixels; in the originals no point of a line is further than 1.5 from its ellipse
_PICTURE = re.compile(r"(?P<number>\d+)_\d*HC")


def read_hc18(folder: Path) -> Reading:
    """Read HC18 in its original layout.

    Pictures of the publishers' test set have no mask and are named `test_000_HC`, as their numbers start again. They are
    given no split: without masks they can serve only as unlabelled pictures.

    Args:
        folder: the folder that holds `training_set`, that folder itself, or a folder around both.
    """
    home = find_home(folder, (TRAINING,), "HC18")
    training = unpacked(home / TRAINING)
    images, annotations, excluded = named_pictures(
        training, _PICTURE.fullmatch, lambda name: name.removesuffix(ANNOTATION) if name.endswith(ANNOTATION) else None
    )
    sizes = _pixel_sizes(home / TRAINING_CSV)
    records = [
        _record(name, path, sizes.get(name), annotations[name][0])
        for name, path in images.items()
        if name in annotations
    ]
    excluded += [Exclusion(name, "has no annotation") for name in images if name not in annotations]
    tests: dict[str, Path] = {}
    test_sizes: Mapping[str, float] = {}
    if (home / TEST).is_dir():
        tests, _, unexpected = named_pictures(unpacked(home / TEST), _PICTURE.fullmatch)
        excluded += unexpected
        test_sizes = _pixel_sizes(home / TEST_CSV)
        records += [_record(name, path, test_sizes.get(name), None, "test_") for name, path in tests.items()]
    found = {
        "training pictures": len(images),
        "annotations": len(annotations),
        "test pictures": len(tests),
        "pictures with a pixel size": len(images.keys() & sizes.keys()) + len(tests.keys() & test_sizes.keys()),
    }
    return Reading.of([*records, *excluded], found)


def _record(name: str, path: Path, pixel_size: float | None, annotation: Path | None, prefix: str = "") -> Record:
    group = prefix + name.partition("_")[0]
    mask = None if annotation is None else partial(read_head, annotation)
    return Record(prefix + name, group, partial(read_with_spacing, path, pixel_size), {TASK: mask})


def read_with_spacing(path: Path, pixel_size: float | None) -> Picture:
    """The picture, with the side of its square pixels in mm where it is known."""
    return replace(read_image(path), spacing_mm=None if pixel_size is None else (pixel_size, pixel_size))


def read_head(path: Path) -> np.ndarray:
    """The head inside an annotated outline, the line itself included.

    A line that does not close, as that of 787_HC, which leaves the picture, is continued by the ellipse of least squares
    through it. An annotation that is filled already, as in some copies, is taken as it is.

    Returns:
        bool `(H, W)`.
    """
    drawn = read_mask(path)
    if not drawn.any():
        raise ProPLError(path, "is an annotation without a line", "download it again")
    filled = binary_fill_holes(drawn)
    rows, columns = (np.ptp(indices) + 1 for indices in np.nonzero(filled))
    if np.count_nonzero(filled) > SOLID * rows * columns:
        return filled
    return drawn | _ellipse_through(path, drawn)


def _ellipse_through(path: Path, line: np.ndarray) -> np.ndarray:
    """The filled ellipse of least squares, bool `(H, W)`."""
    from skimage.draw import ellipse  # here: needed for one picture of 999, and slow to import
    from skimage.measure import EllipseModel

    points = np.argwhere(line).astype(float)
    model = EllipseModel.from_estimate(points) if len(points) >= 5 else None  # an ellipse has five parameters
    if not model or np.abs(model.residuals(points)).max() > FURTHEST_OFF:
        raise ProPLError(path, "is neither a closed outline nor a part of an ellipse", "look at it, and draw it again")
    (row, column), (first, second) = model.center, model.axis_lengths
    inside = np.zeros(line.shape, bool)
    inside[ellipse(row, column, first, second, line.shape, model.theta)] = True
    return inside


def _pixel_sizes(path: Path) -> dict[str, float]:
    """Side of a pixel in mm by name of the picture; nothing when there is no CSV."""
    if not path.exists():
        return {}
    cure = "take the file of the download"
    sizes: dict[str, float] = {}
    for where, row in read_table(path, (FILENAME, PIXEL_SIZE), cure):
        size = positive_number(row[PIXEL_SIZE])
        if size is None:
            raise ProPLError(where, f"pixel size '{row[PIXEL_SIZE]}' is not a positive number", cure)
        sizes[stem(row[FILENAME])] = size
    return sizes


SOURCE = Source(
    name="HC18",
    title="Fetal heads in the standard plane of the head circumference (Nijmegen, 551 women)",
    tasks=(TASK,),
    group="the leading number: one examination. One woman may have several; who is who is not published",
    licence="CC BY 4.0 (Zenodo 10.5281/zenodo.1327317), according to the cards of copies",
    citation="van den Heuvel TLA, de Bruijn D, de Korte CL, van Ginneken B. Automated measurement of fetal head "
    "circumference using 2D ultrasound images. PLoS ONE 13(8):e0200412, 2018",
    holds={"training pictures": 999, "annotations": 999, "test pictures": 335, "pictures with a pixel size": 1334},
    read=read_hc18,
)
