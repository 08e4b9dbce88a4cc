"""Volume and ejection fraction of the left ventricle by the modified Simpson's rule, the method of discs.

Schiller et al., J Am Soc Echocardiogr 1989;2:358-367, as recommended by Lang et al., J Am Soc Echocardiogr 2015;28:1-39:

* two planes (apical four-chamber and two-chamber view): V = π/4 · Σ a_i b_i · L/20, where a_i and b_i are the diameters of
  the i-th of 20 discs in the two planes, and L is the longer of the two lengths;
* one plane: V = π/4 · Σ a_i² · L/20;
* ejection fraction: EF = 100 % · (EDV - ESV) / EDV, of the end-diastolic and end-systolic volumes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from propl_monai.errors import ProPLError
from propl_monai.inference.cines.discs import Ventricle

MM3_PER_ML = 1000.0
UNEQUAL = 0.2  # lengths of two planes that differ by more than this share are worth a word; a rule of this package


@dataclass(frozen=True)
class Ejection:
    """Volumes and ejection fraction.

    Attributes:
        end_diastolic, end_systolic: volumes in `unit`.
        unit: "ml", or "pixel³" where the spacing of a plane is unknown. Volumes in pixel³ of two planes can only be compared
            with one another.
        fraction: EF in %; negative where the ventricle is larger at end-systole, which asks for a look.
        planes: 1 or 2.
        notes: what a reader should look at; most often empty.
    """

    end_diastolic: float
    end_systolic: float
    unit: str
    fraction: float
    planes: int
    notes: tuple[str, ...] = ()


def volume(planes: Sequence[Ventricle], length: float | None = None) -> float:
    """The volume of a ventricle from one plane or two, in mm³ (pixel³ where the spacing is unknown).

    Args:
        planes: the same phase in one view, or in two at right angles to each other.
        length: of the long axis; None for that of the plane, the longer of two.
    """
    if len(planes) not in (1, 2):
        raise ProPLError("planes", f"{len(planes)} were given", "give one, or two at right angles to each other")
    longest = max(plane.length for plane in planes) if length is None else length
    first, second = planes[0].diameters, planes[-1].diameters
    return float(math.pi / 4 * np.sum(first * second) * longest / len(first))


def ejection(diastole: Sequence[Ventricle], systole: Sequence[Ventricle]) -> Ejection:
    """The ejection fraction from the same one or two planes at end-diastole and end-systole.

    Where a spacing is unknown, lengths of two planes cannot be compared with each other; the long axis is then taken from one
    plane, that of the greater length at end-diastole, in both phases, so that the scale of either plane cancels out in EF.

    Args:
        diastole, systole: one plane each, or two each in the same order.
    """
    if len(diastole) != len(systole):
        fact = f"{len(diastole)} at end-diastole, {len(systole)} at end-systole"
        raise ProPLError("planes", fact, "give the same planes in both phases")
    both = (*diastole, *systole)
    known = all(plane.known_spacing for plane in both)
    lengths: tuple[float | None, float | None] = (None, None)
    if not known:
        longest = max(range(len(diastole)), key=lambda index: diastole[index].length)
        lengths = diastole[longest].length, systole[longest].length
    before, after = volume(diastole, lengths[0]), volume(systole, lengths[1])
    scale, unit = (MM3_PER_ML, "ml") if known else (1.0, "pixel³")
    fraction = 100 * (before - after) / before
    notes = _notes(diastole, systole, fraction)
    return Ejection(before / scale, after / scale, unit, fraction, len(diastole), notes)


def _notes(diastole: Sequence[Ventricle], systole: Sequence[Ventricle], fraction: float) -> tuple[str, ...]:
    notes = []
    if fraction < 0:
        notes.append("the ventricle is larger at end-systole: look whether the phases are right")
    for name, planes in (("end-diastole", diastole), ("end-systole", systole)):
        if any(plane.touches_border for plane in planes):
            notes.append(f"at {name} the ventricle touches the edge of the picture")
        if any(not plane.by_atrium for plane in planes):
            notes.append(f"at {name} the base was told from the apex by shape alone, as no atrium lies beside it")
        low, high = (choose(plane.length for plane in planes) for choose in (min, max))
        if all(plane.known_spacing for plane in planes) and high - low > UNEQUAL * high:
            notes.append(f"at {name} the lengths of the two planes differ: {low:.0f} and {high:.0f} mm")
    return tuple(notes)
