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


def stated_spacing(row: float, column: float, mm_per_unit: float | None = None) -> tuple[Spacing | None, str]:
    """The spacing that a file states, in mm, and a note for the user where it is doubtful or unknown.

    Args:
        row, column: height and width of a pixel as stored.
        mm_per_unit: None for a file that names no unit: mm, but 1 × 1 is then what programs write that do not know it.
    """
    scale = 1.0 if mm_per_unit is None else mm_per_unit
    if not is_spacing((row * scale, column * scale)):
        return None, f"its pixel size of {row:g} × {column:g} is not two positive numbers, and counts as unknown"
    if (row, column) != (1, 1):
        return (row * scale, column * scale), ""
    if mm_per_unit is None:
        return None, "its pixel size of 1 × 1 is the default of programs that do not know it, and counts as unknown"
    return (
        scale,
        scale,
    ), f"its pixel size of {scale:g} × {scale:g} mm may be the default of a program that did not know it"


def require_spacing(spacing_mm: Sequence[float] | None, where: object = "pixel spacing") -> Spacing | None:
    """Check a spacing that a user gave; None, for an unknown one, passes."""
    if spacing_mm is None:
        return None
    values = tuple(float(length) for length in spacing_mm)
    if not is_spacing(values):
        raise ProPLError(where, f"{spacing_mm} was given", "give height and width of a pixel in mm")
    return values[0], values[1]
