"""Makes a tiny TN3K in the documented layout: JPEG pictures and JPEG masks with grey edges, and the five fold files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (40, 56)  # height, width


def make(folder: Path, trainval: int = 10, test: int = 4) -> Path:
    """Write `data/tn3k` into a folder.

    Returns:
        The folder `tn3k`. Picture i shows a bright disc on noise, and its mask is the disc; of radius 8, centre (20, 20 + i).
    """
    home = folder / "data" / "tn3k"
    for part, count in (("trainval", trainval), ("test", test)):
        for index in range(count):
            _write_pair(home, part, index)
    for fold in range(5):
        content = {
            "val": [index for index in range(trainval) if index % 5 == fold],
            "train": [index for index in range(trainval) if index % 5 != fold],
        }
        (home / f"tn3k-trainval-fold{fold}.json").write_text(json.dumps(content))
    return home


def disc(index: int) -> np.ndarray:
    """What is drawn in the mask of picture `index`, bool `(H, W)`."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    return (rows - 20) ** 2 + (columns - 20 - index) ** 2 <= 64


def _write_pair(home: Path, part: str, index: int) -> None:
    noise = np.random.default_rng(index).integers(20, 90, (*SIZE, 3), dtype=np.uint8)
    noise[disc(index)] += 100
    for kind, pixels, quality in (("image", noise, 90), ("mask", disc(index).astype(np.uint8) * 255, 75)):
        path = home / f"{part}-{kind}" / f"{index:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, quality=quality)
