"""Duplicates: copies of phantoms are found in whatever form, different phantoms are not taken for copies."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from propl_monai.datasets.phantoms.phantom import ANATOMIES, make_phantom
from propl_monai.datasets.verification.duplicates import Shown, difference_hash, find_duplicates, similar_pictures
from propl_monai.datasets.verification.file_checks import IMAGE, THUMBNAIL, FileReport, check_file, thumbnail_of

PATIENTS = 12
Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def resized(scale: float) -> Change:
    def change(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        height, width = pixels.shape
        return np.asarray(Image.fromarray(pixels).resize((round(width * scale), round(height * scale))))

    return change


def jpeg(quality: int) -> Change:
    def change(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
        return np.asarray(Image.open(buffer))

    return change


def cropped(share: float) -> Change:
    """Up to that share of each side is cut off."""

    def change(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        height, width = pixels.shape
        top, bottom = rng.integers(0, round(share * height) + 1, 2)
        left, right = rng.integers(0, round(share * width) + 1, 2)
        return pixels[top : height - bottom, left : width - right]

    return change


def small_and_squeezed(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return jpeg(75)(resized(0.6)(pixels, rng), rng)


def brighter(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.clip(pixels * 1.15 + 3, 0, 255).astype(np.uint8)


CHANGES: dict[str, Change] = {
    "half the size": resized(0.5),
    "larger": resized(1.37),
    "JPEG of quality 50": jpeg(50),
    "smaller and JPEG": small_and_squeezed,
    "cropped": cropped(0.02),
    "brighter": brighter,
}


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    return [make_phantom(name, patient, 0, 144).image for name in ANATOMIES for patient in range(PATIENTS)]


def thumbnails(pictures: list[np.ndarray]) -> np.ndarray:
    return np.stack([thumbnail_of(picture) for picture in pictures])


def pairs(thumbs: np.ndarray) -> set[tuple[int, int]]:
    found = similar_pictures(thumbs, np.arange(len(thumbs)))
    return {(min(one, int(other)), max(one, int(other))) for one, others, _ in found for other in others}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_copies_are_found(pictures: list[np.ndarray], change: Change) -> None:
    rng = np.random.default_rng(0)
    copies = [change(picture, rng) for picture in pictures]
    found = pairs(thumbnails(pictures + copies))
    copied = {(index, index + len(pictures)) for index in range(len(pictures))}
    assert len(copied & found) >= 0.95 * len(copied)
    different = len(pictures) * (2 * len(pictures) - 2)
    assert len(found - copied) <= 0.01 * different


def test_different_pictures_are_not(pictures: list[np.ndarray]) -> None:
    assert pairs(thumbnails(pictures)) == set()


def test_a_group_is_never_compared_with_itself(pictures: list[np.ndarray]) -> None:
    thumbs = thumbnails([pictures[0], brighter(pictures[0], np.random.default_rng(0))])
    assert list(similar_pictures(thumbs, np.array([4, 4]))) == []
    assert [one for one, _, _ in similar_pictures(thumbs, np.array([4, 5]))] == [0, 1]


def test_thumbnail_is_the_mean_of_equal_areas() -> None:
    picture = np.arange(64 * 68).reshape(64, 68) % 256
    by_hand = picture.reshape(32, 2, 34, 2).mean(axis=(1, 3))
    assert np.abs(thumbnail_of(picture.astype(np.uint8)) - by_hand).max() <= 0.5
    assert (thumbnail_of(np.full((50, 7), 200, np.uint8)) == 200).all()  # areas smaller than a pixel


def test_difference_hash_by_hand() -> None:
    thumb = np.zeros((1, *THUMBNAIL), np.uint8)
    thumb[0, 2:4, 4:6] = 9  # the third of 17 blocks in the second of 16 rows
    bits = difference_hash(thumb)
    assert bits.shape == (1, 256) and np.flatnonzero(bits[0]).tolist() == [16 + 1]
    thumb[0, 2:4, 4:6] = 1  # noise
    assert not difference_hash(thumb).any()


def shown(name: str, split: str, picture: np.ndarray, folder: Path, group: str = "") -> Shown:
    Image.fromarray(picture).save(folder / name)
    report: FileReport = check_file((str(folder), name, IMAGE))
    return Shown(name, f"id {name}", ("S", group or name), split, report.sha256, report.pixels, report.thumbnail)


def test_each_picture_is_named_once_with_the_most_similar_of_another_split(
    pictures: list[np.ndarray], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    first = pictures[0]
    made = [
        shown("t.png", "test", first, tmp_path),
        shown("a.png", "train", resized(0.5)(first, rng), tmp_path),
        shown("b.png", "train", brighter(first, rng), tmp_path),
        shown("v.png", "validation", pictures[1], tmp_path),
    ]
    found = {(finding.code, finding.where): finding for finding in find_duplicates(made)}
    assert set(found) == {("W-LEAK-NEAR", "t.png"), ("W-DUPLICATE", "b.png")}
    leak = found["W-LEAK-NEAR", "t.png"]
    assert leak.case_id == "id t.png" and "in test looks like " in leak.fact and " of train (group " in leak.fact
    assert "looks like a.png of train (group 'a.png', " in found["W-DUPLICATE", "b.png"].fact


def test_equal_pixels_are_told_exactly_and_flat_pictures_not_at_all(pictures: list[np.ndarray], tmp_path: Path) -> None:
    flat = np.full((64, 64), 40, np.uint8)
    flat[0, 0] = 41
    made = [
        shown("a.png", "train", pictures[0], tmp_path, "one"),
        shown("b.bmp", "test", pictures[0], tmp_path, "two"),
        shown("c.bmp", "train", pictures[0], tmp_path, "one"),
        shown("d.tif", "train", pictures[0], tmp_path, "three"),
        shown("e.png", "train", flat, tmp_path),
        shown("f.png", "train", flat[::-1].copy(), tmp_path),
    ]
    found = [(finding.code, finding.where) for finding in find_duplicates(made)]
    assert found == [("W-DUPLICATE", "d.tif"), ("E-LEAK-EXACT", "b.bmp")]
    assert find_duplicates([]) == []
