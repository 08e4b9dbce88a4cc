"""Made ventricles whose volume is known: half an ellipsoid, cut flat at the mitral valve, in any direction."""

from __future__ import annotations

import math

import numpy as np

SIZE = 400


def half_ellipse(
    length: float, width: float, degrees: float = 0.0, spacing: float = 0.5
) -> tuple[np.ndarray, np.ndarray]:
    """Masks (ventricle, atrium) of half an ellipsoid's long section, the apex to the right before the turn.

    Args:
        length: from the flat base to the apex, mm.
        width: of the base, mm.
        degrees: of the turn about the middle of the base, which is the middle of the picture.
        spacing: side of a pixel, mm.
    """
    rows, columns = np.indices((SIZE, SIZE)) * spacing - SIZE * spacing / 2 + spacing / 2
    turn = math.radians(degrees)
    along = columns * math.cos(turn) + rows * math.sin(turn)
    across = rows * math.cos(turn) - columns * math.sin(turn)
    ventricle = (along >= 0) & ((along / length) ** 2 + (across / (width / 2)) ** 2 <= 1)
    atrium = (along < 0) & (((along + 15) / 15) ** 2 + (across / (0.45 * width)) ** 2 <= 1)
    return ventricle, atrium


def half_ellipsoid_ml(length: float, width_a: float, width_b: float) -> float:
    """Volume of half an ellipsoid."""
    return 2 / 3 * math.pi * length * width_a / 2 * width_b / 2 / 1000
