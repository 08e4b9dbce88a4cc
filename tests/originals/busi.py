"""A tiny fake of BUSI as downloaded: names with blanks and brackets, masks in 1 bit, RGB and RGBA, several a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 24, 32
# For each picture its masks as (top, left, bottom, right); the second is `_mask_1.png`, the third `_mask_2.png`.
BOXES: dict[str, list[tuple[int, int, int, int]]] = {
    "benign (1)": [(2, 3, 10, 12)],
    "benign (65)": [(4, 4, 12, 20)],
    "benign (139)": [(4, 4, 12, 20)],  # published as another picture, nearly the same as 65
    "benign (195)": [(0, 0, 4, 5), (10, 10, 14, 16), (12, 12, 20, 30)],
    "malignant (53)": [(6, 6, 18, 18), (0, 20, 5, 30)],
    "malignant (93)": [(1, 1, 9, 9)],  # nearly the same as benign (399)
    "normal (1)": [(0, 0, 0, 0)],
}
MODES = {"malignant": "RGBA", "normal": "RGB"}  # the rest has 1 bit


def make(folder: Path, boxes: dict[str, list[tuple[int, int, int, int]]] = BOXES) -> Path:
    """Write the set, and return its folder."""
    home = folder / "Dataset_BUSI_with_GT"
    random = np.random.default_rng(0)
    for name, targets in boxes.items():
        kind = name.split()[0]
        (home / kind).mkdir(parents=True, exist_ok=True)
        grey = random.integers(0, 256, (HEIGHT, WIDTH, 1), np.uint8)
        Image.fromarray(np.repeat(grey, 3, axis=2)).save(home / kind / f"{name}.png")
        for index, (top, left, bottom, right) in enumerate(targets):
            mask = np.zeros((HEIGHT, WIDTH), np.uint8)
            mask[top:bottom, left:right] = 255
            ending = "_mask" if index == 0 else f"_mask_{index}"
            Image.fromarray(mask).convert(MODES.get(kind, "1")).save(home / kind / f"{name}{ending}.png")
    return home
