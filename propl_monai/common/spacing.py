"""The size of a pixel in mm: one rule for files, tables and options."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from propl_monai.errors import ProPLError

Spacing = tuple[float, float]  # height and width of a pixel (row, column), in mm


def is_spacing(value: object) -> bool:
    """Whether a value is a tuple of two positive finite numbers."""
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and all(isinstance(length, int | float) and not isinstance(length, bool) for length in value)
        and all(0 < length <= sys.float_info.max for length in value)
    )


def positive(number: float) -> float | None:
    """The number, or None where it is not finite and above 0, as no length or duration is."""
    return number if 0 < number <= sys.float_info.max else None


def spacing_or_none(row: float, column: float) -> Spacing | None:
    """The spacing that a file holds; None where it makes no sense, as zeros and NaN do not."""
    return (row, column) if is_spacing((row, column)) else None


def require_spacing(spacing_mm: Sequence[float] | None, where: object = "pixel spacing") -> Spacing | None:
    """Check a spacing that a user gave; None, for an unknown one, passes."""
    if spacing_mm is None:
        return None
    values = tuple(float(length) for length in spacing_mm)
    if not is_spacing(values):
        raise ProPLError(where, f"{spacing_mm} was given", "give height and width of a pixel in mm")
    return values[0], values[1]
