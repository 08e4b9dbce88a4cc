"""Volumes of ellipsoids, which are known, and ejection fractions of them."""

from __future__ import annotations

import pytest
from made_hearts import half_ellipse, half_ellipsoid_ml

from propl_monai.errors import ProPLError
from propl_monai.inference.cines.discs import Ventricle, cut
from propl_monai.inference.cines.ejection import ejection, volume

DIASTOLE, SYSTOLE = (88.0, 52.0, 46.0), (70.0, 38.0, 33.0)  # length, and width in two planes, mm


def plane(length: float, width: float, degrees: float = 20, spacing: float = 0.5, known: bool = True) -> Ventricle:
    mask, atrium = half_ellipse(length, width, degrees, spacing)
    return cut(mask, (spacing, spacing) if known else None, atrium)


@pytest.mark.parametrize("degrees", [0, 45, 100, 261])
def test_one_plane_of_an_ellipsoid_of_revolution(degrees: float) -> None:
    expected = half_ellipsoid_ml(80, 48, 48)
    assert volume([plane(80, 48, degrees)]) / 1000 == pytest.approx(expected, rel=0.025)


@pytest.mark.parametrize("degrees", [0, 45, 100, 261])
def test_two_planes_of_an_ellipsoid_with_three_axes(degrees: float) -> None:
    expected = half_ellipsoid_ml(80, 52, 40)
    planes = [plane(80, 52, degrees), plane(80, 40, degrees + 70)]
    assert volume(planes) / 1000 == pytest.approx(expected, rel=0.025)
    assert volume(planes[:1]) / 1000 > 1.2 * expected  # the wider plane alone takes it for rounder than it is


def test_the_longer_of_two_lengths_counts() -> None:
    whole, foreshortened = plane(80, 50), plane(68, 50)
    assert volume([whole, foreshortened]) == volume([foreshortened, whole])
    assert volume([whole, foreshortened]) / 1000 == pytest.approx(half_ellipsoid_ml(80, 50, 50), rel=0.03)
    found = ejection([whole, foreshortened], [plane(60, 36), plane(60, 36)])
    assert any("68" in note or "67" in note for note in found.notes) is (1 - 68 / 80 > 0.2)


def phases(known: bool, spacings: tuple[float, float] = (0.5, 0.5)) -> tuple[list[Ventricle], list[Ventricle]]:
    return tuple(  # type: ignore[return-value]
        [plane(length, width, 20 + 50 * index, spacings[index], known) for index, width in enumerate(widths)]
        for length, *widths in (DIASTOLE, SYSTOLE)
    )


def test_ejection_fraction_in_ml_and_percent() -> None:
    before, after = half_ellipsoid_ml(*DIASTOLE), half_ellipsoid_ml(*SYSTOLE)
    found = ejection(*phases(known=True))
    assert (found.unit, found.planes, found.notes) == ("ml", 2, ())
    assert found.end_diastolic == pytest.approx(before, rel=0.025)
    assert found.end_systolic == pytest.approx(after, rel=0.025)
    assert found.fraction == pytest.approx(100 * (1 - after / before), abs=1)


def test_ejection_fraction_needs_no_spacing_not_even_the_same_in_both_planes() -> None:
    truth = 100 * (1 - half_ellipsoid_ml(*SYSTOLE) / half_ellipsoid_ml(*DIASTOLE))
    for spacings in ((0.5, 0.5), (0.5, 0.8)):
        found = ejection(*phases(False, spacings))
        assert found.unit == "pixel³" and found.fraction == pytest.approx(truth, abs=1)
    one = ejection([plane(88, 52)], [plane(70, 38)])
    assert one.planes == 1
    assert one.fraction == pytest.approx(100 * (1 - (70 * 38**2) / (88 * 52**2)), abs=1)


def test_what_a_reader_should_look_at_is_said() -> None:
    found = ejection([plane(70, 38)], [plane(88, 52)])
    assert found.fraction < 0 and "larger at end-systole" in found.notes[0]
    mask, _ = half_ellipse(80, 50)
    alone = cut(mask[:, :300])
    notes = ejection([alone], [alone]).notes
    assert any("touches the edge" in note for note in notes) and any("shape alone" in note for note in notes)
    apart = ejection([plane(80, 50), plane(60, 50)], [plane(60, 36), plane(60, 36)])
    assert len(apart.notes) == 1 and "at end-diastole the lengths of the two planes differ" in apart.notes[0]


def test_planes_must_fit() -> None:
    one = plane(80, 50)
    with pytest.raises(ProPLError, match="same planes"):
        ejection([one, one], [one])
    with pytest.raises(ProPLError, match="give one, or two"):
        volume([])
