"""Masks that are hard to write: overlaps, holes, pixels that touch at a corner, the border, an empty frame."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

from propl_monai.inference.formats.masks import Masks
from propl_monai.tasks import find_all

SIZE = 23, 37
TASKS = ("LA", "TN", "BC")


def blobs(seed: int, size: tuple[int, int] = SIZE, grain: float = 1.0) -> np.ndarray:
    """About half of the pixels, in parts of any form, bool (H, W)."""
    return gaussian_filter(np.random.default_rng(seed).normal(size=size), grain) > 0


def drawn(count: int = 3, tasks: Sequence[str] = TASKS, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Bool (frames, tasks, H, W); the second task has no target in the last frame, the third is in the first."""
    masks = np.stack([[blobs(10 * number + index, size) for index in range(len(tasks))] for number in range(count)])
    if len(tasks) > 1:
        masks[-1, 1] = False
    return masks


def filled(
    path: Path, frames: np.ndarray, tasks: Sequence[str] = TASKS, name: str = "deep er/b (1)", **more: Any
) -> Masks:
    """`Masks` of these frames."""
    masks = Masks(path, name, len(frames), find_all(list(tasks)), **more)
    for frame in frames:
        masks.add(list(frame))
    return masks


def written(files: dict[str, bytes], folder: Path) -> list[Path]:
    """The files, on disk."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return [folder / name for name in files]
