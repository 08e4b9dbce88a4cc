"""Sectors of made scans: fans and rectangles, text around them, and pictures that have none."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from propl_monai.images.sector import (
    blanked,
    box_of_frames,
    crop_box,
    cropped,
    find_sector,
    in_place,
    sector_of_frames,
    whole,
)

SIZE = (360, 480)


def speckled(inside: np.ndarray, seed: int = 0, level: float = 90) -> np.ndarray:
    """Uint8 (H, W): Rayleigh speckle inside, black outside."""
    noise = np.random.default_rng(seed).rayleigh(level / 1.25, inside.shape)
    return (np.clip(noise, 0, 255) * inside).astype(np.uint8)


def fan() -> np.ndarray:
    rows, columns = np.indices(SIZE)
    radius, angle = np.hypot(rows - 20, columns - 240), np.arctan2(columns - 240, rows - 20)
    return (radius < 300) & (radius > 30) & (np.abs(angle) < np.deg2rad(38)) & (rows > 20)


def rectangle() -> np.ndarray:
    inside = np.zeros(SIZE, bool)
    inside[40:300, 90:400] = True
    return inside


def with_text(pixels: np.ndarray) -> np.ndarray:
    picture = Image.fromarray(pixels)
    pen = ImageDraw.Draw(picture)
    pen.text((4, 4), "HOSPITAL X  1.1.2020", 255)
    pen.text((380, 340), "MI 1.2 TIS 0.4", 255)
    return np.array(picture)


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


@pytest.mark.parametrize("shape", [fan, rectangle])
@pytest.mark.parametrize("large", [1, 3])
def test_the_sector_is_found_and_text_is_not(shape, large: int) -> None:  # type: ignore[no-untyped-def]
    inside = shape()
    pixels = np.kron(with_text(speckled(inside)), np.ones((large, large), np.uint8))
    found = find_sector(pixels)
    assert found is not None and found.cuts and found.inside.shape == pixels.shape
    expected = np.kron(inside, np.ones((large, large), bool))
    hull_of_fan = 0.93  # the concave top of the fan belongs to its hull
    assert overlap(found.inside, expected) > hull_of_fan
    assert found.inside[expected].mean() > 0.995
    clean = blanked(pixels, found)
    assert (clean[: 16 * large, : 120 * large] == 0).all() and (clean[330 * large :, 370 * large :] == 0).all()
    assert np.array_equal(clean[found.inside], pixels[found.inside])


def test_two_views_side_by_side_are_both_kept() -> None:
    inside = np.zeros(SIZE, bool)
    inside[60:300, 30:220] = inside[60:300, 260:450] = True
    top, left, bottom, right = crop_box(speckled(inside))
    assert (top, bottom) == pytest.approx((60, 300), abs=6) and (left, right) == pytest.approx((30, 450), abs=6)


def test_dark_tissue_is_no_border() -> None:
    """A rectangle whose lower half is speckled shadow keeps that half; one that is black below is cut."""
    inside = np.zeros(SIZE, bool)
    inside[:170] = True
    shadow = np.zeros(SIZE, bool)
    shadow[170:] = True
    pixels = np.maximum(speckled(inside), speckled(shadow, 1, 5))
    assert crop_box(pixels) == whole(pixels)
    assert crop_box(speckled(inside)) == pytest.approx((0, 0, 170, SIZE[1]), abs=6)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros(SIZE, np.uint8),
        np.full(SIZE, 255, np.uint8),
        np.full(SIZE, 7, np.uint8),
        speckled(np.ones(SIZE, bool)),
        speckled(np.ones((12, 300), bool)),
        np.zeros((1, 1), np.uint8),
        with_text(np.zeros(SIZE, np.uint8)),
        255 - speckled(rectangle()),
    ],
    ids=["black", "white", "grey", "no border", "low", "one pixel", "text alone", "light ground"],
)
def test_other_pictures_stay_as_they_are(pixels: np.ndarray) -> None:
    assert crop_box(pixels) == whole(pixels) == (0, 0, *pixels.shape)
    assert cropped(pixels, crop_box(pixels)).shape == pixels.shape


def test_a_cine_is_cut_by_all_of_its_frames() -> None:
    inside = rectangle()
    left, right = inside.copy(), inside.copy()
    left[:, 250:], right[:, :240] = False, False
    frames = [speckled(left), speckled(right, 1)]
    box = box_of_frames(iter(frames))
    assert box == pytest.approx((40, 90, 300, 400), abs=6)
    found = sector_of_frames(frames)
    assert found is not None and found.box == box
    colour = [np.repeat(frame[..., None], 3, axis=2) for frame in frames]
    assert box_of_frames(colour) == box


def test_what_was_cut_comes_back_to_the_pixel() -> None:
    pixels = with_text(speckled(rectangle()))
    box = crop_box(pixels)
    part = cropped(pixels, box)
    back = in_place(part, box, SIZE)
    assert np.array_equal(cropped(back, box), part)
    outside = np.ones(SIZE, bool)
    outside[box[0] : box[2], box[1] : box[3]] = False
    assert (back[outside] == 0).all() and back.dtype == pixels.dtype
    maps = np.stack([part, part])
    assert np.array_equal(in_place(maps, box, SIZE)[1], back)
    assert in_place(pixels, whole(pixels), SIZE) is pixels
