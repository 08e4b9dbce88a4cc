"""A tiny fake of OTU_2d of MMOTU as it is downloaded: upper-case suffixes, colours for classes, binary masks of 0 and 1."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 16, 20
# Boxes (top, left, bottom, right) of the colours of the authors' loader.
DRAWN = {
    "1": [((64, 64, 0), (2, 2, 8, 9))],  # simple cyst
    "2": [((64, 64, 64), (4, 4, 12, 12))],  # normal ovary
    "10": [((0, 0, 64), (0, 0, 5, 5)), ((0, 128, 0), (8, 10, 16, 20))],  # teratoma and mucinous cystadenoma
    "1469": [((0, 0, 128), (6, 0, 9, 20))],  # high grade serous cystadenoma
}
LISTS = {"train.txt": ("1", "10"), "val.txt": ("2", "1469")}


def make(folder: Path, lists: dict[str, tuple[str, ...]] = LISTS, binary: bool = True) -> Path:
    """Write the set, and return its folder."""
    home = folder / "OTU_2d"
    for part in ("images", "annotations"):
        (home / part).mkdir(parents=True)
    random = np.random.default_rng(0)
    for name, areas in DRAWN.items():
        pixels = random.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        Image.fromarray(pixels).save(home / "images" / f"{name}.JPG", format="JPEG")
        colours = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        for colour, (top, left, bottom, right) in areas:
            colours[top:bottom, left:right] = colour
        Image.fromarray(colours).save(home / "annotations" / f"{name}.PNG")
        if binary:
            Image.fromarray(colours.any(axis=2).astype(np.uint8)).save(home / "annotations" / f"{name}_binary.PNG")
    for name, entries in lists.items():
        (home / name).write_text("\n".join(entries) + "\n")
    return home
