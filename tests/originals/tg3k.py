"""Makes a tiny TG3K in the documented layout: videos of one size each, letters burned into pictures and masks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

SIZES = ((100, 150), (90, 150), (110, 140))  # height and width of the frames of each video


def make(
    folder: Path,
    frames: Sequence[int] = (3, 4, 2),
    sizes: Sequence[tuple[int, int]] = SIZES,
    validation: Sequence[int] | None = None,
) -> Path:
    """Write `data/tg3k` into a folder.

    Args:
        folder: where to write.
        frames: how many each video has; they are numbered through.
        sizes: of the pictures of each video.
        validation: numbers of frames under `val` in `tg3k-trainval.json`; None writes no such file.

    Returns:
        The folder `tg3k`.
    """
    home = folder / "data" / "tg3k"
    number = 0
    for count, size in zip(frames, sizes, strict=True):
        for _ in range(count):
            write_frame(home, number, size)
            number += 1
    if validation is not None:
        train = [each for each in range(number) if each not in validation]
        (home / "tg3k-trainval.json").write_text(json.dumps({"train": train, "val": list(validation)}))
    return home


def gland(size: tuple[int, int]) -> np.ndarray:
    """What is drawn, bool `(H, W)`: a block of 20 x 30 pixels, and an island of 2 x 4 well below the corner."""
    drawn = np.zeros(size, bool)
    drawn[40:60, 60:90] = True
    drawn[50:52, 10:14] = True
    return drawn


def letters(size: tuple[int, int]) -> np.ndarray:
    """Two letters of 12 and 6 pixels in the top left corner, bool `(H, W)`."""
    drawn = np.zeros(size, bool)
    drawn[0:4, 1:4] = True
    drawn[1:4, 6:8] = True
    return drawn


def write_frame(home: Path, number: int, size: tuple[int, int], with_gland: bool = True) -> None:
    """One picture and its mask."""
    picture = np.random.default_rng(number).integers(20, 90, (*size, 3), dtype=np.uint8)
    picture[gland(size)] += 60
    picture[letters(size)] = 255
    white = letters(size) | (gland(size) & with_gland)
    for kind, pixels in (("image", picture), ("mask", white.astype(np.uint8) * 255)):
        path = home / f"thyroid-{kind}" / f"{number:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, quality=95)
