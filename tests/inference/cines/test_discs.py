"""The long axis and the discs of a ventricle."""

from __future__ import annotations

import numpy as np
import pytest
from made_hearts import SIZE, half_ellipse

from propl_monai.errors import ProPLError
from propl_monai.inference.cines.discs import DISCS, cut

DIRECTIONS = (0, 37, 90, 200, 315)


@pytest.mark.parametrize("degrees", DIRECTIONS)
@pytest.mark.parametrize("with_atrium", [True, False])
def test_the_long_axis_goes_from_the_middle_of_the_flat_base_to_the_apex(degrees: int, with_atrium: bool) -> None:
    mask, atrium = half_ellipse(85, 45, degrees)
    found = cut(mask, (0.5, 0.5), atrium if with_atrium else None)
    assert found.by_atrium is with_atrium
    assert found.length == pytest.approx(85, abs=2)
    assert found.base == pytest.approx(((SIZE - 1) / 2, (SIZE - 1) / 2), abs=4)
    turn = np.deg2rad(degrees)
    apex = (SIZE - 1) / 2 + 170 * np.array([np.sin(turn), np.cos(turn)])
    assert found.apex == pytest.approx(tuple(apex), abs=5)


def test_discs_are_those_of_the_ellipse() -> None:
    mask, atrium = half_ellipse(80, 50, 30)
    found = cut(mask, (0.5, 0.5), atrium)
    heights = (np.arange(DISCS) + 0.5) / DISCS
    assert found.diameters == pytest.approx(50 * np.sqrt(1 - heights**2), abs=2)
    assert found.area == pytest.approx(np.pi / 4 * 80 * 50, rel=0.01)


def test_the_atrium_says_where_the_base_is_even_where_it_is_the_narrow_end() -> None:
    mask, atrium = half_ellipse(80, 50)
    middle = SIZE // 2
    far = cut(mask, None, np.roll(atrium, -60, axis=1))
    assert not far.by_atrium and abs(far.base[1] - middle) < 4  # too far off, so shape decides
    at_apex = np.zeros_like(mask)
    at_apex[middle - 15 : middle + 15, middle + 162 :] = True
    found = cut(mask, None, at_apex)
    assert found.by_atrium and found.base[1] > middle + 145 and found.apex[1] < middle + 1


def test_oblong_pixels_and_unknown_ones() -> None:
    mask, atrium = half_ellipse(80, 50, 30)
    square = cut(mask, (0.5, 0.5), atrium)
    oblong = cut(mask[:, ::2], (0.5, 1.0), atrium[:, ::2])
    assert oblong.length == pytest.approx(square.length, rel=0.02)
    assert oblong.diameters == pytest.approx(square.diameters, abs=2)
    pixels = cut(mask, None, atrium)
    assert not pixels.known_spacing and pixels.length == pytest.approx(2 * square.length)


def test_small_parts_and_holes_do_not_count_and_the_edge_is_told() -> None:
    mask, atrium = half_ellipse(80, 50)
    spotted = mask.copy()
    spotted[5:9, 5:9] = True
    spotted[198:202, 260:264] = False
    assert cut(spotted, None, atrium).length == cut(mask, None, atrium).length
    assert cut(spotted, None, atrium).diameters == pytest.approx(cut(mask, None, atrium).diameters)
    assert not cut(mask, None, atrium).touches_border
    assert cut(mask[:, :300], None, atrium[:, :300]).touches_border


def test_what_is_no_ventricle_is_refused() -> None:
    with pytest.raises(ProPLError, match="its mask is empty"):
        cut(np.zeros((9, 9), bool))
    with pytest.raises(ProPLError, match="give bool"):
        cut(np.zeros((9, 9), np.uint8))
    single = np.zeros((9, 9), bool)
    single[4, 4] = True
    assert cut(single).length > 0
