"""What a sonographer measures on a mask: lengths and areas in millimetres, in pixels where the spacing is unknown.

All of it is taken on the largest connected part (pixels that touch, diagonally too), its holes filled for all but the area;
`parts` says how many there are. The outline is the middle of each edge between a pixel of the part and one outside.

| name | definition |
|---|---|
| area | pixels of the part times the area of one |
| longest_axis | greatest distance between two points of the outline (maximum Feret diameter) |
| perpendicular_axis | extent of the outline at right angles to the longest axis (calliper width) |
| perimeter | Crofton's formula with lines in four directions, those of the pixel grid and its two diagonals |
| head_circumference | fetal head: circumference of the ellipse fitted to the outline (Ramanujan's second formula) |
| biparietal_diameter | fetal head: short axis of that ellipse, outer edge to outer edge of what was segmented |
| occipitofrontal_diameter | fetal head: long axis of that ellipse |

The ellipse is the direct least-squares fit of Halíř and Flusser (1998). SciPy and scikit-image take long to import, and are
imported when something is measured.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from propl_monai.common.spacing import Spacing, require_spacing
from propl_monai.errors import ProPLError
from propl_monai.inference.prediction import Prediction
from propl_monai.tasks import find

HEAD = "fetal head"


@dataclass(frozen=True)
class Measurements:
    """Lengths in `unit`, areas in its square, None where there is nothing to measure; definitions stand on top.

    Attributes:
        unit: "mm", or "pixel" where the spacing is unknown.
        parts: number of connected parts of the mask; 0 for an empty one.
        touches_border: the part reaches the edge of the picture, beyond which it may go on.
        area and the rest: of the largest part; those of a head are None for other tasks, and where no ellipse fits.
    """

    unit: str
    parts: int
    touches_border: bool
    area: float
    longest_axis: float | None = None
    perpendicular_axis: float | None = None
    perimeter: float | None = None
    head_circumference: float | None = None
    biparietal_diameter: float | None = None
    occipitofrontal_diameter: float | None = None


def measure(mask: np.ndarray, spacing_mm: Spacing | None = None, task: str | None = None) -> Measurements:
    """Measure one mask.

    Args:
        mask: bool (H, W).
        spacing_mm: height and width of a pixel (row, column); None when unknown.
        task: its name, code or slug; decides whether an ellipse is fitted.
    """
    from scipy import ndimage

    if mask.dtype != np.bool_ or mask.ndim != 2:
        raise ProPLError("mask", f"{mask.dtype} {mask.shape} was given", "give bool (H, W)")
    row, column = require_spacing(spacing_mm) or (1.0, 1.0)
    unit, head = "pixel" if spacing_mm is None else "mm", task is not None and find(task).name == HEAD
    part, parts = largest_part(mask)
    if parts == 0:
        return Measurements(unit, 0, False, 0.0)
    border = bool(part[[0, -1]].any() or part[:, [0, -1]].any())
    whole = ndimage.binary_fill_holes(part)
    outline = outline_of(whole) * (row, column)
    longest, across = _axes(outline)
    lengths = (longest, across, _perimeter(whole, row, column))
    area = float(np.count_nonzero(part) * row * column)
    return Measurements(unit, parts, border, area, *lengths, *(_ellipse(outline) if head else ()))


def largest_part(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """The largest connected part of a mask bool (H, W), and the number of parts; the mask itself where it is empty."""
    from scipy import ndimage

    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    sizes = np.bincount(labels.ravel())[1:]
    return (labels == 1 + np.argmax(sizes) if count else mask), count


def outline_of(part: np.ndarray) -> np.ndarray:
    """Points (N, 2) around a part bool (H, W), row and column in pixels; the centre of the first pixel is (0, 0)."""
    padded = np.pad(part, 1)
    between_rows = np.argwhere(padded[1:] != padded[:-1]) - (0.5, 1.0)
    between_columns = np.argwhere(padded[:, 1:] != padded[:, :-1]) - (1.0, 0.5)
    return np.concatenate([between_rows, between_columns])


def _axes(outline: np.ndarray) -> tuple[float, float]:
    """Longest axis, and extent across it."""
    from scipy.spatial import ConvexHull
    from scipy.spatial.distance import pdist, squareform

    corners = outline[ConvexHull(outline).vertices]
    distances = squareform(pdist(corners))
    first, second = np.unravel_index(np.argmax(distances), distances.shape)
    longest = float(distances[first, second])
    direction = (corners[second] - corners[first]) / longest
    across = corners @ (-direction[1], direction[0])
    return longest, float(across.max() - across.min())


def _perimeter(part: np.ndarray, row: float, column: float) -> float:
    """Half the integral of the crossings over all lines (Crofton), by four directions of lines through pixel centres."""
    padded = np.pad(part, 1)
    diagonal, angle = math.hypot(row, column), math.atan2(row, column)
    directions = (  # neighbours along the line, their distance, and the share of the half-circle that it stands for
        (padded[:, 1:] != padded[:, :-1], column, angle),
        (padded[1:] != padded[:-1], row, math.pi / 2 - angle),
        (padded[1:, 1:] != padded[:-1, :-1], diagonal, math.pi / 4),
        (padded[1:, :-1] != padded[:-1, 1:], diagonal, math.pi / 4),
    )
    # Lines of one direction lie as far apart as the area of a pixel divided by the step along them.
    return 0.5 * sum(np.count_nonzero(cut) * row * column / step * share for cut, step, share in directions)


def _ellipse(outline: np.ndarray) -> tuple[float, float, float] | tuple[None, None, None]:
    """Circumference, short and long axis of the fitted ellipse."""
    from skimage.measure import EllipseModel

    with np.errstate(all="ignore"):  # the direction of a circle is 0 / 0
        model = EllipseModel.from_estimate(outline)
    if not model or not np.isfinite(model.axis_lengths).all() or min(model.axis_lengths) <= 0:
        return None, None, None
    long, short = sorted((float(length) for length in model.axis_lengths), reverse=True)
    return circumference(long, short), 2 * short, 2 * long


def circumference(a: float, b: float) -> float:
    """Circumference of an ellipse with half-axes a and b by Ramanujan's second formula (1914).

    Its relative error is below 1e-8 where b is more than half of a, as in every head.
    """
    h = ((a - b) / (a + b)) ** 2
    return math.pi * (a + b) * (1 + 3 * h / (10 + math.sqrt(4 - 3 * h)))


MEASUREMENTS = "measurements.csv"
SCORES = ("presence", "absent", "known", "foreign")
DOUBT = "relative_uncertainty"
COLUMNS = ("name", "file", "frame", "task", "row_mm", "column_mm", *Measurements.__dataclass_fields__, *SCORES, DOUBT)


def measurement_row(file: Any, number: int, prediction: Prediction, withheld: bool = False) -> dict[str, Any]:
    """A row of measurements.csv: the mask of one task on the frame of a number from 1."""
    row, column = prediction.spacing_mm or (None, None)
    frame = number if file.count > 1 else None
    place = {"name": file.name, "file": file.path.name, "frame": frame, "task": prediction.task}
    found = {} if withheld else asdict(measure(prediction.mask, prediction.spacing_mm, prediction.task))
    found |= asdict(prediction.scores) if prediction.scores else {}
    found |= {DOUBT: prediction.relative_uncertainty}
    rounded = {key: round(value, 4) if isinstance(value, float) else value for key, value in found.items()}
    return {**place, "row_mm": row, "column_mm": column, **rounded}


def csv_lines(rows: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    """The lines of measurements.csv, header first, one after the other."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(row)
        yield _taken(stream)
    yield _taken(stream)


def _taken(stream: io.StringIO) -> bytes:
    """What was written to a stream, which is emptied."""
    text = stream.getvalue()
    stream.seek(0)
    stream.truncate()
    return text.encode("utf-8", "backslashreplace")  # file names may hold what is not UTF-8


def to_csv(rows: Iterable[dict[str, Any]]) -> bytes:
    """The content of measurements.csv."""
    return b"".join(csv_lines(rows))
