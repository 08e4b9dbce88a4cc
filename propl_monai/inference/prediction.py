"""`Prediction`, the result for one picture and one task, and the files that it is written to."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from propl_monai import tasks as registry
from propl_monai.images import to_grey, write_mask, write_overlay, write_png16
from propl_monai.inference.known import Scores

THRESHOLD = 0.5
LARGEST_DEVIATION = 0.5  # of a probability: half of the passes give 0, half give 1


@dataclass(frozen=True, eq=False)
class Prediction:
    """The result for one task on one picture, at the size of that picture.

    Attributes:
        task: its name.
        mask: bool (H, W), the target.
        probability: float32 (H, W) in [0, 1] of the target.
        uncertainty: float32 (H, W) in [0, 0.5], the standard deviation of the probability over views of the picture
            or perturbed passes: the root of UPLC's variance (eq. 4); None where it is not wanted.
        spacing_mm: height and width of a pixel (row, column); None when unknown.
        scores: whether the picture is of a known kind and shows the target; None for weights without `known.safetensors`.
    """

    task: str
    mask: np.ndarray
    probability: np.ndarray
    uncertainty: np.ndarray | None = None
    spacing_mm: tuple[float, float] | None = None
    scores: Scores | None = None

    @property
    def relative_uncertainty(self) -> float | None:
        """Sum of the uncertainty over that of the probability: how doubtful the mask is as a whole, 0 or more."""
        if self.uncertainty is None:
            return None
        return float(self.uncertainty.sum()) / max(float(self.probability.sum()), 1e-6)


def from_maps(
    tasks: Sequence[str],
    probability: Any,
    variance: Any,
    threshold: float = THRESHOLD,
    spacing_mm: tuple[float, float] | None = None,
    scores: Sequence[Scores | None] | None = None,
) -> list[Prediction]:
    """One prediction per task from maps (K, H, W) at the size of the picture; a mask is where they exceed the threshold.

    Args:
        tasks: K names.
        probability: arrays or tensors.
        variance: the same; None for none.
        threshold: of the probability.
        spacing_mm: height and width of a pixel.
    """
    maps = _array(probability).clip(0, 1)
    deviations: Sequence[np.ndarray | None] = [None] * len(tasks)
    if variance is not None:
        deviations = list(np.sqrt(_array(variance).clip(0)).clip(0, LARGEST_DEVIATION))
    return [
        Prediction(task, one > threshold, one, deviation, spacing_mm, score)
        for task, one, deviation, score in zip(tasks, maps, deviations, scores or [None] * len(tasks), strict=True)
    ]


def from_masks(
    tasks: Sequence[str],
    masks: np.ndarray,
    spacing_mm: tuple[float, float] | None = None,
    scores: Sequence[Scores | None] | None = None,
) -> list[Prediction]:
    """One prediction per task from bool masks (K, H, W) alone: its probability is empty, (0, 0)."""
    empty = np.empty((0, 0), np.float32)
    return [
        Prediction(task, one, empty, None, spacing_mm, score)
        for task, one, score in zip(tasks, masks, scores or [None] * len(tasks), strict=True)
    ]


def _array(maps: Any) -> np.ndarray:
    """Maps as float32, whether NumPy or torch holds them, on whatever device."""
    return np.asarray(maps.cpu() if hasattr(maps, "cpu") else maps, np.float32)


def write_predictions(
    base: Path,
    predictions: Sequence[Prediction],
    probability: bool = False,
    overlay_on: np.ndarray | None = None,
    masks: bool = True,
    keep: Collection[Path] = (),
) -> list[Path]:
    """Write the files of one picture, each complete or not at all.

    For a base `a/b` and each task: `a/b_<task>.png` (mask, 0 and 255); on request `…_probability.png` (16 bit, 65535 is 1);
    `…_uncertainty.png` where predictions have one (16 bit, 65535 is the largest possible deviation, 0.5); and one
    `a/b_overlay.png` of all tasks.

    Args:
        base: folder and name.
        predictions: one per task.
        probability: write probabilities too.
        overlay_on: the picture, uint8 (H, W) or (H, W, 3), shown in grey below the masks; None for no overlay.
        masks: write masks.
        keep: files that are there and are left as they are, such as masks that somebody has corrected; but for the overlay.

    Returns:
        The files.
    """
    written = []

    def put(kind: str, write: Callable[[Path, np.ndarray], None], values: np.ndarray) -> None:
        written.append(base.with_name(f"{base.name}_{kind}.png"))
        if written[-1] not in keep:
            write(written[-1], values)

    for one in predictions:
        slug = registry.find(one.task).slug
        if masks:
            put(slug, write_mask, one.mask)
        if probability:
            put(f"{slug}_probability", write_png16, one.probability)
        if one.uncertainty is not None:
            put(f"{slug}_uncertainty", write_png16, one.uncertainty / LARGEST_DEVIATION)
    if overlay_on is not None:
        colours = [registry.find(one.task).colour for one in predictions]
        written.append(base.with_name(f"{base.name}_overlay.png"))
        write_overlay(written[-1], to_grey(overlay_on), [one.mask for one in predictions], colours)
    return written
