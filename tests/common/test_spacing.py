"""The one rule for pixel sizes: what passes, what counts as unknown, and what is refused."""

from __future__ import annotations

import math

import pytest

from propl_monai.common.spacing import is_spacing, positive, require_spacing, stated_spacing
from propl_monai.errors import ProPLError

BAD = [(0.0, 1.0), (1.0, -1.0), (math.nan, 1.0), (1.0, math.inf), (1.0,), (1.0, 1.0, 1.0), (True, 1.0), ("1", "1"), 1.0]


@pytest.mark.parametrize("value", BAD)
def test_what_is_no_spacing(value: object) -> None:
    assert not is_spacing(value)


def test_two_positive_numbers_are_a_spacing() -> None:
    assert is_spacing((1, 0.25)) and not is_spacing([1, 0.25])
    assert stated_spacing(0.5, 0.25) == ((0.5, 0.25), "") and stated_spacing(5, 1, 0.5) == ((2.5, 0.5), "")
    for row, column in ((0.0, 0.25), (0.5, math.nan)):
        assert stated_spacing(row, column) == (
            None,
            f"its pixel size of {row:g} × {column:g} is not two positive numbers, and counts as unknown",
        )


def test_a_default_of_one_is_no_spacing() -> None:
    spacing, note = stated_spacing(1.0, 1.0)
    assert spacing is None and "default" in note and "counts as unknown" in note
    spacing, note = stated_spacing(1.0, 1.0, 1.0)
    assert spacing == (1.0, 1.0) and "1 × 1 mm may be the default" in note
    assert stated_spacing(1.0, 1.5) == ((1.0, 1.5), "")


def test_a_given_spacing_becomes_two_floats_or_is_refused() -> None:
    assert require_spacing(None) is None and require_spacing([1, 2]) == (1.0, 2.0)
    for value in ((1.0, 0.0), (1.0,), (math.inf, 1.0)):
        with pytest.raises(ProPLError, match=r"case 7: .* was given; give height and width of a pixel in mm"):
            require_spacing(value, "case 7")


def test_lengths_and_durations_are_above_zero() -> None:
    assert [positive(number) for number in (0.04, 0.0, -1.0, math.nan, math.inf)] == [0.04, None, None, None, None]
