"""What tests look at in an output folder of a prediction."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def content(folder: Path) -> dict[str, bytes]:
    """All files but run.json and the journal, which hold times."""
    files = (
        path for path in folder.rglob("*") if path.is_file() and path.name not in ("run.json", "predictions.jsonl")
    )
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def same_results(folder: Path, whole: Path) -> bool:
    """Whether all that is in a folder is in the other one too: variances up to rounding, all else to the byte."""
    for name in content(folder):
        if name.endswith("_uncertainty.png"):
            left, right = (pixels(place / name) / 131070 for place in (folder, whole))
            if np.abs(left**2 - right**2).max() > 1e-5:
                return False
        elif (folder / name).read_bytes() != (whole / name).read_bytes():
            return False
    return True


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))
