"""End-diastole and end-systole, found in the area of the left ventricle from frame to frame.

Lang et al., J Am Soc Echocardiogr 2015;28:1-39, take for end-diastole the frame in which the left ventricle is largest, and
for end-systole that in which it is smallest, where the valves do not tell. Here: the area, without single outliers and
smoothed, has a minimum in each systole, by scipy's `find_peaks`; the largest area before it, back to the last systole, is its
end-diastole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from propl_monai.errors import ProPLError

SMOOTH = 1.0  # standard deviation of the Gaussian over the curve, in frames
LEAST_DEPTH = 0.4  # of the range of the curve: by so much a systole stands out from what lies around it
LEAST_CHANGE = 0.05  # of the area at end-diastole: less is no beat


@dataclass(frozen=True)
class Beat:
    """The frames of a beat, counted from 1.

    Attributes:
        diastole, systole: end-diastole, and the end-systole behind it.
        change: share of the area at end-diastole that is lost until end-systole, 0 to 1.
    """

    diastole: int
    systole: int
    change: float


def find_beats(areas: Sequence[float | None]) -> list[Beat]:
    """All beats of a cine in order; empty where the area does not change as that of a beating heart.

    A cine may begin and end anywhere. A beat that it cuts (end-diastole is the first frame, or end-systole the last one)
    counts only where there is no whole one, as in a cine from end-diastole to end-systole.

    Args:
        areas: of the left ventricle in each frame, in any unit; None, NaN or 0 where it was not found.
    """
    curve = _smooth(areas)
    if curve is None:
        return []
    reach = len(curve) - 1
    from scipy.signal import find_peaks

    extended = np.pad(curve, reach, mode="reflect")  # a fall up to the last frame is a minimum, too
    depth = LEAST_DEPTH * float(np.ptp(curve))
    minima = find_peaks(-extended, prominence=max(depth, np.finfo(float).tiny))[0] - reach
    beats: list[Beat] = []
    start = 0
    for systole in minima[(minima > 0) & (minima <= reach)].tolist():
        diastole = start + int(np.argmax(curve[start:systole]))
        change = float((curve[diastole] - curve[systole]) / curve[diastole])
        if change >= LEAST_CHANGE:
            beats.append(Beat(diastole + 1, systole + 1, change))
        start = systole
    whole = [beat for beat in beats if beat.diastole > 1 and beat.systole < len(curve)]
    return whole or beats


def middle_beat(beats: Sequence[Beat], where: object = "cine") -> Beat:
    """The beat whose change of area is the median of all; of an even number, the one below the middle."""
    if not beats:
        fact = "shows no beat: the area of the left ventricle does not rise and fall"
        raise ProPLError(where, fact, "name the frames of end-diastole and end-systole, or give stills of them")
    return sorted(beats, key=lambda beat: beat.change)[(len(beats) - 1) // 2]


def _smooth(areas: Sequence[float | None]) -> np.ndarray | None:
    """The curve without gaps, single outliers and noise; None for one too short or too empty to have a beat."""
    from scipy.ndimage import gaussian_filter1d, median_filter

    values = np.array([np.nan if area is None else area for area in areas], float)
    found = np.flatnonzero(values > 0)
    if len(found) < 3:
        return None
    whole = np.interp(np.arange(len(values)), found, values[found])
    smooth: np.ndarray = gaussian_filter1d(median_filter(whole, 3, mode="nearest"), SMOOTH, mode="nearest")
    return smooth
