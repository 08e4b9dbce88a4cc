"""A tiny fake of HC18 as it is downloaded: outlines of ellipses, test pictures without, CSV files of pixel sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

HEIGHT, WIDTH = 60, 80
# The box of the outline's outer border as (left, top, right, bottom), in pixels; that of 787 leaves the picture at the top.
ELLIPSES = {
    "000_HC": (10, 8, 60, 50),
    "010_HC": (20, 10, 64, 40),
    "010_2HC": (22, 10, 66, 40),
    "787_HC": (12, -14, 68, 36),
}
PIXEL_SIZES = {"000_HC": 0.069135804, "010_HC": 0.079935165, "010_2HC": 0.079927246, "787_HC": 0.202475389}
TEST_PIXEL_SIZES = {"000_HC": 0.11, "001_HC": 0.22}
LINE = 3


def make(folder: Path, filled: bool = False, pixel_sizes: bool = True, test_set: bool = True) -> Path:
    """Write the set, and return its folder."""
    home = folder / "HC18"
    (home / "training_set").mkdir(parents=True)
    random = np.random.default_rng(0)
    for name, box in ELLIPSES.items():
        _noise(random).save(home / "training_set" / f"{name}.png")
        annotation = Image.new("L", (WIDTH, HEIGHT), 0)
        ImageDraw.Draw(annotation).ellipse(box, fill=255 if filled else None, outline=255, width=LINE)
        annotation.save(home / "training_set" / f"{name}_Annotation.png")
    if pixel_sizes:
        rows = "".join(f"{name}.png,{size},100\n" for name, size in PIXEL_SIZES.items())
        text = "filename,pixel size(mm),head circumference (mm)\n" + rows
        (home / "training_set_pixel_size_and_HC.csv").write_text(text)
    if test_set:
        (home / "test_set").mkdir()
        for name in TEST_PIXEL_SIZES:
            _noise(random).save(home / "test_set" / f"{name}.png")
        rows = "".join(f"{name}.png,{size}\n" for name, size in TEST_PIXEL_SIZES.items())
        (home / "test_set_pixel_size.csv").write_text("filename,pixel size(mm)\n" + rows)
    return home


def inside(name: str) -> np.ndarray:
    """The pixels, bool `(H, W)`, whose centres lie in the outer ellipse of a picture: by its equation, not by drawing."""
    left, top, right, bottom = ELLIPSES[name]
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    across = (columns - (left + right) / 2) / ((right - left + 1) / 2)
    down = (rows - (top + bottom) / 2) / ((bottom - top + 1) / 2)
    return across**2 + down**2 <= 1


def _noise(random: np.random.Generator) -> Image.Image:
    return Image.fromarray(random.integers(0, 256, (HEIGHT, WIDTH), np.uint8))
