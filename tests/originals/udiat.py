"""A tiny fake of UDIAT (Dataset B) as it is sent out: `BUS/original` and `BUS/GT` with equal names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

NAMES = ("000001", "000002", "000007")


def make(folder: Path, without_mask: str = "") -> Path:
    """Write the set, and return its folder. The lesion of each picture is the left half of it."""
    home = folder / "BUS"
    for part in ("original", "GT"):
        (home / part).mkdir(parents=True)
    random = np.random.default_rng(0)
    for name in NAMES:
        Image.fromarray(random.integers(0, 256, (20, 30), np.uint8)).save(home / "original" / f"{name}.png")
        mask = np.zeros((20, 30), np.uint8)
        mask[:, :15] = 255
        if name != without_mask:
            Image.fromarray(mask).save(home / "GT" / f"{name}.png")
    return home
