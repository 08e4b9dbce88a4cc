"""Lengths and areas by hand: rectangles, ellipses, one pixel, nothing; with square and with oblong pixels."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy.special import ellipe
from skimage.measure import perimeter_crofton

from propl_monai.errors import ProPLError
from propl_monai.inference.inputs import InputFile
from propl_monai.inference.known import Scores
from propl_monai.inference.measurements import (
    COLUMNS,
    Measurements,
    circumference,
    csv_lines,
    measure,
    measurement_row,
    to_csv,
)
from propl_monai.inference.prediction import Prediction

HEAD = "fetal head"


def rectangle(height: int, width: int, shape: tuple[int, int] = (40, 50)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[5 : 5 + height, 7 : 7 + width] = True
    return mask


def ellipse(a: float, b: float, degrees: float, spacing: tuple[float, float], shape: tuple[int, int]) -> np.ndarray:
    """Half-axes in the unit of the spacing, the first one turned from the columns' direction; in the middle."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    y, x = (rows - shape[0] / 2 + 0.3) * spacing[0], (columns - shape[1] / 2 - 0.2) * spacing[1]
    turn = math.radians(degrees)
    u, v = x * math.cos(turn) + y * math.sin(turn), y * math.cos(turn) - x * math.sin(turn)
    return (u / a) ** 2 + (v / b) ** 2 <= 1


def test_rectangle_by_hand() -> None:
    """10 × 20 pixels. Farthest apart are the middles of the outer edges of opposite corners: 9 rows, 20 columns."""
    found = measure(rectangle(10, 20))
    assert (found.unit, found.parts, found.touches_border) == ("pixel", 1, False)
    assert found.area == 200
    assert found.longest_axis == pytest.approx(math.hypot(9, 20))
    # Across (9, 20) reach (-0.5, 19) and (9.5, 0): 181 and -190, each over the length of that axis.
    assert found.perpendicular_axis == pytest.approx((181 + 190) / math.hypot(9, 20))
    # 10 lines along rows, 20 along columns, 29 along each diagonal, two crossings each.
    crossings = 2 * 10 + 2 * 20 + 2 * (2 * 29) / math.sqrt(2)
    assert found.perimeter == pytest.approx(0.5 * math.pi / 4 * crossings)
    assert found.head_circumference is None and found.biparietal_diameter is None


def test_oblong_pixels_by_hand() -> None:
    """10 × 20 pixels of 0.5 × 0.25 mm are a square of 5 mm."""
    found = measure(rectangle(10, 20), (0.5, 0.25))
    assert found.unit == "mm" and found.area == pytest.approx(25)
    assert found.longest_axis == pytest.approx(math.hypot(5, 4.75))
    angle, diagonal = math.atan2(0.5, 0.25), math.hypot(0.5, 0.25)
    along = 20 * 0.5 * angle + 40 * 0.25 * (math.pi / 2 - angle)
    across = 2 * 58 * 0.125 / diagonal * math.pi / 4
    assert found.perimeter == pytest.approx(0.5 * (along + across))


def test_one_pixel() -> None:
    found = measure(rectangle(1, 1), (2.0, 2.0), HEAD)
    assert (found.area, found.longest_axis, found.perpendicular_axis) == (4.0, 2.0, 2.0)
    assert found.head_circumference is None, "four points make no ellipse"


def test_empty_mask() -> None:
    assert measure(np.zeros((4, 5), bool), (1, 1), HEAD) == Measurements("mm", 0, False, 0.0)


def test_the_largest_part_counts_and_corners_connect() -> None:
    mask = rectangle(10, 20)
    mask[30:33, 40:43] = True
    found = measure(mask)
    assert found.parts == 2 and found.area == 200 and found.longest_axis == measure(rectangle(10, 20)).longest_axis
    corner = np.eye(3, dtype=bool)
    assert measure(corner).parts == 1 and measure(corner).area == 3


def test_holes_change_the_area_alone() -> None:
    mask = rectangle(10, 20)
    mask[8:11, 10:14] = False
    whole, holed = measure(rectangle(10, 20), None, HEAD), measure(mask, None, HEAD)
    assert holed.area == whole.area - 12
    lengths = ("longest_axis", "perpendicular_axis", "perimeter", "head_circumference")
    assert all(getattr(whole, name) == getattr(holed, name) for name in lengths)


@pytest.mark.parametrize("edge", [np.s_[0, 3], np.s_[-1, 3], np.s_[3, 0], np.s_[3, -1]])
def test_a_part_that_reaches_the_edge_of_the_picture(edge: tuple[int, int]) -> None:
    mask = np.zeros((8, 9), bool)
    mask[edge] = True
    assert measure(mask).touches_border


@pytest.mark.parametrize("degrees", [0, 17, 45, 90, 130])
@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.5, 0.25), (0.3, 0.45)])
def test_ellipses(degrees: float, spacing: tuple[float, float]) -> None:
    """Half-axes of 45 and 30 mm or pixels: around 237.98."""
    shape = (round(110 / spacing[0]), round(110 / spacing[1]))
    found = measure(ellipse(45, 30, degrees, spacing, shape), spacing, HEAD)
    around = circumference(45, 30)
    assert around == pytest.approx(237.98, abs=0.01)
    assert found.area == pytest.approx(math.pi * 45 * 30, rel=0.005)
    assert found.longest_axis == pytest.approx(90, abs=1)
    assert found.perpendicular_axis == pytest.approx(60, abs=1.2)
    assert found.perimeter == pytest.approx(around, rel=0.05)  # four directions are few for an ellipse
    assert found.head_circumference == pytest.approx(around, rel=0.004)
    assert found.biparietal_diameter == pytest.approx(60, abs=0.5)
    assert found.occipitofrontal_diameter == pytest.approx(90, abs=0.5)


def test_circle() -> None:
    found = measure(ellipse(30, 30, 0, (1, 1), (80, 80)), (1.0, 1.0), HEAD)
    assert found.head_circumference == pytest.approx(2 * math.pi * 30, rel=0.004)
    assert found.perimeter == pytest.approx(2 * math.pi * 30, rel=0.01)


def test_an_ellipse_is_fitted_to_heads_alone() -> None:
    mask = ellipse(30, 20, 10, (1, 1), (80, 80))
    assert measure(mask, None, "left atrium").head_circumference is None
    assert measure(mask, None, HEAD).unit == "pixel"


@pytest.mark.parametrize("task", ["FH", "fetal_head", "Fetal Head"])
def test_tasks_by_code_and_slug(task: str) -> None:
    mask = ellipse(30, 20, 10, (1, 1), (80, 90))
    assert measure(mask, (0.5, 0.5), task) == measure(mask, (0.5, 0.5), HEAD) != measure(mask, (0.5, 0.5), "LA")
    with pytest.raises(ProPLError, match="unknown task 'fetal hed'; did you mean 'fetal head'"):
        measure(mask, None, "fetal hed")


@pytest.mark.parametrize("seed", range(4))
def test_perimeter_of_square_pixels_is_that_of_scikit_image(seed: int) -> None:
    mask = ellipse(10 + 3 * seed, 9, 25 * seed, (1, 1), (60, 60))
    assert measure(mask).perimeter == pytest.approx(perimeter_crofton(mask, directions=4))


@pytest.mark.parametrize(("a", "b"), [(3.0, 3.0), (5.0, 4.0), (50.0, 25.0)])
def test_ramanujan_against_the_elliptic_integral(a: float, b: float) -> None:
    assert circumference(a, b) == pytest.approx(4 * a * ellipe(1 - (b / a) ** 2), rel=1e-8)


@pytest.mark.parametrize("spacing", [(0, 1), (1, -1), (float("nan"), 1), (1, float("inf"))])
def test_senseless_spacing(spacing: tuple[float, float]) -> None:
    with pytest.raises(ProPLError, match=r"pixel spacing: .* was given; give height and width of a pixel in mm"):
        measure(rectangle(3, 3), spacing)


def test_what_is_no_mask() -> None:
    with pytest.raises(ProPLError, match=r"mask: uint8 \(3, 3\) was given; give bool"):
        measure(np.zeros((3, 3), np.uint8))


FILE = InputFile(Path("in/\udcff.dcm"), "in/\udcff", "0" * 64, count=3)


def test_a_row() -> None:
    """A withheld mask has its scores and no lengths."""
    mask = np.zeros((20, 30), bool)
    mask[5:10, 5:15] = True
    scores = Scores(known=0.123456, presence=1.0, foreign=False, absent=True)
    one = Prediction("left atrium", mask, np.empty((0, 0), np.float32), None, (0.5, 0.25), scores)
    shown, hidden = (measurement_row(FILE, 2, one, withheld) for withheld in (False, True))
    assert (shown["area"], shown["unit"], shown["frame"], shown["known"]) == (6.25, "mm", 2, 0.1235)
    assert "area" not in hidden and (hidden["absent"], hidden["column_mm"]) == (True, 0.25)
    assert set(hidden) < set(shown) <= set(COLUMNS)


def test_the_file_is_written_line_by_line() -> None:
    """Also with a name that is not UTF-8, a comma, and no rows at all."""
    rows = [{"name": "a,b", "area": 1.5}, {"name": "\udcff"}]
    lines = b"".join(csv_lines(iter(rows))).decode().splitlines()
    assert lines[0] == ",".join(COLUMNS) and lines[1].startswith('"a,b",,') and lines[2].startswith("\\udcff,")
    assert to_csv(rows).decode().splitlines() == lines and to_csv([]).decode().splitlines() == lines[:1]
